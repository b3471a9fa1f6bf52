"""Figures of a verification, and what misses its tolerance."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edge_spine.bundle.load import Bundle
from edge_spine.engines import open_engine
from edge_spine.engines.verification import compare, verify


def test_verify_measures_in_crop_pixels_and_millimetres(bundle: Bundle) -> None:
    with open_engine(bundle, "onnx-cpu") as engine:
        result = verify(bundle, engine)
    assert result.passed and result.references == 2
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["deviations"][2]["part"] == "all"
    expected = np.zeros((3, 1254), np.float32)
    found = expected.reshape(3, 209, 6).copy()
    found[..., 3:] += 0.2 / 224
    both = compare(found.reshape(3, -1), expected, engine="e", precision="int8", model_pixel_mm=2.0)
    coronal, sagittal, whole = both.deviations
    assert coronal.max_px == 0
    assert sagittal.mean_px == pytest.approx(0.2, abs=1e-4) and sagittal.mean_mm == pytest.approx(0.4, abs=1e-3)
    assert whole.mean_px == pytest.approx(0.1, abs=1e-4) and both.passed and both.shape is None
    assert "passed" in both.table()


@pytest.mark.parametrize("wrong", [0.2 / 224, np.nan, np.inf])
def test_verification_is_missed(wrong: float) -> None:
    expected = np.zeros((2, 1254), np.float32)
    result = compare(expected + np.float32(wrong), expected, engine="e", precision="int8", model_pixel_mm=2.2)
    assert not result.passed and "MISSED" in result.table()
    json.dumps(result.to_dict(), allow_nan=False)


def test_few_far_values_miss_the_99th_percentile() -> None:
    expected = np.zeros((1, 1254), np.float32)
    found = expected.copy()
    found[0, :20] = 2 / 224
    result = compare(found, expected, engine="e", precision="int8", model_pixel_mm=2.2)
    assert result.deviations[-1].mean_mm < 0.3 and not result.passed
