"""Forms of the packaged network: what a bundle has, their numbers, and what a manifest may say of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_spine.bundle import load_bundle
from edge_spine.bundle.load import manifest_bytes, parse_manifest
from edge_spine.engines.forms import form_graph, widened
from edge_spine.engines.tensorrt.symmetric import quantised_readers, symmetric_graph
from edge_spine.engines.verification import compare, read_references
from edge_spine.errors import BundleError
from export.forms import answers


@pytest.mark.slow
def test_its_numbers_pass_the_gate(packaged, symmetric) -> None:
    """ONNX Runtime with every rewriting switched off computes what the graph says."""
    crops, expected = (part[:8] for part in read_references(packaged))
    found = answers(symmetric, crops)
    figures = {"engine": "onnx graph", "precision": "int8-trt", "model_pixel_mm": packaged.nominal_model_pixel_mm}
    assert compare(found, expected, **figures).passed
    shift = np.float32(0.4 / 224)
    assert not compare(found + shift, expected, **figures).passed


@pytest.mark.slow
def test_widening_changes_types_and_nothing_else(packaged, half) -> None:
    crops, _ = (part[:2] for part in read_references(packaged))
    single = onnx.load_model_from_string(widened(half))
    types = {tensor.data_type for tensor in single.graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in types
    onnx.checker.check_model(single, full_check=True)
    assert np.abs(answers(single.SerializeToString(), crops) - answers(half, crops)).max() * 224 < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spine", "lite"])
def test_a_bundle_without_a_float_file_has_float_forms(name: str) -> None:
    """The weights of the INT8 file in float16 are within the tolerance of float forms."""
    bundle = load_bundle(name)
    assert not bundle.has_role("float")
    half = onnx.load_model_from_string(form_graph(bundle, "fp16"))
    onnx.checker.check_model(half, full_check=True)
    ends = [end.type.tensor_type.elem_type for end in (*half.graph.input, *half.graph.output)]
    assert ends == [onnx.TensorProto.FLOAT] * 2
    assert onnx.TensorProto.FLOAT not in {tensor.data_type for tensor in half.graph.initializer}
    assert not [node for node in half.graph.node if "Quantize" in node.op_type]
    crops, expected = (part[:6] for part in read_references(bundle))
    found = answers(half.SerializeToString(), crops)
    assert compare(found, expected, engine="onnx graph", precision="fp16", model_pixel_mm=2.2).passed


@pytest.mark.parametrize("forms", [[], {"int8-trt": []}, {"int8-trt": {"exact": "all"}}, {"int8-trt": {"exact": [1]}}])
def test_forms_in_a_manifest_must_make_sense(fake_model: Path, tmp_path: Path, forms) -> None:
    manifest = parse_manifest((fake_model / "manifest.json").read_bytes())
    with pytest.raises(BundleError, match="'forms': "):
        parse_manifest(manifest_bytes({**manifest, "forms": forms}))


def test_a_bundle_carries_its_exact_readers(packaged, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(packaged.folder, folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    names = quantised_readers(symmetric_graph(form_graph(packaged, "int8")))[:2]
    manifest["forms"] = {"int8-trt": {"exact": names}}
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
    changed = load_bundle(folder)
    assert changed.exact_readers == tuple(names)
    assert not set(names) & set(quantised_readers(form_graph(changed, "int8-trt")))
