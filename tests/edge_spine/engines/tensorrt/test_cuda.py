"""The CUDA session: a recorded graph, and the names that it uses of PyCUDA and cuda-bindings."""

from __future__ import annotations

import ast
import operator
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_spine.engines.tensorrt import cuda as cuda_module
from edge_spine.engines.tensorrt import engine as tensorrt
from tests.edge_spine.engines.tensorrt.fakes import FakeCuda


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
    engine.infer(np.full((1, 3, 224, 224), 0.25, np.float32))
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
