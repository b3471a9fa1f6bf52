"""Evaluation: errors are zero for the truth, known for known shifts, and the baseline is what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_spine.bundle.bands import Bands
from edge_spine.network import CROP_SIZE, ROWS
from edge_spine.preprocessing.prepare import Prepared
from edge_spine.reconstruct import Curves
from export.training.evaluate import (
    FIGURES,
    VARIANTS,
    centre_errors,
    compare,
    crop_error_px,
    interval,
    judge_bands,
    mean_sagittal,
    measured,
    summary,
    table,
    vary,
)
from export.training.phantoms.phantom import Phantom, make_phantom, make_subject
from export.training.phantoms.scanner import IDXA
from tests.edge_spine.fake_result import no_body


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(10_000_001)


def _truth(phantom: Phantom) -> Curves:
    return phantom.truth(phantom.truth().z)


def test_truth_has_no_error_and_a_shift_has_its_size(phantom: Phantom) -> None:
    truth = _truth(phantom)
    none = compare(measured(truth), measured(truth))
    assert all(none[name] == pytest.approx(0, abs=1e-9) for name in none if name != "iou3d")
    assert none["iou3d"] == pytest.approx(1)
    moved = Curves(truth.z, truth.coronal + 3.0, truth.sagittal)
    row = compare(measured(moved), measured(truth))
    assert row["coronal_mae_mm"] == pytest.approx(3) and row["coronal_rmse_mm"] == pytest.approx(3)
    assert row["sagittal_mae_mm"] == 0
    assert row["deviation3d_mm"] == pytest.approx(3, abs=0.01)
    assert 0.75 < row["iou3d"] < 0.95 and row["cobb_mae_deg"] < 0.01


def test_truth_of_the_phantom_and_truth_at_a_results_heights_agree(phantom: Phantom) -> None:
    one, two = phantom.truth(), _truth(phantom)
    np.testing.assert_allclose(one.coronal, two.coronal, atol=1e-9)
    np.testing.assert_allclose(one.sagittal, two.sagittal, atol=1e-9)


def test_baseline_is_the_mean_of_training_subjects() -> None:
    few = mean_sagittal(20)
    assert few.shape == (209, 3)
    assert few[:, 1].mean() == pytest.approx(0, abs=1e-9)
    subject = make_subject(3)
    own = subject.curves_at(subject.row_heights_mm)[:, 4] / subject.model_pixel_mm
    # thoracic kyphosis: the mean spine's middle lies behind its upper end and behind the lumbar lordosis
    assert few[70:110, 1].mean() > few[0, 1] + 5 and few[70:110, 1].mean() > few[150:180, 1].mean() + 5
    assert np.abs(own - own.mean() - few[:, 1]).mean() > 0.2


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_say_where_their_crop_is(phantom: Phantom, variant: str) -> None:
    scan, (row, column) = vary(phantom, variant)
    pixels = 255 - scan.pixels if variant == "inverted" else scan.pixels
    half = (CROP_SIZE - 1) / 2 * phantom.model_pixel_mm
    centre = (round(row + half / scan.pixel_spacing_mm[0]), round(column + half / scan.pixel_spacing_mm[1]))
    near = pixels[centre[0] - 4 : centre[0] + 5, centre[1] - 30 : centre[1] + 31]
    spine = near[:, 18:43].mean()
    assert spine > 1.25 * near[:, :8].mean() and spine > 1.25 * near[:, -8:].mean()
    if variant == "feet cut":
        assert scan.pixels.shape[0] < phantom.bone.shape[0]


def test_what_comes_into_view_is_the_scanners_background() -> None:
    """An inverted scan that is turned must not get black corners, which no scanner draws."""
    inverted = make_phantom(10_000_028, scanner=replace(IDXA, inverted=True))
    scan, _ = vary(inverted, "tilted")
    corners = scan.pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 2**inverted.scanner.bits - 1).all()


def test_crop_error_is_counted_in_true_crop_pixels() -> None:
    prepared = Prepared(2.2, (100.0, 50.0), (2.4, 2.4), np.zeros((1, 3, 224, 224), np.float32), (), 1.0, no_body())
    assert crop_error_px(prepared, (100.0, 50.0), 2.2) == 0
    assert crop_error_px(prepared, (100.0 - 4.4 / 2.4, 50.0 + 2.2 / 2.4), 2.2) == pytest.approx(2)


def test_summary_and_table() -> None:
    truth = dict.fromkeys(
        (
            "coronal_mae_mm",
            "coronal_rmse_mm",
            "sagittal_mae_mm",
            "sagittal_rmse_mm",
            "deviation3d_mm",
            "iou3d",
            "cobb_mae_deg",
        ),
        1.0,
    )
    rows = [dict(truth, iou3d=value) for value in (0.7, 0.9)]
    group = summary(rows, [truth, truth])
    assert group["count"] == 2 and group["iou3d"] == pytest.approx(0.8)
    assert group["baseline"]["iou3d"] == 1.0
    low, high = interval(np.array([0.7, 0.9] * 50))
    assert 0.75 < low < 0.8 < high < 0.85
    report = {**group, "refused": 0, "severity": {"below 10": {"count": 0}}, "crop_within_8_px": {"tilted": 0.5}}
    assert "0.80 [" in table(report) and "tilted: 50.0 %" in table(report)
    assert report["band_90"] is None and "no 90 % bands" in table(report)


def test_errors_of_the_centres_are_judged_by_their_bands(phantom: Phantom) -> None:
    truth = _truth(phantom)
    half = np.where(np.arange(ROWS) < 100, 1.0, 4.0)
    moved = Curves(truth.z, truth.coronal + [9.0, 3.0, 9.0], truth.sagittal + [9.0, -0.5, 9.0])
    error = centre_errors(moved, truth)
    np.testing.assert_allclose(error, np.repeat([[3.0], [0.5]], ROWS, axis=1))
    row = judge_bands(Bands(coronal=half, sagittal=half), error)
    assert row["coronal_coverage"] == pytest.approx(109 / 209) and row["sagittal_coverage"] == 1
    assert row["coronal_half_width_mm"] == pytest.approx(half.mean())


def _group(*coverages: tuple[float, float]) -> dict[str, Any]:
    row = dict.fromkeys(FIGURES, 1.0)
    bands = [
        {
            "coronal_coverage": coronal,
            "sagittal_coverage": sagittal,
            "coronal_half_width_mm": 2.0,
            "sagittal_half_width_mm": 7.0,
        }
        for coronal, sagittal in coverages
    ]
    return summary([row] * len(bands), [row] * len(bands), bands)


def test_coverage_is_summed_up_for_all_and_for_each_class() -> None:
    group = _group(*[(0.8, 1.0), (1.0, 0.82)] * 30)
    coronal, sagittal = group["band_90"]["coronal"], group["band_90"]["sagittal"]
    assert coronal["coverage"] == pytest.approx(0.9) and sagittal["coverage"] == pytest.approx(0.91)
    assert 0.85 < coronal["interval_95"][0] < 0.9 < coronal["interval_95"][1] < 0.95
    assert coronal["whole_curve_coverage"] == 0.5 and sagittal["half_width_mm"] == 7
    report = {**group, "refused": 0, "severity": {"below 10": group, "above 40": {"count": 0}}, "crop_within_8_px": {}}
    text = table(report)
    assert "90.0 [" in text and "91.0 [" in text
    assert "bands within 2 points of 90 %: yes (1.0 away at most)" in text
    narrow = {**report, **_group((0.85, 0.9), (0.9, 0.9))}
    assert "bands within 2 points of 90 %: NO (2.5 away at most)" in table(narrow)
