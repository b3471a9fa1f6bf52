"""What a version of TensorRT can do, and what identifies a plan."""

from __future__ import annotations

import pytest

from edge_spine.bundle import load_bundle
from edge_spine.engines.tensorrt import build as build_plan
from edge_spine.engines.tensorrt import engine as tensorrt
from tests.edge_spine.engines.tensorrt.fakes import GPU, VERSIONS


@pytest.mark.parametrize(
    ("version", "typed", "flags"), [("8.6", False, 1), ("10.3", False, 1), ("10.13", True, 2), ("11.4", True, 1)]
)
def test_what_a_version_can_do_is_asked_of_its_attributes(version: str, typed: bool, flags: int) -> None:
    trt = VERSIONS[version]
    assert build_plan.strongly_typed(trt) is typed
    assert build_plan._network_flags(trt) == flags
    assert ("strongly typed" in build_plan.options_text(trt, "int8-trt")) is typed


def test_a_plans_identity_names_all_it_depends_on() -> None:
    identity = tensorrt.plan_identity(VERSIONS["10.3"], b"graph", "int8-trt", GPU)
    assert identity["tensorrt"] == "tensorrt 10.3.0" and identity["gpu"] == "FAKE GPU"
    assert identity["options"].startswith("flags INT8 FP16") and len(identity["graph"]) == 64
    assert sorted(identity) == ["compute capability", "driver", "gpu", "graph", "options", "system", "tensorrt"]
    name = tensorrt.plan_name(load_bundle(), "int8-trt", GPU)
    assert name.endswith("-int8-trt-FAKE-GPU") and "/" not in name and " " not in name
