"""Scales of the packaged INT8 file and of TensorRT's form, as they are and with one of them wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

pytest.importorskip("torch", reason="pip install '.[export]'")

import edge_spine
from edge_spine.bundle import load_bundle
from edge_spine.engines.forms import form_graph
from edge_spine.engines.verification import read_references
from export.gate import GateError
from export.ranges import LEAST, MOST, check_ranges, used_shares

# a share of the range is that of the values which the range was calibrated to hold
MANIFEST = Path(edge_spine.__file__).parent / "models" / "spine-lite" / "manifest.json"
PERCENTILE = json.loads(MANIFEST.read_text(encoding="utf-8"))["calibration"]["percentile"]


@pytest.fixture(scope="module")
def crops():
    return read_references(load_bundle("lite"))[0][:4]


@pytest.fixture(scope="module", params=["int8", "int8-trt"])
def model(request) -> bytes:
    return form_graph(load_bundle("lite"), request.param)


def scaled(model: bytes, place: int, factor: float) -> bytes:
    """Return the graph with the scale of one quantiser of an activation, in order, multiplied."""
    graph = onnx.load_model_from_string(model)
    name = [node for node in graph.graph.node if node.op_type == "QuantizeLinear"][place].input[1]
    for tensor in graph.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name))
    return graph.SerializeToString()


@pytest.mark.slow
def test_the_packaged_scales_fit(model, crops) -> None:
    check_ranges(model, crops, PERCENTILE)


@pytest.mark.slow
@pytest.mark.parametrize(("place", "factor"), [(0, 4), (0, 0.5), (9, 0.5), (20, 0.5), (-1, 0.5), (20, 4)])
def test_a_wrong_scale_is_found_and_named(model, crops, place: int, factor: float) -> None:
    with pytest.raises(GateError, match=r"^no bundle written: the values at .*QuantizeLinear fill \d"):
        check_ranges(scaled(model, place, factor), crops, PERCENTILE)


def miss_each(shares: dict[str, float]) -> None:
    """Assert that no quantiser is refused as it is, and that each would be with half or four times its scale."""
    assert len(shares) > 30
    for name, share in shares.items():
        assert LEAST <= share <= MOST < 2 * share, name
        assert share / 4 < LEAST, name


@pytest.mark.slow
def test_every_scale_would_be_missed_if_halved(model, crops) -> None:
    miss_each(used_shares(model, crops, PERCENTILE))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["int8", "int8-trt"])
def test_every_scale_of_the_large_model_would_be_missed_too(form: str) -> None:
    """On the crops that the export takes, since its ranges hold more of their values than those of spine-lite."""
    bundle = load_bundle("spine")
    percentile = bundle.manifest["calibration"]["percentile"]
    miss_each(used_shares(form_graph(bundle, form), read_references(bundle)[0], percentile))


def test_nothing_is_quantised_in_a_float_graph(crops) -> None:
    plain = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["image"], ["curves"])],
            "plain",
            [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, (1, 3, 224, 224))],
            [onnx.helper.make_tensor_value_info("curves", onnx.TensorProto.FLOAT, (1, 3, 224, 224))],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=9,
    )
    assert used_shares(plain.SerializeToString(), crops, PERCENTILE) == {}
