"""benchmarks/inside.py: fails when the private members that it uses change."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from edge_spine import SpineEstimator, read_scan
from edge_spine.engines.tensorrt.cuda import CudaSession
from edge_spine.engines.tensorrt.engine import TensorRTEngine
from edge_spine.preprocessing import prepare

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def inside(script: ModuleType) -> ModuleType:
    return script


def test_engine_and_localiser(inside: ModuleType) -> None:
    scan = read_scan(ROOT / "edge_spine/data/synthetic_whole_body.dcm")
    with SpineEstimator("onnx-cpu", "lite", threads=1) as estimator:
        tensor = estimator(scan).prepared.tensor
        localiser = inside.localiser_of(estimator)
        inside.answer_with_the_last(localiser)
        assert np.array_equal(prepare(scan, localiser).tensor, tensor)
        assert inside.engine_of(estimator).infer(tensor).shape[-1] == 1254


def test_cuda_session(inside: ModuleType) -> None:
    # What TensorRTEngine and CudaSession must have; the FAKES below stand for them where there is no GPU.
    assert {"_sessions", "enqueuing"} <= {*TensorRTEngine.__init__.__code__.co_names, *vars(TensorRTEngine)}
    assert {"_graph", "_enqueue"} <= {*CudaSession.run.__code__.co_names}
    done: list[object] = []
    graph = SimpleNamespace(launch=done.append)
    session = SimpleNamespace(_graph=None, _enqueue=done.append, stream=SimpleNamespace(handle=7), current=nullcontext)
    engine = SimpleNamespace(_sessions=[session], enqueuing=lambda number: "enqueue")
    found, enqueue = inside.cuda_session(engine)
    enqueue()
    session._graph = graph
    enqueue()
    assert found is session and done == ["enqueue", 7]
