from __future__ import annotations

import math
from itertools import pairwise

import pytest

from edge_spine.vertebrae import LEVELS, fraction_of, level_at, level_range


def test_the_curve_runs_from_the_top_of_t1_to_the_bottom_of_l5() -> None:
    assert LEVELS[0] == "T1" and LEVELS[-1] == "L5" and len(LEVELS) == 17
    assert fraction_of("T1", "top") == 0.0
    assert fraction_of("L5", "bottom") == pytest.approx(1.0)
    assert level_at(0.0) == "T1"
    assert level_at(1.0) == "L5"


def test_levels_follow_each_other_without_gap_or_overlap() -> None:
    ranges = [level_range(level) for level in LEVELS]
    assert ranges[0][0] == 0.0 and ranges[-1][1] == 1.0
    for (start, end), (next_start, _) in pairwise(ranges):
        assert start < end == next_start


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_is_named_at_each_part_of_its_body(level: str) -> None:
    top, centre, bottom = (fraction_of(level, part) for part in ("top", "centre", "bottom"))
    assert top < centre < bottom
    assert [level_at(min(f, 1.0)) for f in (top, centre, bottom)] == [level] * 3
    start, end = level_range(level)
    assert level_at(start) == level
    assert start <= top and bottom <= end + 1e-12


def test_proportions_are_those_of_supine_ct() -> None:
    per_mm = fraction_of("T2") - fraction_of("T1")
    assert (fraction_of("L5") - fraction_of("L4")) / per_mm == pytest.approx(36.1 / 20.4)
    # 16 pitches of 435 mm, and half a body at each end: 14.1 / 2 and 22.9 / 2 mm.
    length = 435.0 + 7.05 + 11.45
    assert fraction_of("T12", "bottom") == pytest.approx((7.05 + 260.1 + 22.7 / 2) / length, abs=1e-3)
    assert fraction_of("L4") == pytest.approx((7.05 + 435.0 - 36.1) / length, abs=1e-9)
    assert fraction_of("L3") == pytest.approx((7.05 + 435.0 - 36.1 - 36.7) / length, abs=1e-9)
    assert level_at(0.30) == "T7" and level_at(0.65) == "L1"


@pytest.mark.parametrize("fraction", [-0.01, 1.01, math.nan])
def test_a_fraction_off_the_curve_is_an_error(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        level_at(fraction)


def test_unknown_names_are_errors() -> None:
    with pytest.raises(ValueError, match="C7"):
        fraction_of("C7")
    with pytest.raises(ValueError, match="S1"):
        level_range("S1")
    with pytest.raises(ValueError, match="middle"):
        fraction_of("T5", "middle")  # type: ignore[arg-type]
