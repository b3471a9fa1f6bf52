"""Matrix products equal those of NumPy, and an estimate uses no thread but the calling one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_spine.processors import usable_cores
from edge_spine.products import product

ROOT = Path(__file__).resolve().parents[2]
# Prints the processor time of other threads over that of the calling one.
CALLS = """
import time, cv2, edge_spine
cv2.setNumThreads(1)
scan = edge_spine.read_scan("edge_spine/data/synthetic_whole_body.dcm")
with edge_spine.SpineEstimator("onnx-cpu", "lite", threads=1) as estimator:
    estimator(scan)
    process, thread = time.process_time(), time.thread_time()
    for _ in range(40):
        estimator(scan)
    process, thread = time.process_time() - process, time.thread_time() - thread
print((process - thread) / thread)
"""


@pytest.mark.parametrize(
    "shape",
    [(112, 238, 64), (105, 346, 96), (210, 48, 48), (211, 97, 33), (1, 3000, 100), (105, 105, 1), (3, 5000, 1)],
)
def test_a_product_is_that_of_numpy(shape: tuple[int, int, int]) -> None:
    count, inner, width = shape
    random = np.random.default_rng(0)
    # a part of wider rows, as some of the runtime's are
    rows = random.random((count, inner + 9), np.float32)[:, :inner]
    weight = random.random((inner, width), np.float32)
    out = np.empty((count, width), np.float32)
    assert np.allclose(product(rows, weight), rows @ weight, rtol=1e-5)
    assert np.shares_memory(product(rows, weight, out), out) and np.allclose(out, rows @ weight, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(usable_cores() < 2, reason="libraries take no further threads here")
@pytest.mark.parametrize("kernels", ["", "Nehalem", "Haswell"])
def test_a_call_runs_in_its_thread_alone(kernels: str) -> None:
    """Where several threads share an estimator, further ones of NumPy would wait for each other.

    OpenBLAS takes threads by other rules with the code for older processors.
    """
    if kernels == "Haswell" and "AVX2" not in cv2.getCPUFeaturesLine():
        pytest.skip("this processor has no AVX2")
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    if kernels:
        environment["OPENBLAS_CORETYPE"] = kernels
    ended = subprocess.run(
        [sys.executable, "-c", CALLS], capture_output=True, text=True, check=True, env=environment, cwd=ROOT
    )
    assert float(ended.stdout) < 0.02
