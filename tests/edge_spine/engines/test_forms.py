"""TensorRT's forms of the packaged network: derived graphs, their numbers, and NVIDIA's own parser and builder."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_spine.bundle import load_bundle
from edge_spine.bundle.load import manifest_bytes, parse_manifest
from edge_spine.engines.forms import FORMS, form_graph, widened
from edge_spine.engines.tensorrt import build as build_plan
from edge_spine.engines.tensorrt.symmetric import quantised_readers, symmetric_graph
from edge_spine.engines.verification import compare, read_references
from edge_spine.errors import BundleError, UsageError
from export.forms import answers


@pytest.fixture(scope="module")
def bundle():
    return load_bundle()


@pytest.fixture(scope="module")
def symmetric(bundle) -> bytes:
    return form_graph(bundle, "int8-trt")


@pytest.fixture(scope="module")
def half(bundle) -> bytes:
    """A float16 graph of the packaged network: its INT8 weights in float16, since the package brings no float file."""
    from export.forms import half_graph

    model = form_graph(bundle, "int8")
    plain = symmetric_graph(model, quantised_readers(symmetric_graph(model)))
    return half_graph(onnx.load_model_from_string(plain)).SerializeToString()


def test_the_form_is_symmetric_and_has_no_quantised_bias(bundle, symmetric) -> None:
    graph = onnx.load_model_from_string(symmetric).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > 150
    for node in pairs:
        assert values[node.input[2]].dtype == np.int8 and not values[node.input[2]].any()
    exact = set(bundle.exact_readers)
    for node in graph.node:
        if node.op_type == "Conv" and node.name not in exact:
            data, kernel = (producer[name] for name in node.input[:2])
            assert (data.op_type, kernel.op_type) == ("DequantizeLinear", "DequantizeLinear"), node.name
            assert values[node.input[2]].dtype == np.float32
    assert Counter(value.dtype for value in values.values())[np.dtype(np.int32)] == 0


def test_residual_sums_are_quantised_on_their_shortcut_only(bundle, symmetric) -> None:
    graph = onnx.load_model_from_string(symmetric).graph
    producer = {name: node for node in graph.node for name in node.output}
    sums = [node for node in graph.node if node.op_type == "Add" and node.name.endswith("/Add")]
    residual = [node for node in sums if any(producer[name].op_type == "Conv" for name in node.input)]
    assert len(residual) == 19
    for node in residual:
        kinds = sorted(producer[name].op_type for name in node.input)
        if node.name not in bundle.exact_readers:
            assert kinds == ["Conv", "DequantizeLinear"], node.name


def test_the_attention_and_the_last_layers_are_not_quantised(symmetric) -> None:
    readers = quantised_readers(symmetric)
    kinds = {node.name: node.op_type for node in onnx.load_model_from_string(symmetric).graph.node}
    assert {kinds[name] for name in readers} == {"Conv", "MaxPool", "Add"}
    assert not [name for name in readers if "pos_emb" in name or "linear" in name or "MatMul" in name]


def test_its_numbers_pass_the_gate(bundle, symmetric) -> None:
    """ONNX Runtime with every rewriting switched off computes what the graph says."""
    crops, expected = (part[:8] for part in read_references(bundle))
    found = answers(symmetric, crops)
    figures = {"engine": "onnx graph", "precision": "int8-trt", "model_pixel_mm": bundle.nominal_model_pixel_mm}
    assert compare(found, expected, **figures).passed
    shift = np.float32(0.4 / 224)
    assert not compare(found + shift, expected, **figures).passed


def test_a_reader_that_is_left_out_reads_floats(bundle) -> None:
    model = form_graph(bundle, "int8")
    readers = quantised_readers(symmetric_graph(model))
    graph = onnx.load_model_from_string(symmetric_graph(model, readers)).graph
    kinds = Counter(node.op_type for node in graph.node)
    assert kinds["QuantizeLinear"] == kinds["DequantizeLinear"] == 0
    assert len(readers) == len(set(readers)) > 80
    one = symmetric_graph(model, [readers[5]])
    assert set(readers) - set(quantised_readers(one)) == {readers[5]}


def test_widening_changes_types_and_nothing_else(bundle, half) -> None:
    crops, _ = (part[:2] for part in read_references(bundle))
    single = onnx.load_model_from_string(widened(half))
    types = {tensor.data_type for tensor in single.graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in types
    onnx.checker.check_model(single, full_check=True)
    assert np.abs(answers(single.SerializeToString(), crops) - answers(half, crops)).max() * 224 < 0.1


def test_forms_that_a_bundle_lacks_are_refused_by_name(bundle) -> None:
    assert FORMS == ("int8", "int8-trt", "fp16", "fp32")
    assert not bundle.has_role("float")
    with pytest.raises(UsageError, match="no float file and so no fp16; export --forms all adds it"):
        form_graph(bundle, "fp16")


def test_another_graph_is_refused_in_one_line(fake_model: Path) -> None:
    for content in (b"nothing", load_bundle().read("localiser.onnx")[:1000]):
        with pytest.raises(BundleError) as caught:
            symmetric_graph(content)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("forms", [[], {"int8-trt": []}, {"int8-trt": {"exact": "all"}}, {"int8-trt": {"exact": [1]}}])
def test_forms_in_a_manifest_must_make_sense(fake_model: Path, tmp_path: Path, forms) -> None:
    manifest = parse_manifest((fake_model / "manifest.json").read_bytes())
    with pytest.raises(BundleError, match="'forms': "):
        parse_manifest(manifest_bytes({**manifest, "forms": forms}))


# --- NVIDIA's own parser and builder, without a GPU


@pytest.fixture(scope="module")
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has wheels for Linux x86_64 only")


@pytest.mark.parametrize("form", ["int8-trt", "fp16", "fp32"])
def test_tensorrt_parses_and_builds_every_form(rtx, symmetric, half, form) -> None:
    model = {"int8-trt": symmetric, "fp16": half, "fp32": widened(half)}[form]
    said: list[str] = []
    plan, _ = build_plan.build_plan(rtx, model, form, progress=said.append)
    least = {"int8-trt": 25e6, "fp16": 50e6, "fp32": 100e6}[form]
    assert least < len(plan) < 3 * least
    assert build_plan.strongly_typed(rtx)


def test_tensorrt_parses_and_builds_spine_lite(rtx) -> None:
    plan, _ = build_plan.build_plan(rtx, form_graph(load_bundle("lite"), "int8-trt"), "int8-trt")
    assert 7e6 < len(plan) < 25e6


def test_tensorrt_refuses_the_processors_form(rtx, bundle) -> None:
    """What the derived form is for: the parser takes no unsigned activations and no int32 biases."""
    with pytest.raises(BundleError, match="the parser refuses the int8-trt graph"):
        build_plan.build_plan(rtx, form_graph(bundle, "int8"), "int8-trt")


def test_tensorrt_refuses_a_graph_with_other_ends(rtx, bundle) -> None:
    with pytest.raises(BundleError, match="fp32 graph: the model's inputs and outputs are"):
        build_plan.build_plan(rtx, bundle.read("localiser.onnx"), "fp32")


def test_a_bundle_carries_its_exact_readers(bundle, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle.folder, folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    names = quantised_readers(symmetric_graph(form_graph(bundle, "int8")))[:2]
    manifest["forms"] = {"int8-trt": {"exact": names}}
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
    changed = load_bundle(folder)
    assert changed.exact_readers == tuple(names)
    assert not set(names) & set(quantised_readers(form_graph(changed, "int8-trt")))
