"""What a version of TensorRT can do, and NVIDIA's own parser and builder, without a GPU."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from edge_spine.bundle import load_bundle
from edge_spine.engines.forms import form_graph, widened
from edge_spine.engines.tensorrt import build as build_plan
from edge_spine.engines.tensorrt.symmetric import with_weight_pairs
from edge_spine.errors import BundleError, EngineUnavailable
from edge_spine.network import INPUT_NAME, INPUT_SHAPE, OUTPUT_NAME, OUTPUT_SHAPE
from tests.edge_spine.engines.tensorrt.fakes import VERSIONS


@pytest.mark.parametrize(
    ("version", "typed", "flags"),
    [("8.6", False, 1), ("10.3", False, 1), ("10.11", False, 1), ("10.13", True, 2), ("11.4", True, 1)],
)
def test_what_a_version_can_do_is_asked_of_its_attributes(version: str, typed: bool, flags: int) -> None:
    trt = VERSIONS[version]
    assert build_plan.strongly_typed(trt) is typed
    assert build_plan._network_flags(trt) == flags
    assert ("strongly typed" in build_plan.options_text(trt, "int8-trt")) is typed


@pytest.mark.parametrize(
    ("version", "capability", "words"),
    [
        ("rtx", "8.7", "TensorRT-RTX runs on compute capability 7.5, 8.6, 8.9, 12.0, 12.1, and this GPU has 8.7"),
        ("rtx", "9.0", "install tensorrt"),
        ("rtx", "12.0", ""),
        ("11.4", "7.0", "needs compute capability 7.5 or newer, and this GPU has 7.0; use onnx-cpu"),
        ("11.4", "11.0", ""),
        ("11.4", "7.5", ""),
        ("8.6", "6.1", ""),
    ],
)
def test_a_gpu_that_a_version_has_no_code_for_is_named(version: str, capability: str, words: str) -> None:
    """NVIDIA's support matrices: TensorRT-RTX knows neither Hopper nor Jetsons, TensorRT 11 starts with Turing."""
    trt = SimpleNamespace(__name__="tensorrt_rtx") if version == "rtx" else VERSIONS[version]
    if not words:
        build_plan.require_capability(trt, capability)
        return
    with pytest.raises(EngineUnavailable, match=words):
        build_plan.require_capability(trt, capability)


@pytest.mark.slow
@pytest.mark.parametrize(("form", "graph"), [("int8-trt", "symmetric"), ("fp16", "half"), ("fp32", "half")])
def test_tensorrt_parses_and_builds_every_form(rtx, request, form: str, graph: str) -> None:
    model = request.getfixturevalue(graph)
    model = widened(model) if form == "fp32" else model
    said: list[str] = []
    plan, _ = build_plan.build_plan(rtx, model, form, progress=said.append)
    least = {"int8-trt": 25e6, "fp16": 50e6, "fp32": 100e6}[form]
    assert least < len(plan) < 3 * least
    assert build_plan.strongly_typed(rtx)


@pytest.fixture(scope="module")
def lite() -> bytes:
    return form_graph(load_bundle("lite"), "int8-trt")


@pytest.fixture(scope="module")
def lite_in_pairs(lite: bytes) -> bytes:
    """The graph of spine-lite with its INT8 weights stored as TensorRT 8 needs them."""
    return with_weight_pairs(lite)


@pytest.mark.parametrize("graph", ["lite", pytest.param("lite_in_pairs", marks=pytest.mark.slow)])
def test_tensorrt_parses_and_builds_spine_lite(rtx, request, graph: str) -> None:
    plan, _ = build_plan.build_plan(rtx, request.getfixturevalue(graph), "int8-trt")
    assert 7e6 < len(plan) < 25e6


@pytest.mark.slow
@pytest.mark.parametrize(("graph", "least"), [("symmetric", 25e6), ("lite_in_pairs", 7e6)])
def test_tensorrt_builds_one_plan_for_single_images_and_blocks(rtx, request, graph: str, least: float) -> None:
    """NVIDIA's own parser and builder take two optimisation profiles of the network with a free number of images."""
    plan, _ = build_plan.build_plan(rtx, request.getfixturevalue(graph), "int8-trt", block=8)
    assert least < len(plan) < 6 * least


def test_tensorrt_refuses_the_processors_form(rtx, packaged) -> None:
    """What the derived form is for: the parser takes no unsigned activations and no int32 biases."""
    with pytest.raises(BundleError, match="the parser refuses the int8-trt graph"):
        build_plan.build_plan(rtx, form_graph(packaged, "int8"), "int8-trt")


def test_tensorrt_refuses_a_graph_with_other_ends(rtx, packaged) -> None:
    with pytest.raises(BundleError, match="fp32 graph: the model's inputs and outputs are"):
        build_plan.build_plan(rtx, packaged.read("localiser.onnx"), "fp32")


class FakeCache:
    def __init__(self, content: bytes | None) -> None:
        self.content = content

    def serialize(self) -> bytes | None:
        return self.content


class FakeConfig:
    """FAKE builder configuration that writes down what it is told; `plans` are the answers of the builder."""

    def __init__(self, plans: list[bytes | None], caches: dict[bytes, FakeCache | None]) -> None:
        self.plans, self.caches, self.sources, self.flags = plans, caches, 0b1111, {"TF32"}
        self.asked: list[int] = []

    def set_memory_pool_limit(self, *_: Any) -> None:
        pass

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def get_tactic_sources(self) -> int:
        return self.sources

    def set_tactic_sources(self, sources: int) -> None:
        self.sources = sources

    def create_timing_cache(self, content: bytes) -> FakeCache | None:
        return self.caches.get(content)

    def set_timing_cache(self, cache: FakeCache, ignore: bool) -> bool:
        assert cache is not None, "TensorRT raises TypeError here"
        return cache.content != b"of another GPU"

    def build(self) -> bytes | None:
        self.asked.append(self.sources)
        return self.plans.pop(0)


def fake_builder(config: FakeConfig) -> Any:
    """FAKE TensorRT 8.6 around a FAKE configuration."""
    end = lambda name, shape: SimpleNamespace(name=name, shape=shape)  # noqa: E731
    network = SimpleNamespace(
        num_inputs=1,
        num_outputs=1,
        get_input=lambda _: end(INPUT_NAME, INPUT_SHAPE),
        get_output=lambda _: end(OUTPUT_NAME, OUTPUT_SHAPE),
    )
    builder = SimpleNamespace(
        create_network=lambda flags: network,
        create_builder_config=lambda: config,
        build_serialized_network=lambda network, config: config.build(),
    )

    class Logger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    return SimpleNamespace(
        __name__="tensorrt",
        ILogger=Logger,
        Builder=lambda logger: builder,
        OnnxParser=lambda network, logger: SimpleNamespace(parse=lambda model: True),
        NetworkDefinitionCreationFlag=SimpleNamespace(EXPLICIT_BATCH=0),
        MemoryPoolType=SimpleNamespace(WORKSPACE=0),
        BuilderFlag=SimpleNamespace(FP16="FP16", INT8="INT8", TF32="TF32"),
        TacticSource=SimpleNamespace(CUBLAS=0, CUBLAS_LT=1, CUDNN=2, EDGE_MASK_CONVOLUTIONS=3),
        ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"),
    )


@pytest.mark.parametrize(("form", "flags"), [("int8-trt", {"INT8", "FP16", "TF32"}), ("fp32", set())])
def test_fp32_is_not_rounded_to_tf32(form: str, flags: set[str]) -> None:
    config = FakeConfig([b"FAKE plan"], {b"": FakeCache(b"FAKE timings")})
    assert build_plan.build_plan(fake_builder(config), b"", form) == (b"FAKE plan", b"FAKE timings")
    assert config.flags == flags and config.asked == [0b1000]
    assert config.profiling_verbosity == "detailed"  # type: ignore[attr-defined]


def test_a_build_without_cublas_that_fails_is_tried_with_it() -> None:
    config = FakeConfig([None, b"FAKE plan"], {b"": FakeCache(b"")})
    assert build_plan.build_plan(fake_builder(config), b"", "int8-trt")[0] == b"FAKE plan"
    assert config.asked == [0b1000, 0b1111]
    with pytest.raises(build_plan.PlanRefused, match="no plan could be built"):
        build_plan.build_plan(fake_builder(FakeConfig([None, None], {})), b"", "int8-trt")


@pytest.mark.parametrize(
    ("caches", "timings"),
    [
        ({}, b""),
        ({b"": FakeCache(None)}, b""),
        ({b"": FakeCache(b"new")}, b"new"),
        ({b"old": FakeCache(b"of another GPU"), b"": FakeCache(b"new")}, b"new"),
        ({b"old": FakeCache(b"kept"), b"": FakeCache(b"new")}, b"kept"),
    ],
)
def test_a_timing_cache_that_is_none_or_refused_costs_no_build(caches: dict[bytes, Any], timings: bytes) -> None:
    config = FakeConfig([b"FAKE plan"], caches)
    assert build_plan.build_plan(fake_builder(config), b"", "fp16", timing_cache=b"old") == (b"FAKE plan", timings)


@pytest.mark.parametrize("broken", ["tensorrt", "tensorrt_rtx"])
@pytest.mark.parametrize(
    "failure",
    [ImportError("DLL load failed"), FileNotFoundError("Could not find: nvinfer_10.dll")],
)
def test_tensorrt_that_does_not_import_is_one_line(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, broken: str
) -> None:
    """Windows' bindings raise FileNotFoundError where their libraries are not on PATH; the other is not installed."""

    class Finder:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name == broken:
                raise failure
            if name in ("tensorrt", "tensorrt_rtx"):
                raise ModuleNotFoundError(f"No module named {name!r}")

    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(EngineUnavailable, match=r"^tensorrt: it cannot be imported \(") as caught:
        build_plan.import_tensorrt()
    assert str(failure) in str(caught.value)


def test_the_runtime_has_every_name_that_is_used(rtx) -> None:
    """Nothing can be run without a GPU, but the real bindings have to know what the engine asks of them."""
    used = {
        rtx.Runtime: ["deserialize_cuda_engine"],
        rtx.BuilderFlag: ["DISTRIBUTIVE_INDEPENDENCE"],
        rtx.ICudaEngine: ["create_execution_context", "get_tensor_dtype", "num_optimization_profiles", "num_layers"],
        rtx.IExecutionContext: ["set_tensor_address", "execute_async_v3", "set_input_shape"],
        rtx.EngineInspector: ["get_layer_information"],
        rtx.LayerInformationFormat: ["JSON"],
    }
    used[rtx.ICudaEngine] += ["get_tensor_profile_shape", "create_engine_inspector", "device_memory_size_v2"]
    used[rtx.IExecutionContext] += ["set_optimization_profile_async"]
    missing = [
        f"{owner.__name__}.{name}" for owner, names in used.items() for name in names if not hasattr(owner, name)
    ]
    assert missing == []
