"""One real result, of the bundled scan with the packaged model."""

from __future__ import annotations

from typing import Any

import pytest

from edge_spine.estimator import SpineEstimator
from edge_spine.reading import read_scan
from edge_spine.result import SpineResult
from tests.edge_spine.outputs.dicom_checks import DEMO_SCAN


@pytest.fixture(scope="session")
def demo_result(estimator: SpineEstimator) -> SpineResult:
    return estimator(read_scan(DEMO_SCAN))


@pytest.fixture(scope="module")
def trimesh() -> Any:
    return pytest.importorskip("trimesh", reason="pip install '.[report]'")
