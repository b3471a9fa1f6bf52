"""The CUDA session: a recorded graph, the one context of the process, and the names that are used of PyCUDA."""

from __future__ import annotations

import ast
import importlib.util
import operator
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_spine.engines import memory
from edge_spine.engines.tensorrt import cuda as cuda_module
from edge_spine.engines.tensorrt import engine as tensorrt
from edge_spine.errors import EngineLost, GpuMemoryShort
from tests.edge_spine.engines.tensorrt.fakes import MISSING, FakeCuda, fake_tensorrt

ROOT = Path(__file__).resolve().parents[4]


def test_a_recorded_graph_is_replayed(cuda: FakeCuda) -> None:
    """One capture round, then launches alone, through the driver's own functions."""
    engine = tensorrt.TensorRTEngine(b"FAKE plan")
    assert engine.graph
    recorded = ["cuStreamBeginCapture_v2", "to device", "enqueue on 7", "to host", "cuStreamEndCapture"]
    assert cuda.said[-6:] == [*recorded, "cuGraphInstantiateWithFlags"]
    cuda.said.clear()
    engine.infer(np.full((1, 3, 224, 224), 0.25, np.float32))
    assert cuda.said == ["cuGraphLaunch", "synchronize"]
    engine.close()
    assert {"cuGraphExecDestroy", "cuGraphDestroy"} <= set(cuda.said) and cuda.depth == 0


@pytest.mark.parametrize(
    ("function", "status"),
    [
        ("cuStreamBeginCapture_v2", MISSING),
        ("cuGraphInstantiateWithFlags", MISSING),
        ("cuStreamBeginCapture_v2", 900),
        ("cuStreamEndCapture", 901),
        ("cuGraphInstantiateWithFlags", 999),
    ],
)
def test_without_a_graph_each_inference_is_enqueued(cuda: FakeCuda, function: str, status: int) -> None:
    cuda.library.fails[function] = status
    engine = tensorrt.TensorRTEngine(b"FAKE plan")
    assert not engine.graph
    cuda.said.clear()
    engine.infer(np.zeros((1, 3, 224, 224), np.float32))
    assert cuda.said == ["to device", "enqueue on 7", "to host", "synchronize"]
    engine.close()
    assert cuda.depth == 0 and cuda.live == set()


def test_the_stream_does_not_wait_for_others(cuda: FakeCuda) -> None:
    """1 is CU_STREAM_NON_BLOCKING."""
    with tensorrt.TensorRTEngine(b"FAKE plan"):
        assert "stream 1" in cuda.said


def test_one_reference_serves_every_engine_of_the_process(cuda: FakeCuda) -> None:
    for _ in range(3):
        with tensorrt.TensorRTEngine(b"FAKE plan"), tensorrt.TensorRTEngine(b"FAKE plan"):
            assert cuda.refs == 1
    assert cuda.refs == 1 and cuda.depth == 0 and cuda.live == set()


@pytest.mark.parametrize("where", ["stream 1", "host", "alloc", "to device", "synchronize"])
def test_a_constructor_that_fails_leaves_nothing(cuda: FakeCuda, where: str) -> None:
    cuda.fails[where] = RuntimeError("FAKE failure")
    with pytest.raises(RuntimeError, match="FAKE failure"):
        tensorrt.TensorRTEngine(b"FAKE plan")
    assert cuda.refs == 1 and cuda.depth == 0 and cuda.live == set()


@pytest.mark.parametrize("needs", [{"device_memory_size_v2": 9 << 20}, {"device_memory_size": 9 << 20}])
@pytest.mark.parametrize("block", [1, 4])
def test_the_contexts_of_a_plan_must_fit(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, needs: dict[str, int], block: int
) -> None:
    """TensorRT 8 tells the size of a context under one name, 10 under both and 11 under the other."""
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda: fake_tensorrt(cuda, block=block, **needs))
    needed = 9 * (1 if block == 1 else 2)
    cuda.free = (needed << 20) - 1
    words = (
        f"^tensorrt: gpu-memory: running the plan needs about {needed} MiB of the GPU's memory, of which {needed - 1} "
    )
    with pytest.raises(GpuMemoryShort, match=words):
        tensorrt.TensorRTEngine(b"FAKE plan")
    assert cuda.depth == 0 and cuda.live == set()
    cuda.free += 1
    tensorrt.TensorRTEngine(b"FAKE plan").close()
    cuda.free = 8
    with pytest.raises(GpuMemoryShort, match="loading the plan needs about 1 MiB"):
        tensorrt.TensorRTEngine(b"FAKE plan")


@pytest.mark.parametrize("where", ["host", "alloc", "to device"])
def test_memory_that_runs_out_all_the_same_has_the_same_code(cuda: FakeCuda, where: str) -> None:
    """FAKE of PyCUDA's own error, as where another process takes the memory meanwhile."""
    cuda.fails[where] = type("MemoryError", (Exception,), {})("cuMemAlloc failed: out of memory")
    with pytest.raises(
        GpuMemoryShort, match=r"gpu-memory: the GPU ran out of memory \(cuMemAlloc failed: out of memory\)"
    ):
        tensorrt.TensorRTEngine(b"FAKE plan")
    assert cuda.depth == 0 and cuda.live == set()


def test_an_integrated_gpu_has_what_the_system_gives_back(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cuda.free = 100 << 20
    monkeypatch.setattr(memory, "_SYSTEM", tmp_path / "meminfo")
    assert cuda_module.free_memory(True) == cuda_module.free_memory(False) == 100 << 20
    (tmp_path / "meminfo").write_text("MemTotal:  8000000 kB\nMemAvailable:  4096 kB\n")
    assert cuda_module.free_memory(True) == 100 << 20
    (tmp_path / "meminfo").write_text("MemAvailable:  4194304 kB\n")
    assert (cuda_module.free_memory(True), cuda_module.free_memory(False)) == (4 << 30, 100 << 20)


@pytest.mark.parametrize("graph", [True, False])
def test_an_error_of_the_gpu_ends_the_engine(cuda: FakeCuda, graph: bool) -> None:
    """Everything fails afterwards, as after an illegal access; closing does not."""
    if not graph:
        cuda.library.fails["cuStreamBeginCapture_v2"] = 900
    engine = tensorrt.TensorRTEngine(b"FAKE plan")
    cuda.library.fails["cuGraphLaunch"] = 719
    broken = RuntimeError("unspecified launch failure")
    cuda.fails = dict.fromkeys(("to device", "synchronize", "free"), broken)
    with pytest.raises(EngineLost, match="tensorrt: the GPU failed"):
        engine.infer(np.zeros((1, 3, 224, 224), np.float32))
    assert cuda.depth == 0
    engine.close()
    assert cuda.depth == 0


SCENARIO = """
import ctypes, sys, threading
import numpy as np
from types import SimpleNamespace
from edge_spine.engines.driver import load_driver
from edge_spine.engines.tensorrt import engine as tensorrt
from edge_spine.errors import EngineLost, EngineUnavailable

class Logger:
    Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

yes = lambda *_: True
context = SimpleNamespace(set_tensor_address=yes, execute_async_v3=yes, set_input_shape=yes)
context.set_optimization_profile_async = yes
plan = SimpleNamespace(create_execution_context=lambda: context, get_tensor_dtype=lambda name: 1)
plan.num_optimization_profiles, plan.get_tensor_profile_shape = 2, lambda *_: [(4, 3, 224, 224)] * 3
runtime = SimpleNamespace(deserialize_cuda_engine=lambda _: plan)
plan.device_memory_size_v2 = 100 << 20
fake = SimpleNamespace(ILogger=Logger, DataType=SimpleNamespace(FLOAT=1), Runtime=lambda _: runtime)
fake.__name__, fake.BuilderFlag = "tensorrt", SimpleNamespace(FP16=1)
tensorrt.import_tensorrt = lambda: fake
IMAGE = np.zeros((1, 3, 224, 224), np.float32)

def opened():
    engine = tensorrt.TensorRTEngine(b"FAKE plan")
    assert engine.graph
    assert engine.block == 4 and engine.infer(np.repeat(IMAGE, 5, axis=0)).shape == (5, 1254)
    return engine

def in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

CODE
"""
SCENARIOS = {
    "same thread": "opened().close(); opened().close()",
    "with": "with opened() as engine:\n    engine.infer(IMAGE)",
    "left open": "engine = opened()",
    "left open in a thread": "kept = []; in_a_thread(lambda: kept.append(opened()))",
    "forgotten": "opened()",
    "closed in a thread": "engine = opened(); in_a_thread(engine.close)",
    "opened in a thread": "in_a_thread(lambda: opened().close())",
    "used in threads": "engine = opened()\nfor _ in range(3): in_a_thread(lambda: engine.infer(IMAGE))",
    "two at once": "first, second = opened(), opened(); first.close(); second.infer(IMAGE)",
    "failed constructor": """
import os
os.environ["FAKE_OUT_OF_MEMORY"] = "1"
try:
    tensorrt.TensorRTEngine(b"FAKE plan")
except Exception as error:
    assert not isinstance(error, MemoryError), "PyCUDA's is another"
    assert "out of memory" in str(error)
else:
    raise SystemExit("it did not fail")
""",
    "too little memory": """
import os
os.environ["FAKE_FREE"] = str(199 << 20)
try:
    tensorrt.TensorRTEngine(b"FAKE plan")
except EngineUnavailable as error:
    assert "running the plan needs about 200 MiB of the GPU's memory, of which 199 MiB are free" in str(error)
else:
    raise SystemExit("it did not fail")
os.environ["FAKE_FREE"] = str(200 << 20)
opened()
""",
    "beside another user": """
driver = load_driver()
driver.cuInit(0)
theirs, current = ctypes.c_void_p(), ctypes.c_void_p()
driver.cuDevicePrimaryCtxRetain(ctypes.byref(theirs), 0)
driver.cuCtxPushCurrent_v2(theirs)
opened().close()
driver.cuCtxGetCurrent(ctypes.byref(current))
assert current.value == theirs.value
driver.cuCtxPopCurrent_v2(ctypes.byref(current))
driver.cuDevicePrimaryCtxRelease_v2(0)
""",
    "lost": """
import os
engine = opened()
os.environ["FAKE_STICKY"] = "1"
try:
    engine.infer(IMAGE)
except EngineLost:
    engine.close()
else:
    raise SystemExit("it did not fail")
""",
}


@pytest.fixture(scope="module")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FAKE libcuda, in C, which counts references and the depth of its stacks, for the real PyCUDA."""
    found = importlib.util.find_spec("pycuda")
    compiler, lister = shutil.which("gcc"), shutil.which("nm")
    if found is None or found.origin is None or compiler is None or lister is None:
        pytest.skip("needs PyCUDA, gcc and nm")
    (extension,) = Path(found.origin).parent.glob("_driver*.so")
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("fake_driver.c").read_text(encoding="utf-8")
    listed = subprocess.run([lister, "-D", "--undefined-only", extension], capture_output=True, text=True, check=True)
    wanted = set(re.findall(r"\bU (cu[A-Z]\w+)", listed.stdout)) - set(re.findall(r"int (cu\w+)\(", source))
    stubs = "".join(f"int {name}(void) {{ return 0; }}\n" for name in sorted(wanted))
    (folder / "fake.c").write_text(source + stubs, encoding="utf-8")
    library = folder / "libcuda.so.1"
    more = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", library, folder / "fake.c", "-ldl"]
    subprocess.run([compiler, *more], check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_the_real_pycuda_ends_with_nothing_held(fake_driver: Path, tmp_path: Path, name: str) -> None:
    report = tmp_path / "report"
    ended = subprocess.run(
        [sys.executable, "-c", SCENARIO.replace("CODE", SCENARIOS[name])],
        cwd=ROOT,
        env={**os.environ, "LD_LIBRARY_PATH": str(fake_driver), "FAKE_REPORT": str(report)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    counts = dict(line.split() for line in report.read_text().splitlines())
    assert int(counts["retained"]) > 0
    del counts["retained"]
    if name == "lost":
        # what a broken GPU does not free goes with the process
        counts = {key: counts[key] for key in ("references", "depth")}
    assert set(counts.values()) == {"0"}, counts


def test_the_real_pycuda_has_every_name_that_is_used() -> None:
    """PyCUDA carries no types to check against: its names are looked up where it can be imported."""
    driver = pytest.importorskip("pycuda.driver", reason="PyCUDA needs an NVIDIA driver", exc_type=ImportError)
    tree = ast.parse(Path(cuda_module.__file__).read_text(encoding="utf-8"))
    chains = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used = sorted({found[2] for chain in chains if (found := re.fullmatch(r"(self\._)?driver\.([\w.]+)", chain))})
    assert {"Device", "Stream", "mem_alloc", "pagelocked_zeros", "memcpy_htod_async", "Context.pop"} <= set(used)
    for name in used:
        assert operator.attrgetter(name)(driver) is not None, name
    for owner, names in (("Device", ["retain_primary_context"]), ("Context", ["push", "pop"])):
        assert all(hasattr(getattr(driver, owner), name) for name in names)
    assert all(hasattr(driver.Stream, name) for name in ("handle", "synchronize"))
    assert hasattr(driver.DeviceAllocation, "free")
