"""Disturbed pictures get a flag and a wider band, each kind drawn on an invented picture of a spine and on scans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_spine import SpineEstimator, read_scan
from edge_spine.bundle.bands import Bands
from edge_spine.disturbance import (
    ACROSS,
    COARSE,
    CONTRAST,
    FLAGS,
    METAL,
    MOTION,
    SATURATED,
    WIDENING,
    Disturbances,
    find_disturbances,
    widened,
)
from edge_spine.measure import AngleErrors, levels_of, measure, tilts_of
from edge_spine.network import CURVE_ROWS
from edge_spine.preprocessing.prepare import Prepared
from edge_spine.reconstruct import Curves, reconstruct
from edge_spine.scan import Scan
from tests.edge_spine.fake_result import fake_curves, no_body

PIXEL = 2.2
Picture = NDArray[np.float32]
BUNDLED = Path(str(files("edge_spine") / "data" / "synthetic_whole_body.dcm"))


def _picture() -> Picture:
    """A spine of 36 mm with endplates, and oblique ribs, in noise."""
    rng = np.random.default_rng(0)
    picture = np.full((224, 224), 0.3, np.float32)
    row, column = np.mgrid[0:224, 0:224]
    away = np.abs(column - 112)
    picture[((row + 0.4 * away) % 14 < 3) & (row < 120) & (away < 60)] = 0.42
    spine = away < 8
    picture[spine] = 0.7
    picture[spine & (row % 12 < 2)] = 0.78
    picture += rng.normal(0, 0.02, picture.shape).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(picture, (3, 3), 0), np.float32)


def _disturbances(picture: Picture, row_mm: float = 2.4) -> Disturbances:
    tensor = np.broadcast_to(picture, (1, 3, *picture.shape)).astype(np.float32)
    prepared = Prepared(PIXEL, (100.0, 20.0), (row_mm, 2.4), tensor, (), 0.95, no_body())
    x = np.repeat(prepared.x_mm(np.array([104.0, 112.0, 120.0]))[np.newaxis], 209, axis=0)
    y = np.repeat(np.array([[-15.0, 0.0, 15.0]]), 209, axis=0)
    return find_disturbances(prepared, Curves(z=prepared.z_mm(CURVE_ROWS), coronal=x, sagittal=y))


def _found(picture: Picture, row_mm: float = 2.4) -> Mapping[str, NDArray[np.bool_]]:
    found = _disturbances(picture, row_mm).rows
    assert all(rows.shape == (209,) and rows.dtype == np.bool_ and rows.any() for rows in found.values())
    return found


def _rods(picture: Picture) -> None:
    picture[60:130, [105, 106, 107, 117, 118, 119]] = 1.0


def _plate(picture: Picture) -> None:
    picture[80:120, 118:130] = 1.0


def _medium(picture: Picture) -> None:
    for row, column in ((150, 135), (170, 90), (185, 132)):
        cv2.circle(picture, (column, row), 7, 0.85, -1)


def _clipped(picture: Picture) -> None:
    picture[...] = np.minimum(picture / 0.4, 1.0)


def _moved(picture: Picture) -> None:
    picture[110:] = np.roll(picture[110:], 8, axis=1)


def _belt(picture: Picture) -> None:
    picture[140:156] += 0.2


@pytest.mark.parametrize(
    ("draw", "flag", "rows"),
    [
        (_rods, METAL, slice(55, 120)),
        (_plate, METAL, slice(75, 110)),
        (_medium, CONTRAST, slice(138, 180)),
        (_clipped, SATURATED, slice(0, 209)),
        (_moved, MOTION, slice(100, 106)),
        (_belt, ACROSS, slice(134, 146)),
    ],
)
def test_each_kind_has_its_flag_and_rows(draw: Callable[[Picture], None], flag: str, rows: slice) -> None:
    picture = _picture()
    assert _found(picture) == {}
    draw(picture)
    found = _found(picture)
    assert list(found) == [flag]
    assert found[flag][rows].mean() > 0.9
    # where nothing was drawn, nothing is disturbed
    if flag != SATURATED:
        assert found[flag][rows].sum() > 0.5 * found[flag].sum() - 12


def test_coarse_rows_are_flagged_by_their_spacing() -> None:
    assert list(_found(_picture(), row_mm=13.0)) == [COARSE]
    assert _found(_picture(), row_mm=6.5) == {}


def test_dense_bone_that_fades_out_is_no_metal() -> None:
    picture = _picture()
    column = np.arange(224)
    picture[60:130] = np.maximum(picture[60:130], 1.1 - 0.02 * np.abs(column - 112))
    assert METAL not in _found(np.minimum(picture, 1.0))


@pytest.mark.parametrize("wide", [4, 5])
def test_vertebrae_that_are_white_to_their_rims_are_no_metal(wide: int) -> None:
    """As clipped pictures of dense bone show them: large and compact, with rims that fade within the bone."""
    picture = _picture()
    row, column = np.mgrid[0:224, 0:224]
    for middle in range(66, 130, 16):
        beyond = np.maximum(np.abs(row - middle) - 5, np.abs(column - 112) - wide)
        picture = np.maximum(picture, np.clip(1.0 - 0.07 * np.maximum(beyond, 0), 0, 1) * (beyond < 6))
    assert METAL not in _found(np.asarray(picture, np.float32))


def _plate_over_all(picture: Picture) -> None:
    picture[20:200, 101:123] = 1.0


def _thick_rods(picture: Picture) -> None:
    picture[20:200, 105:111] = picture[20:200, 113:119] = 1.0


@pytest.mark.parametrize("draw", [_plate_over_all, _thick_rods])
def test_metal_over_most_of_the_spine_is_metal_too_and_widens(draw: Callable[[Picture], None]) -> None:
    """White at the spine alone: nothing can be seen in it, and what hides it is metal."""
    picture = _picture()
    draw(picture)
    found = _disturbances(picture)
    assert list(found.rows) == [METAL, SATURATED]
    assert found.local[20:190].all() and found.local.sum() < 209
    assert (found.metal_mm[30:180] > 20).all()


def test_a_spine_of_which_half_is_white_is_not_called_saturated() -> None:
    picture = _picture()
    picture[4:108, 104:121] = 1.0
    assert SATURATED not in _found(np.minimum(picture, 1.0))


@pytest.mark.hazard("last-digit")
def test_disturbed_rows_widen_the_band_and_no_others() -> None:
    bands = Bands(np.full(209, 1.5), np.full(209, 4.0), sagittal_gain=0.3)
    rows = np.arange(209) < 50
    wider = widened(bands, Disturbances({METAL: rows, COARSE: np.ones(209, bool)}, np.zeros(209)))
    np.testing.assert_allclose(wider.coronal, np.where(rows, 1.5 * WIDENING[METAL], 1.5 * WIDENING[COARSE]))
    np.testing.assert_allclose(wider.sagittal / wider.coronal, 4.0 / 1.5)
    assert wider.sagittal_gain == 0.3
    np.testing.assert_array_equal(widened(bands, Disturbances({}, np.zeros(209))).coronal, bands.coronal)
    assert set(WIDENING) == set(FLAGS)


def test_behind_metal_the_band_is_at_least_as_wide_as_the_metal() -> None:
    picture = _picture()
    picture[80:120, 104:122] = 1.0
    found, bands = _disturbances(picture), Bands(np.full(209, 1.5), np.full(209, 4.0))
    wider = widened(bands, found)
    np.testing.assert_allclose(wider.coronal[80:105], 18 * PIXEL, atol=3)
    np.testing.assert_allclose(wider.sagittal[80:105], 4.0 * WIDENING[METAL])
    beside = found.rows[METAL] & (found.metal_mm == 0)
    np.testing.assert_allclose(wider.coronal[beside], 1.5 * WIDENING[METAL])
    np.testing.assert_array_equal(wider.coronal[:60], bands.coronal[:60])


def test_the_rows_in_doubt_are_those_of_objects_and_steps_alone() -> None:
    rows, everywhere = np.arange(209) < 50, np.ones(209, bool)
    placed = {METAL: rows, CONTRAST: np.roll(rows, 100), COARSE: everywhere, SATURATED: everywhere}
    np.testing.assert_array_equal(Disturbances(placed, np.zeros(209)).local, rows | np.roll(rows, 100))
    assert Disturbances({METAL: everywhere}, np.zeros(209)).local.all()
    assert not Disturbances({}, np.zeros(209)).local.any()


@pytest.mark.hazard("last-digit")
def test_rows_in_doubt_widen_the_intervals_of_the_angles_by_what_they_decide() -> None:
    errors, rows = AngleErrors((0,), (5.0,), 8.0, 9.0), np.arange(209)
    spine = reconstruct(fake_curves())
    plain = measure(spine, errors=errors)

    def half_widths(disturbed: NDArray[np.bool_]) -> list[float]:
        found = measure(spine, errors=errors, disturbed=disturbed)
        assert found.max_cobb_deg == plain.max_cobb_deg
        assert (found.plane_of_maximal_curvature_deg is None) == all(disturbed)
        widths = (found.max_cobb_error_90_deg, found.kyphosis_error_90_deg, found.lordosis_error_90_deg)
        return [width for width in widths if width is not None]

    assert half_widths(rows < 0) == [5.0, 8.0, 9.0]
    few, upper, lower = (half_widths(where) for where in (abs(rows - 104) < 10, rows < 104, rows > 160))
    assert 5.0 < few[0] < upper[0] and 8.0 < few[1] < lower[1] < 8.1 < 12 < upper[1]
    assert 9.0 < few[2] < upper[2] < 9.1 < 12 < lower[2]
    range_deg = np.ptp(tilts_of(spine, levels_of(spine))[:, 0])
    nothing = [(5.0, range_deg), (8.0, plain.kyphosis_t4_t12_deg), (9.0, plain.lordosis_l1_l5_deg)]
    assert half_widths(rows >= 0) == pytest.approx([np.hypot(*pair) for pair in nothing])
    assert measure(spine, disturbed=rows < 104).max_cobb_error_90_deg is None


@pytest.fixture(scope="module", params=["bundled", "real"])
def scan(request: pytest.FixtureRequest) -> Scan:
    return read_scan(BUNDLED if request.param == "bundled" else request.getfixturevalue("real_bone"))


def test_an_undisturbed_scan_has_no_such_flag(estimator: SpineEstimator, scan: Scan) -> None:
    assert not set(estimator(scan).quality.flags) & set(FLAGS)


def test_a_scan_averaged_to_coarse_rows_is_flagged(estimator: SpineEstimator, scan: Scan) -> None:
    height = scan.pixels.shape[0] * scan.pixel_spacing_mm[0]
    count = round(height / 13)
    pixels = cv2.resize(scan.pixels, (scan.pixels.shape[1], count), interpolation=cv2.INTER_AREA)
    coarse = replace(scan, pixels=pixels, pixel_spacing_mm=(height / count, scan.pixel_spacing_mm[1]))
    result, plain = estimator(coarse), estimator(scan)
    assert COARSE in result.quality.flags
    assert result.band_90 is not None and plain.band_90 is not None
    assert result.band_90.sagittal.mean() > 1.5 * plain.band_90.sagittal.mean()


def test_a_step_in_a_scan_is_flagged(estimator: SpineEstimator, scan: Scan) -> None:
    pixels = scan.pixels.copy()
    row = pixels.shape[0] * 3 // 10
    pixels[row:] = np.roll(pixels[row:], round(25 / scan.pixel_spacing_mm[1]), axis=1)
    assert MOTION in estimator(replace(scan, pixels=pixels)).quality.flags


def test_metal_over_a_curve_widens_the_interval_of_its_angle(estimator: SpineEstimator, scan: Scan) -> None:
    plain, pixels = estimator(scan), scan.pixels.copy()
    row, column = (-plain.curves.z / scan.pixel_spacing_mm[0], plain.curves.coronal[:, 1] / scan.pixel_spacing_mm[1])
    top, middle = round(row[70]), round(column[90])
    pixels[top : top + 45, middle : middle + 12] = pixels.max()
    result = estimator(replace(scan, pixels=pixels))
    found, before = result.measurements, plain.measurements
    assert METAL in result.quality.flags
    assert found.max_cobb_error_90_deg is not None and before.max_cobb_error_90_deg is not None
    assert found.max_cobb_error_90_deg > before.max_cobb_error_90_deg + 1
    assert abs(found.max_cobb_deg - before.max_cobb_deg) <= found.max_cobb_error_90_deg
