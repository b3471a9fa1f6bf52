"""What a version of TensorRT can do, and NVIDIA's own parser and builder, without a GPU."""

from __future__ import annotations

import pytest

from edge_spine.bundle import load_bundle
from edge_spine.engines.forms import form_graph, widened
from edge_spine.engines.tensorrt import build as build_plan
from edge_spine.errors import BundleError
from tests.edge_spine.engines.tensorrt.fakes import VERSIONS


@pytest.mark.parametrize(
    ("version", "typed", "flags"), [("8.6", False, 1), ("10.3", False, 1), ("10.13", True, 2), ("11.4", True, 1)]
)
def test_what_a_version_can_do_is_asked_of_its_attributes(version: str, typed: bool, flags: int) -> None:
    trt = VERSIONS[version]
    assert build_plan.strongly_typed(trt) is typed
    assert build_plan._network_flags(trt) == flags
    assert ("strongly typed" in build_plan.options_text(trt, "int8-trt")) is typed


@pytest.mark.parametrize(
    ("form", "graph"),
    [
        ("int8-trt", "symmetric"),
        pytest.param("fp16", "half", marks=pytest.mark.slow),
        pytest.param("fp32", "half", marks=pytest.mark.slow),
    ],
)
def test_tensorrt_parses_and_builds_every_form(rtx, request, form: str, graph: str) -> None:
    model = request.getfixturevalue(graph)
    model = widened(model) if form == "fp32" else model
    said: list[str] = []
    plan, _ = build_plan.build_plan(rtx, model, form, progress=said.append)
    least = {"int8-trt": 25e6, "fp16": 50e6, "fp32": 100e6}[form]
    assert least < len(plan) < 3 * least
    assert build_plan.strongly_typed(rtx)


def test_tensorrt_parses_and_builds_spine_lite(rtx) -> None:
    plan, _ = build_plan.build_plan(rtx, form_graph(load_bundle("lite"), "int8-trt"), "int8-trt")
    assert 7e6 < len(plan) < 25e6


def test_tensorrt_refuses_the_processors_form(rtx, packaged) -> None:
    """What the derived form is for: the parser takes no unsigned activations and no int32 biases."""
    with pytest.raises(BundleError, match="the parser refuses the int8-trt graph"):
        build_plan.build_plan(rtx, form_graph(packaged, "int8"), "int8-trt")


def test_tensorrt_refuses_a_graph_with_other_ends(rtx, packaged) -> None:
    with pytest.raises(BundleError, match="fp32 graph: the model's inputs and outputs are"):
        build_plan.build_plan(rtx, packaged.read("localiser.onnx"), "fp32")
