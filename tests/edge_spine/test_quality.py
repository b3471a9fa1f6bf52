"""The verdict: an adult's curves pass, with remarks; anything else is refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_spine.bundle.bands import PopulationRange
from edge_spine.errors import Refusal
from edge_spine.measure import levels_of, measure
from edge_spine.network import CROP_SIZE, CURVE_ROWS
from edge_spine.preprocessing.prepare import Prepared
from edge_spine.quality import Quality, judge, spine_contrast
from edge_spine.reconstruct import curves_from_output, reconstruct
from edge_spine.scan import Scan
from tests.edge_spine.fake_result import no_body

PIXEL = 2.2


def _prepared(**changes: Any) -> Prepared:
    plain = Prepared(PIXEL, (120.0, 30.0), (2.4, 2.4), np.zeros((1, 3, 224, 224), np.float32), (), 0.95, no_body())
    return replace(plain, **changes)


def _verdict(
    *,
    width_mm: float = 38.0,
    depth_mm: float = 30.0,
    lean: float = 0.0,
    bow_mm: float = 25.0,
    shake_mm: float = 0.0,
    shift_px: float = 0.0,
    brightness: float = 0.4,
    one_side: float = 0.0,
    uncertain: bool = False,
    population: PopulationRange | None = None,
    **changes: Any,
) -> Quality:
    """Judge a straight (or leaning) spine with one sagittal bow, in a crop that shows it."""
    row = np.linspace(-1, 1, 209)
    rng = np.random.default_rng(0)
    centre = 112 + shift_px + lean * row + shake_mm / PIXEL * rng.standard_normal(209)
    bow = 112 + bow_mm / PIXEL * np.cos(np.pi * row)
    half, deep = width_mm / PIXEL / 2, depth_mm / PIXEL / 2
    output = np.stack([centre - half, centre, centre + half, bow - deep, bow, bow + deep], axis=1) / 224
    crop = np.full((CROP_SIZE, CROP_SIZE), 0.3, np.float32)
    column = np.arange(CROP_SIZE)
    middle = np.interp(column, CURVE_ROWS, centre)[:, np.newaxis]
    crop[column > middle] += one_side
    crop[np.abs(column - middle) < half] = 0.3 + brightness
    tensor = np.broadcast_to(crop, (1, 3, *crop.shape))
    prepared = _prepared(tensor=tensor, **changes)
    curves = curves_from_output(output.astype(np.float32).ravel(), prepared)
    spine = reconstruct(curves)
    scan = Scan(np.zeros((791, 272), np.float32), (2.4, 2.4), "test.dcm", None, ("orientation-unknown",))
    levels = replace(levels_of(spine), uncertain=uncertain)
    return judge(scan, prepared, curves, spine, measure(spine), levels, population)


def test_an_adult_spine_is_accepted_with_the_flags_of_its_scan() -> None:
    verdict = _verdict(flags=("feet-outside",))
    assert verdict == Quality(accepted=True, flags=("orientation-unknown", "feet-outside"))


@pytest.mark.hazard("no-spine")
@pytest.mark.parametrize(
    ("case", "word"),
    [
        ({"width_mm": 12.0}, "width"),
        ({"width_mm": 90.0}, "width"),
        ({"depth_mm": 9.0}, "depth"),
        ({"depth_mm": 75.0}, "depth"),
        ({"bow_mm": 90.0}, "antero-posterior"),
        ({"shake_mm": 5.0}, "roughness"),
        ({"model_pixel_mm": 0.9, "width_mm": 80.0, "depth_mm": 60.0}, "length"),
    ],
)
def test_what_is_no_adult_spine_is_refused(case: dict[str, Any], word: str) -> None:
    with pytest.raises(Refusal) as refusal:
        _verdict(**case)
    assert refusal.value.code == "implausible-curves"
    assert word in str(refusal.value)


@pytest.mark.parametrize(
    ("case", "flag"),
    [
        ({"lean": 25.0}, "trunk-leans"),
        ({"localiser_confidence": 0.85}, "low-confidence"),
        ({"shift_px": 106.0}, "spine-leaves-crop"),
        ({"brightness": 0.12}, "spine-faint"),
    ],
)
def test_remarks(case: dict[str, Any], flag: str) -> None:
    assert flag in _verdict(**case).flags
    assert flag not in _verdict().flags


@pytest.mark.hazard("no-spine")
@pytest.mark.parametrize(
    "case",
    [
        {"brightness": 0.0},
        {"brightness": 0.09},
        {"brightness": -0.3},
        # the edge of something bright is no spine
        {"brightness": 0.4, "one_side": 0.4},
    ],
)
def test_curves_that_follow_nothing_bright_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as refusal:
        _verdict(**case)
    assert refusal.value.code == "no-spine"
    assert "expected" in str(refusal.value)


@pytest.mark.hazard("no-spine")
def test_contrast_is_that_of_the_spine_with_the_brighter_side() -> None:
    # a spine of 12 pixels in columns 106 to 118, level 0.8, between levels 0.1 and 0.3
    crop = np.full((CROP_SIZE, CROP_SIZE), 0.1, np.float32)
    crop[:, 112:] = 0.3
    crop[:, 106:119] = 0.8
    columns = np.tile([106.0, 112.0, 118.0, 106.0, 112.0, 118.0], (209, 1)) / CROP_SIZE
    prepared = _prepared(tensor=np.broadcast_to(crop, (1, 3, *crop.shape)))
    assert spine_contrast(prepared, curves_from_output(columns, prepared)) == pytest.approx(0.5, abs=0.02)


@pytest.mark.hazard("no-spine")
def test_a_count_that_may_be_off_is_flagged() -> None:
    assert "levels-uncertain" in _verdict(uncertain=True).flags
    assert "levels-uncertain" not in _verdict().flags


@pytest.mark.hazard("no-spine")
def test_a_side_view_outside_the_usual_angles_is_flagged() -> None:
    rows = np.zeros(209)
    wide, narrow = (PopulationRange(rows, rows + 1, (-180.0, top), None) for top in (180.0, -170.0))
    for population, flagged in ((None, False), (PopulationRange(rows, rows + 1), False), (wide, False), (narrow, True)):
        assert ("side-view-atypical" in _verdict(population=population).flags) is flagged
