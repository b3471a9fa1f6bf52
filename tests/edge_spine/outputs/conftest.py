"""One real result, of the bundled scan with the packaged model."""

from __future__ import annotations

import pytest

from edge_spine.estimator import SpineEstimator
from edge_spine.reading import read_scan
from edge_spine.result import SpineResult
from tests.edge_spine.outputs.dicom_checks import DEMO_SCAN


@pytest.fixture(scope="session")
def estimator() -> SpineEstimator:
    pytest.importorskip("onnxruntime", reason="an engine is needed: pip install '.[cpu]'")
    return SpineEstimator(engine="onnx-cpu")


@pytest.fixture(scope="session")
def demo_result(estimator: SpineEstimator) -> SpineResult:
    return estimator(read_scan(DEMO_SCAN))
