"""OpenVINO: many threads, and float32 for what is not INT8."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edge_spine.engines import open_engine, select
from edge_spine.engines.verification import read_references, verify
from tests.edge_spine.engines.processors import IMAGE, needs_openvino


@needs_openvino
def test_threads_of_a_process_share_one_openvino_engine(bundle) -> None:
    """A request of OpenVINO refuses a second caller; the engine makes it wait."""
    _, outputs = read_references(bundle)
    with open_engine(bundle, "openvino") as engine, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: engine.infer(IMAGE), range(64)))
    assert all(np.abs(answer - outputs[0]).max() < 1e-6 for answer in answers)


@needs_openvino
@pytest.mark.slow
def test_openvino_computes_in_float32_what_is_not_int8(packaged) -> None:
    """Where the processor has bfloat16, OpenVINO's default would lose a third of a crop pixel at the end."""
    if select._may_saturate():
        pytest.skip("OpenVINO's INT8 sums may be wrong on this processor, which has no bfloat16 either")
    largest = {}
    for name in ("onnx-cpu", "openvino"):
        with open_engine(packaged, name) as engine:
            found = verify(packaged, engine)
        assert found.passed
        largest[name] = found.deviations[-1].max_mm
    # a third of a crop pixel is 0.7 mm
    assert largest["openvino"] < largest["onnx-cpu"] + 0.35
