"""The TensorRT engine. Without a GPU, PyCUDA and TensorRT are played by FAKES that write down the order of calls; the
tests marked `gpu` run the real ones where a GPU is."""

from __future__ import annotations

import ast
import gc
import operator
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_spine.bundle import load_bundle
from edge_spine.engines import open_engine
from edge_spine.engines.driver import NoGpu, find_gpu
from edge_spine.engines.tensorrt import cuda as cuda_module
from edge_spine.engines.tensorrt import engine as tensorrt
from edge_spine.engines.verification import read_references, verify
from edge_spine.errors import EngineUnavailable, UsageError
from tests.edge_spine.engines.tensorrt.fakes import GPU, VERSIONS

ROOT = Path(__file__).resolve().parents[4]
IMAGE = np.full((1, 3, 224, 224), 0.25, np.float32)


def has_gpu() -> bool:
    try:
        find_gpu()
    except NoGpu:
        return False
    return True


needs_gpu = pytest.mark.skipif(not has_gpu(), reason="no GPU on this machine")
no_gpu = pytest.mark.skipif(has_gpu(), reason="there is a GPU on this machine")


class FakeCuda(ModuleType):
    """FAKE pycuda.driver: host memory for a GPU, and a context stack for each thread, checked at every call."""

    def __init__(self) -> None:
        super().__init__("pycuda.driver")
        self.said: list[str] = []
        self.stacks = threading.local()
        self.live: set[int] = set()
        self.host_alloc_flags = SimpleNamespace(DEVICEMAP=2)
        self.Context = SimpleNamespace(pop=lambda: self._pop())
        self.Stream = lambda: self._made("stream", handle=7, synchronize=lambda: self._need("synchronize"))

    def init(self) -> None:
        self.said.append("init")

    def Device(self, number: int) -> Any:
        context = SimpleNamespace(push=self._push, detach=lambda: self.said.append("detach"))
        return SimpleNamespace(retain_primary_context=lambda: context)

    def pagelocked_zeros(self, shape: tuple[int, ...], dtype: Any, mem_flags: int = 0) -> Any:
        self._need("host")
        base = np.zeros(int(np.prod(shape)), dtype).view(FakeHost)
        return base.reshape(shape)

    def mem_alloc(self, size: int) -> Any:
        self._need("alloc")
        number = len(self.live) + 100
        self.live.add(number)
        return FakeBuffer(self, number)

    def memcpy_htod_async(self, *_: Any) -> None:
        self._need("to device")

    def memcpy_dtoh_async(self, *_: Any) -> None:
        self._need("to host")

    @property
    def depth(self) -> int:
        return getattr(self.stacks, "depth", 0)

    def _push(self) -> None:
        assert "detach" not in self.said, "pushed after it was given back"
        self.stacks.depth = self.depth + 1

    def _pop(self) -> None:
        assert self.depth > 0
        self.stacks.depth = self.depth - 1

    def _need(self, what: str) -> None:
        assert self.depth > 0, f"{what} without a context"
        self.said.append(what)

    def _made(self, what: str, **more: Any) -> Any:
        self._need(what)
        return SimpleNamespace(**more)


class FakeHost(np.ndarray):
    def get_device_pointer(self) -> int:
        return 55


class FakeBuffer:
    def __init__(self, cuda: FakeCuda, number: int) -> None:
        self.cuda, self.number = cuda, number

    def __int__(self) -> int:
        return self.number

    def free(self) -> None:
        self.cuda._need("free")
        self.cuda.live.discard(self.number)


def fake_tensorrt(cuda: FakeCuda, *, loads: bool = True, starts: bool = True) -> Any:
    """FAKE TensorRT: an engine that answers with the address of its output."""

    class Part:
        def __init__(self, name: str, **more: Any) -> None:
            self.name = name
            self.__dict__.update(more)

        def __del__(self) -> None:
            assert cuda.depth > 0, f"{self.name} destroyed without a context"
            cuda.said.append(f"destroyed {self.name}")

    def enqueue(stream: int) -> bool:
        cuda._need(f"enqueue on {stream}")
        return starts

    def context() -> Any:
        address = lambda name, value: cuda.said.append(f"address {name} {value}")  # noqa: E731
        return Part("context", set_tensor_address=address, execute_async_v3=enqueue)

    def engine(plan: bytes) -> Any:
        if not loads:
            return None
        return Part("engine", create_execution_context=context, get_tensor_dtype=lambda name: "float32")

    class Logger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    return SimpleNamespace(
        ILogger=Logger,
        DataType=SimpleNamespace(FLOAT="float32"),
        Runtime=lambda logger: Part("runtime", deserialize_cuda_engine=engine),
    )


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    package = ModuleType("pycuda")
    package.driver = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setattr(tensorrt, "require_gpu", lambda name: GPU)
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda: fake_tensorrt(fake))
    return fake


ENDING = ["synchronize", "free", "free", "detach"]


def test_an_inference_copies_runs_and_fetches_on_one_stream(cuda: FakeCuda) -> None:
    with tensorrt.TensorRTEngine(b"FAKE plan") as engine:
        assert (engine.name, engine.precision, engine.graph) == ("tensorrt", "int8", False)
        assert cuda.said[-4:] == ["to device", "enqueue on 7", "to host", "synchronize"]
        cuda.said.clear()
        engine._session.host["curves"][...] = 3
        assert engine.infer(np.repeat(IMAGE, 2, axis=0)).shape == (2, 1254)
        assert cuda.said == ["to device", "enqueue on 7", "to host", "synchronize"] * 2
        assert (engine._session.host["image"] == 0.25).all()
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
    assert cuda.said[-1] == "detach" and cuda.live == set() and cuda.depth == 0


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
    assert problems == [] and cuda.said[-1] == "detach"


@pytest.mark.parametrize("how", ["loads", "starts"])
def test_a_plan_that_fails_leaves_nothing_behind(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda: fake_tensorrt(cuda, **{how: False}))
    with pytest.raises((EngineUnavailable, RuntimeError)):
        tensorrt.TensorRTEngine(b"FAKE plan")
    assert cuda.said[-1] == "detach" and cuda.live == set() and cuda.depth == 0


def test_a_recorded_graph_is_replayed(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAKE cuda-bindings: one capture round, then launches alone."""

    def say(name: str, *answer: Any) -> Any:
        return lambda *_: (cuda.said.append(name), (0, *answer))[1]

    bindings = SimpleNamespace(
        CUstreamCaptureMode=SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1),
        cuStreamBeginCapture=say("begin"),
        cuStreamEndCapture=say("end", "graph"),
        cuGraphInstantiate=say("instantiate", "executable"),
        cuGraphLaunch=say("launch"),
        cuGraphExecDestroy=say("destroyed executable"),
        cuGraphDestroy=say("destroyed graph"),
    )
    packages = ModuleType("cuda"), ModuleType("cuda.bindings")
    packages[1].driver = bindings  # type: ignore[attr-defined]
    for package in packages:
        monkeypatch.setitem(sys.modules, package.__name__, package)
    engine = tensorrt.TensorRTEngine(b"FAKE plan")
    assert engine.graph
    recorded = ["begin", "to device", "enqueue on 7", "to host", "end", "instantiate"]
    assert cuda.said[-6:] == recorded
    cuda.said.clear()
    engine.infer(IMAGE)
    assert cuda.said == ["launch", "synchronize"]
    engine.close()
    assert "destroyed executable" in cuda.said and cuda.said[-1] == "detach"


def test_the_real_pycuda_has_every_name_that_is_used() -> None:
    """PyCUDA carries no types to check against: its names are looked up where it can be imported."""
    driver = pytest.importorskip("pycuda.driver", reason="PyCUDA needs an NVIDIA driver", exc_type=ImportError)
    tree = ast.parse(Path(cuda_module.__file__).read_text(encoding="utf-8"))
    chains = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used = sorted(
        chain.removeprefix("self._driver.") for chain in chains if re.fullmatch(r"self\._driver(\.\w+)+", chain)
    )
    assert {"Device", "Stream", "mem_alloc", "pagelocked_zeros", "memcpy_htod_async", "Context.pop"} <= set(used)
    for name in used:
        assert operator.attrgetter(name)(driver) is not None, name
    for owner, names in (("Device", ["retain_primary_context"]), ("Context", ["push", "pop", "detach"])):
        assert all(hasattr(getattr(driver, owner), name) for name in names)
    assert all(hasattr(driver.Stream, name) for name in ("handle", "synchronize"))
    assert hasattr(driver.DeviceAllocation, "free") and hasattr(driver.PagelockedHostAllocation, "get_device_pointer")


def test_the_real_bindings_have_every_name_that_is_used() -> None:
    """cuda-bindings can be imported without a GPU."""
    bindings = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    source = Path(cuda_module.__file__).read_text(encoding="utf-8")
    used = set(re.findall(r"bindings\.(cu\w+)\(", source))
    assert len(used) == 6 and all(callable(getattr(bindings, name)) for name in used)
    assert bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL is not None
    assert int(bindings.CUresult.CUDA_SUCCESS) == 0


def test_a_plan_is_kept_for_the_next_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A FAKE GPU and a FAKE builder around the real cache and the real derived graph."""
    pytest.importorskip("filelock")
    built: list[str] = []

    def fake_build(trt: Any, model: bytes, form: str, **_: Any) -> tuple[bytes, bytes]:
        built.append(form)
        return b"FAKE plan of " + model[:4], b"FAKE timings"

    monkeypatch.setenv("EDGE_SPINE_CACHE", str(tmp_path / "plans"))
    monkeypatch.setattr(tensorrt, "require_gpu", lambda name: GPU)
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda: VERSIONS["10.3"])
    monkeypatch.setattr(tensorrt, "build_plan", fake_build)
    bundle = load_bundle()
    first = tensorrt.ready_plan(bundle)
    assert tensorrt.ready_plan(bundle) == first and built == ["int8-trt"]
    assert tensorrt.ready_plan(bundle, fresh=True) == first and len(built) == 2
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda: VERSIONS["11.4"])
    tensorrt.ready_plan(bundle)
    assert len(built) == 3


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_spine", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@no_gpu
@pytest.mark.parametrize(
    "arguments",
    [
        ("build",),
        ("build", "--precision", "fp16"),
        ("verify", "--engine", "tensorrt"),
        ("demo", "--engine", "tensorrt"),
    ],
)
def test_without_a_driver_it_is_one_clear_line(arguments: tuple[str, ...], tmp_path: Path) -> None:
    more = ("--out", tmp_path) if arguments[0] == "demo" else ()
    ended = command(*arguments, *more)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("edge-spine: tensorrt: ") and ended.stderr.count("\n") == 1
    assert "driver" in ended.stderr and "Traceback" not in ended.stderr


@no_gpu
def test_auto_runs_on_the_processor_and_says_why(tmp_path: Path) -> None:
    ended = command("demo", "--out", tmp_path, "-v")
    assert ended.returncode == 0
    (line,) = [line for line in ended.stderr.splitlines() if "auto takes" in line]
    assert re.search(r"auto takes (onnx-cpu|openvino) \(int8\); tensorrt: ", line) and "onnx-cuda: " in line


@pytest.mark.gpu
@needs_gpu
def test_the_real_engine_builds_agrees_and_closes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGE_SPINE_CACHE", str(tmp_path / "plans"))
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
