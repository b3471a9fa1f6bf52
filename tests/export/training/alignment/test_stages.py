"""Alignment of masks alone: what ends, borders and outlines say, and that a different body has no weight."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from export.training.alignment.rigid import Placement, Plane
from export.training.alignment.stages import align, borders_of

PIXEL_MM = 2.2
_Z = np.arange(-900, 900, 2.0)[::-1]
_X = np.arange(-250, 250, 2.0)


def _plane(pixels: np.ndarray) -> Plane:
    return Plane(np.asarray(pixels, dtype=np.float32), (2.0, 2.0), (float(_Z[0]), float(_X[0])))


def _spine(
    bend_mm: float, wider: float = 1.0, top: float = 220.0, bottom: float = -220.0, upper_mm: float = 14.0
) -> np.ndarray:
    """A column of 440 mm, twice `upper_mm` wide at its top and 48 mm at its bottom, with one curve."""
    middle = bend_mm * np.sin((_Z - 220) / 440 * np.pi * 1.5)[:, None]
    half = wider * np.interp(-_Z, [-220, 220], [upper_mm, 24])[:, None]
    return (np.abs(_X[None] - middle) < half) & (_Z[:, None] < top) & (_Z[:, None] > bottom)


def _body(waist_mm: float, shoulders_mm: float) -> np.ndarray:
    """An outline with shoulders, waist and hips at given heights."""
    heights = [-700, -350, -250, waist_mm, shoulders_mm, shoulders_mm + 40, 500]
    half = np.interp(_Z, heights, [90, 185, 190, 140, 190, 70, 60])[:, None]
    return np.abs(_X[None]) < half


def _found(
    mri_spine: np.ndarray, scan_spine: np.ndarray, mri_body: np.ndarray, scan_body: np.ndarray
) -> tuple[float, ...]:
    """Return the errors in angle (degrees), x and z (mm) of an MRI that is turned by 4 degrees."""
    placement = Placement.about(4.0, np.zeros(2), np.array([10.0, -15.0]))
    grid = np.stack(np.meshgrid(_X, _Z), axis=-1).reshape(-1, 2)
    where = _plane(mri_body).to_pixels(placement.to_scan(grid)).astype(np.float32).reshape(len(_Z), len(_X), 2)
    body, spine = (
        cv2.remap(np.asarray(image, dtype=np.float32), where, None, cv2.INTER_LINEAR) for image in (mri_body, mri_spine)
    )
    found = align(_plane(scan_body), _plane(scan_spine), (_plane(body),), _plane(30.0 * (spine > 0.5)), PIXEL_MM).spine
    away = found.to_scan(placement.to_mri(np.zeros((1, 2))))[0]
    return abs(found.angle_deg - 4.0), abs(float(away[0])), abs(float(away[1]))


@pytest.mark.slow
@pytest.mark.parametrize("bend_mm", [0.0, 12.0, 40.0])
def test_another_outline_has_no_weight_against_the_spines(bend_mm: float) -> None:
    """Arms, breath and posture differ: waist and shoulders of the MRI lie 20 and 35 mm off."""
    angle, x, z = _found(_spine(bend_mm, 1.06), _spine(bend_mm), _body(30, 300), _body(10, 265))
    assert angle < 0.3 and x < PIXEL_MM / 2 and z < PIXEL_MM


@pytest.mark.slow
@pytest.mark.parametrize("lacking_mm", [10.0, 18.0, 26.0])
@pytest.mark.parametrize("bend_mm", [0.0, 12.0])
def test_the_same_outline_decides_where_masks_lack_an_end(bend_mm: float, lacking_mm: float) -> None:
    """What lacks is as much at both ends, so that a shift by it makes both ends coincide."""
    mri, scan = _spine(bend_mm, top=220 - lacking_mm), _spine(bend_mm, bottom=lacking_mm - 220)
    angle, x, z = _found(mri, scan, _body(10, 265), _body(10, 265))
    assert angle < 0.3 and x < PIXEL_MM / 2 and z < PIXEL_MM


@pytest.mark.slow
def test_an_outline_that_agrees_in_all_its_parts_outweighs_ends_that_coincide_by_chance() -> None:
    mri, scan = (_spine(0.0, top=top, bottom=bottom, upper_mm=24.0) for top, bottom in ((196, -220), (220, -196)))
    angle, x, z = _found(mri, scan, _body(10, 265), _body(10, 265))
    assert angle < 0.3 and x < PIXEL_MM / 2 and z < PIXEL_MM


@pytest.mark.slow
def test_a_factor_of_width_does_not_move_a_straight_spine() -> None:
    body = _body(10, 265)
    angle, x, z = _found(_spine(0.0, 1.2), _spine(0.0), body, body)
    assert angle < 0.3 and x < PIXEL_MM / 2 and z < PIXEL_MM


def test_borders_are_found_between_pixels() -> None:
    shown = np.array([[0, 0, 0, 0], [0, 0.75, 1, 0.25]], dtype=np.float32)
    borders = borders_of(shown)
    assert np.isnan(borders[0]).all()
    np.testing.assert_allclose(borders[1], [1 - 0.25 / 0.75, 2 + 0.5 / 0.75])
