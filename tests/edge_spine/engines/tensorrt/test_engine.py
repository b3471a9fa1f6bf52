"""The TensorRT engine. Without a GPU, PyCUDA and TensorRT are played by FAKES that write down the order of calls; the
tests marked `gpu` run the real ones where a GPU is."""

from __future__ import annotations

import dataclasses
import gc
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from edge_spine.bundle import load_bundle
from edge_spine.bundle.load import Bundle
from edge_spine.cli import main as cli
from edge_spine.engines import memory, open_engine
from edge_spine.engines.tensorrt import engine as tensorrt
from edge_spine.engines.tensorrt.plan_cache import PlanCache
from edge_spine.engines.verification import read_references, verify
from edge_spine.errors import EngineUnavailable, GpuMemoryShort, UsageError
from tests.edge_spine.engines.gpus import needs_gpu, no_gpu
from tests.edge_spine.engines.tensorrt.fakes import GPU, MISSING, VERSIONS, FakeCuda, fake_tensorrt

ROOT = Path(__file__).resolve().parents[4]
IMAGE = np.full((1, 3, 224, 224), 0.25, np.float32)


GRAPH = ["cuGraphExecDestroy", "cuGraphDestroy"]
ENDING = ["synchronize", *GRAPH, "free", "free"]


def test_an_inference_copies_runs_and_fetches_on_one_stream(cuda: FakeCuda) -> None:
    cuda.library.fails["cuStreamBeginCapture_v2"] = MISSING
    with tensorrt.TensorRTEngine(b"FAKE plan") as engine:
        assert (engine.name, engine.precision, engine.graph) == ("tensorrt", "int8", False)
        assert cuda.said[-4:] == ["to device", "enqueue on 7", "to host", "synchronize"]
        cuda.said.clear()
        engine._sessions[0].host["curves"][...] = 3
        assert engine.infer(np.repeat(IMAGE, 2, axis=0)).shape == (2, 1254)
        assert cuda.said == ["to device", "enqueue on 7", "to host", "synchronize"] * 2
        assert (engine._sessions[0].host["image"] == 0.25).all()
    assert cuda.depth == 0


def test_closing_gives_back_in_order_and_only_once(cuda: FakeCuda) -> None:
    engine = tensorrt.TensorRTEngine(b"FAKE plan")
    cuda.said.clear()
    engine.close()
    engine.close()
    parts = ["destroyed context", "destroyed engine", "destroyed runtime"]
    assert cuda.said == [*parts, *ENDING]
    assert cuda.live == set() and cuda.depth == 0
    with pytest.raises(UsageError, match="closed"):
        engine.infer(IMAGE)


def test_an_engine_that_is_forgotten_is_given_back(cuda: FakeCuda) -> None:
    engine = tensorrt.TensorRTEngine(b"FAKE plan")
    del engine
    gc.collect()
    assert cuda.said[-1] == "free" and cuda.live == set() and cuda.depth == 0


def test_any_thread_may_infer_and_close(cuda: FakeCuda) -> None:
    engine = tensorrt.TensorRTEngine(b"FAKE plan")
    problems: list[BaseException] = []

    def work(close: bool) -> None:
        try:
            engine.infer(IMAGE)
            if close:
                engine.close()
        except BaseException as problem:
            problems.append(problem)

    for close in (False, False, True):
        thread = threading.Thread(target=work, args=(close,))
        thread.start()
        thread.join()
    assert problems == [] and cuda.said[-1] == "free"


def test_no_thread_finds_an_engine_that_is_half_released(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tensorrt.TensorRTEngine(b"FAKE plan")
    ended: list[BaseException] = []

    def infer() -> None:
        try:
            engine.infer(IMAGE)
        except BaseException as problem:
            ended.append(problem)

    other = threading.Thread(target=infer)
    close = engine._sessions[0].close

    def slowly() -> None:
        # the plan is gone, and the buffers are not
        other.start()
        other.join(0.2)
        close()

    monkeypatch.setattr(engine._sessions[0], "close", slowly)
    engine.close()
    other.join()
    assert [type(problem) for problem in ended] == [UsageError]


@pytest.mark.parametrize("how", ["loads", "starts"])
def test_a_plan_that_fails_leaves_nothing_behind(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda: fake_tensorrt(cuda, **{how: False}))
    with pytest.raises((EngineUnavailable, RuntimeError)):
        tensorrt.TensorRTEngine(b"FAKE plan")
    assert cuda.said[-1] == "free" and cuda.live == set() and cuda.depth == 0


def kept_plan(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[int]:
    """FAKE builder and verdict around the real cache; returns the block sizes that are built."""
    pytest.importorskip("filelock")
    built: list[int] = []

    def build(trt: Any, model: bytes, form: str, *, block: int, **_: Any) -> tuple[bytes, bytes]:
        built.append(block)
        return b"FAKE plan", b""

    def judge(bundle: Any, form: str, model: bytes, engine: Any, layers: Any) -> dict[str, Any]:
        return {"schema": tensorrt.SCHEMA, "passed": True, "block": engine.block}

    monkeypatch.setenv("EDGE_SPINE_CACHE", str(folder / "plans"))
    monkeypatch.setattr(tensorrt, "build_plan", build)
    monkeypatch.setattr(tensorrt, "judge", judge)
    monkeypatch.setattr(tensorrt, "form_graph", lambda *_: b"FAKE graph")
    monkeypatch.setattr(tensorrt.TensorRTEngine, "layers", lambda self: [])
    return built


@pytest.mark.parametrize(("integrated", "least"), [(False, 1 << 30), (True, (1 << 30) + (1450 << 20))])
def test_a_plan_is_built_only_with_enough_memory(
    cuda: FakeCuda,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    integrated: bool,
    least: int,
) -> None:
    """The workspace that the builder is given, and the weights; TensorRT's own kernels where memory is shared."""
    built = kept_plan(monkeypatch, tmp_path)
    monkeypatch.setattr(tensorrt, "require_gpu", lambda name: dataclasses.replace(GPU, integrated=integrated))
    monkeypatch.setattr(memory, "_SYSTEM", tmp_path / "none")
    least += 2 * len(b"FAKE graph")
    cuda.free = least - 1
    with pytest.raises(GpuMemoryShort) as caught:
        open_engine(bundle, "tensorrt")
    said = str(caught.value)
    assert said.startswith("tensorrt: gpu-memory: building the plan needs about ") and "--model lite" in said
    with caplog.at_level("WARNING"), open_engine(bundle) as engine:
        assert engine.name in ("openvino", "onnx-cpu")
    assert said in caplog.messages and built == []
    cuda.free = least
    with open_engine(bundle) as engine:
        assert engine.name == "tensorrt"
    assert built == [1] and cuda.depth == 0


def test_blocks_that_do_not_fit_give_way_to_single_scans(
    cuda: FakeCuda, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built = kept_plan(monkeypatch, tmp_path)
    needs = {"device_memory_size_v2": 300 << 20}
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda: fake_tensorrt(cuda, block=4, **needs))
    assert tensorrt.ready_plan(bundle, block=4)[1]["block"] == 4
    PlanCache().keep_block(tensorrt.plan_name(bundle, "int8-trt", GPU), 4)
    real, opened = tensorrt.TensorRTEngine, []

    def open_one(plan: bytes, **more: Any) -> Any:
        # the FAKE plan has no size in it
        block = 4 if not opened else 1
        opened.append(block)
        monkeypatch.setattr(tensorrt, "import_tensorrt", lambda: fake_tensorrt(cuda, block=block, **needs))
        cuda.free = 500 << 20
        try:
            return real(plan, **more)
        finally:
            cuda.free = 8 << 30

    monkeypatch.setattr(tensorrt, "TensorRTEngine", open_one)
    with open_engine(bundle, "tensorrt") as engine:
        assert engine.block == 1
    assert opened == [4, 1, 1] and built == [4, 1]
    assert any("needs about 600 MiB" in said and said.endswith("; trying single scans") for said in caplog.messages)


@pytest.mark.slow
@pytest.mark.usefixtures("fake_gpu")
def test_a_plan_is_kept_for_the_next_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A FAKE GPU, builder and verdict around the real cache and the real derived graph."""
    pytest.importorskip("filelock")
    built: list[str] = []

    def fake_build(trt: Any, model: bytes, form: str, **_: Any) -> tuple[bytes, bytes]:
        built.append(form)
        return b"FAKE plan of " + model[:4], b"FAKE timings"

    monkeypatch.setenv("EDGE_SPINE_CACHE", str(tmp_path / "plans"))
    monkeypatch.setattr(tensorrt, "build_plan", fake_build)
    monkeypatch.setattr(tensorrt, "TensorRTEngine", MagicMock())
    monkeypatch.setattr(tensorrt, "free_memory", lambda integrated: 8 << 30)
    monkeypatch.setattr(tensorrt, "judge", lambda *_: {"schema": tensorrt.SCHEMA, "passed": True, "block": 1})
    bundle = load_bundle()
    first = tensorrt.ready_plan(bundle)
    assert tensorrt.ready_plan(bundle) == first and built == ["int8-trt"]
    assert tensorrt.ready_plan(bundle, fresh=True) == first and len(built) == 2
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda: VERSIONS["11.4"])
    tensorrt.ready_plan(bundle)
    assert len(built) == 3


@no_gpu
@pytest.mark.slow
def test_auto_runs_on_the_processor_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--out", str(tmp_path), "-v"]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "auto takes" in line]
    assert re.search(r"auto takes (onnx-cpu|openvino) \(int8\); tensorrt: ", line) and "onnx-cuda: " in line


@pytest.mark.gpu
@needs_gpu
def test_the_real_engine_builds_agrees_and_closes() -> None:
    bundle = load_bundle()
    with open_engine(bundle, "tensorrt") as engine:
        assert verify(bundle, engine).passed
        crops, _ = read_references(bundle)
        image = np.repeat(crops[0][None, None].astype(np.float32) / 255, 3, axis=1)
        assert np.array_equal(engine.infer(image), engine.infer(image))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("ending", ["engine.close()", "del engine", "pass", "thread"])
def test_the_real_engine_ends_in_every_order(ending: str) -> None:
    code = "pass" if ending == "thread" else ending
    if ending == "thread":
        code = "import threading; t = threading.Thread(target=engine.close); t.start(); t.join()"
    program = (
        "from edge_spine.bundle.load import load_bundle\n"
        "from edge_spine.engines import open_engine\n"
        f"engine = open_engine(load_bundle(), 'tensorrt')\n{code}\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_plans_identity_names_all_it_depends_on() -> None:
    identity = tensorrt.plan_identity(VERSIONS["10.3"], b"graph", "int8-trt", GPU)
    assert identity["tensorrt"] == "tensorrt 10.3.0" and identity["gpu"] == "FAKE GPU"
    assert identity["options"].startswith("flags INT8 FP16") and len(identity["graph"]) == 64
    assert sorted(identity) == [
        "block",
        "compute capability",
        "driver",
        "gpu",
        "graph",
        "multiprocessors",
        "options",
        "system",
        "tensorrt",
    ]
    name = tensorrt.plan_name(load_bundle(), "int8-trt", GPU)
    assert name.endswith("-int8-trt-FAKE-GPU") and "/" not in name and " " not in name


@pytest.mark.parametrize(
    ("installed", "fits"),
    [
        ({"tensorrt-cu13": "10.13.3"}, False),
        ({"tensorrt-rtx-cu13": "1.7.1"}, False),
        ({"tensorrt-cu12": "11.4.0"}, True),
        ({"tensorrt-cu12-bindings": "10.3.0", "tensorrt-cu13": "11.4.0"}, True),
        ({}, True),
    ],
)
@pytest.mark.usefixtures("fake_gpu")
def test_the_packages_cuda_is_compared_with_the_drivers(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], fits: bool
) -> None:
    """The FAKE GPU's driver is for CUDA 12.6; a Jetson's TensorRT is no package of pip."""
    monkeypatch.setattr(tensorrt, "_installed", installed.get)
    if fits:
        assert tensorrt._module_and_gpu() == (VERSIONS["10.3"], GPU)
        return
    with pytest.raises(EngineUnavailable, match=r"needs a driver for CUDA 13, 580 or newer.*tensorrt-cu12"):
        tensorrt._module_and_gpu()


@pytest.mark.parametrize(("version", "fits"), [("10.16.1", True), ("11.4.0", False)])
@pytest.mark.usefixtures("fake_gpu")
def test_tensorrt_11_needs_a_newer_driver_also_for_cuda_12(
    monkeypatch: pytest.MonkeyPatch, version: str, fits: bool
) -> None:
    """Its release notes: 535 on Linux, which is CUDA 12.2; a driver of the branch 525 is for CUDA 12.0."""
    monkeypatch.setattr(tensorrt, "_installed", {"tensorrt-cu12": version}.get)
    monkeypatch.setattr(tensorrt, "require_gpu", lambda name: dataclasses.replace(GPU, driver="12.0"))
    if fits:
        assert tensorrt._module_and_gpu()[0] is VERSIONS["10.3"]
        return
    with pytest.raises(EngineUnavailable, match=r"CUDA 12.2, 535 .* or newer.*pip install 'tensorrt-cu12<11'"):
        tensorrt._module_and_gpu()


def test_each_layer_is_read_for_itself() -> None:
    """FAKE texts in the forms that NVIDIA documents; TensorRT 8.6 writes control characters (its issue 2779)."""
    texts = ['{"Name": "a\x1eb"}', '"conv1 + relu1"\n', '{"Name": "c"},\n', "", "no JSON", UnicodeDecodeError]

    def information(number: int, form: object) -> str:
        if texts[number] is UnicodeDecodeError:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        return str(texts[number])

    inspector = SimpleNamespace(get_layer_information=information)
    engine = SimpleNamespace(num_layers=len(texts), create_engine_inspector=lambda: inspector)
    trt = SimpleNamespace(LayerInformationFormat=SimpleNamespace(JSON=1))
    assert tensorrt._inspected(trt, engine) == [{"Name": "a\x1eb"}, "conv1 + relu1", {"Name": "c"}]
    assert tensorrt._inspected(SimpleNamespace(), engine) == [], "a version without an inspector"


def test_a_plan_with_two_profiles_has_a_context_and_a_recording_for_each(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda: fake_tensorrt(cuda, block=4))
    with tensorrt.TensorRTEngine(b"FAKE plan") as engine:
        assert engine.block == 4 and engine.graph
        settings = [said for said in cuda.said if said.startswith(("profile", "shape"))]
        single, four = "shape image (1, 3, 224, 224)", "shape image (4, 3, 224, 224)"
        assert settings == ["profile 0 7", single, "profile 1 7", four]
        addresses = [said for said in cuda.said if said.startswith("address")]
        assert len(set(addresses)) == 4
        cuda.said.clear()
        images = np.arange(9, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 224, 224), np.float32)
        assert engine.infer(images).shape == (9, 1254)
        assert cuda.said == ["cuGraphLaunch", "synchronize"] * 3
        held = [session.host["image"][:, 0, 0, 0].tolist() for session in engine._sessions]
        assert held == [[8], [4, 5, 6, 7]]
    assert cuda.live == set() and cuda.depth == 0 and cuda.said.count("destroyed context") == 2
    assert cuda.said.index("destroyed engine") > cuda.said.index("destroyed context")
