"""Figures of a verification, and what misses its tolerance."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edge_spine.bundle.load import Bundle
from edge_spine.engines import open_engine
from edge_spine.engines.verification import Tolerance, compare, verify


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


@pytest.mark.hazard("computes-wrongly")
@pytest.mark.parametrize("wrong", [0.2 / 224, np.nan, np.inf])
def test_verification_is_missed(wrong: float) -> None:
    expected = np.zeros((2, 1254), np.float32)
    result = compare(expected + np.float32(wrong), expected, engine="e", precision="int8", model_pixel_mm=2.2)
    assert not result.passed and "MISSED" in result.table()
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.hazard("computes-wrongly")
def test_few_far_values_miss_the_99th_percentile() -> None:
    expected = np.zeros((1, 1254), np.float32)
    found = expected.copy()
    found[0, :20] = 2 / 224
    result = compare(found, expected, engine="e", precision="int8", model_pixel_mm=2.2)
    assert result.deviations[-1].mean_mm < 0.3 and not result.passed


def one_row(found: np.ndarray) -> None:
    found[:, 100] += 10 / MILLIMETRES


def one_value_of_a_row(found: np.ndarray) -> None:
    found[7, 100, 4] += 10 / MILLIMETRES


def one_column_of_one_scan(found: np.ndarray) -> None:
    found[7, :, 1] += 12 / MILLIMETRES


def one_scan(found: np.ndarray) -> None:
    found[7] += 12 / MILLIMETRES


def one_scan_slightly(found: np.ndarray) -> None:
    found[7] += 1.2 / MILLIMETRES


def one_row_slightly(found: np.ndarray) -> None:
    found[:, 100] += 0.8 / MILLIMETRES


MILLIMETRES = 224 * 2.2
FAULTS = (one_row, one_value_of_a_row, one_column_of_one_scan, one_scan, one_scan_slightly, one_row_slightly)


@pytest.mark.hazard("computes-wrongly")
@pytest.mark.parametrize("precision", ["int8", "int8-trt", "fp16", "fp32"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_one_row_or_one_scan_of_many_misses(fault, precision: str) -> None:
    """The mean and 99th percentile of 128 scans hide most of these."""
    expected = np.zeros((128, 1254), np.float32)
    found = expected.reshape(-1, 209, 6).copy()
    compared = {"engine": "e", "precision": precision, "model_pixel_mm": 2.2}
    assert compare(found.reshape(expected.shape), expected, **compared).passed
    fault(found)
    result = compare(found.reshape(expected.shape), expected, **compared)
    assert not result.passed and "MISSED" in result.table()


def test_the_worst_row_and_scan_are_means() -> None:
    found = np.zeros((4, 209, 6), np.float32)
    found[2] = 1 / MILLIMETRES
    found[:, 5] = 3 / MILLIMETRES
    whole = compare(
        found.reshape(4, -1), np.zeros((4, 1254), np.float32), engine="e", precision="int8", model_pixel_mm=2.2
    ).deviations[-1]
    assert whole.max_mm == pytest.approx(3, abs=1e-4)
    assert whole.row_mm == pytest.approx(3, abs=1e-4)
    assert whole.scan_mm == pytest.approx(1 + 2 / 209, abs=1e-4)


def test_limits_of_another_comparison_are_its_own() -> None:
    zeros = np.zeros((1, 1254), np.float32)
    strict = Tolerance(mean_mm=0.01, max_mm=0.1, row_mm=0.02, scan_mm=0.02)
    told = {"engine": "e", "precision": "int8", "model_pixel_mm": 2.2, "reference": "the graph"}
    result = compare(zeros + np.float32(0.05 / MILLIMETRES), zeros, **told, tolerance=strict)
    assert not result.passed and "against the graph" in result.table()
    assert "mean 0.01 mm, largest 0.1 mm, worst row 0.02 mm, worst scan 0.02 mm: MISSED" in result.table()
    assert compare(zeros + np.float32(0.05 / MILLIMETRES), zeros, **told).passed
