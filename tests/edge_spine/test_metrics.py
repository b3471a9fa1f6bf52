from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import ArrayLike

from edge_spine.metrics import centreline_deviation, iou3d
from edge_spine.reconstruct import Spine


def column(
    *,
    x: ArrayLike = 0.0,
    y: ArrayLike = 0.0,
    width: float = 20.0,
    depth: float = 20.0,
    top: float = 0.0,
    length: float = 400.0,
    rows: int = 209,
) -> Spine:
    """A stack of ellipses of constant half-axes."""
    z = np.linspace(top, top - length, rows)
    centreline = np.stack([np.broadcast_to(x, z.shape), np.broadcast_to(y, z.shape), z], axis=1).astype(float)
    return Spine(centreline, np.full(rows, width), np.full(rows, depth))


def wavy(rows: int = 209, top: float = 0.0) -> Spine:
    z = np.linspace(top, -400, rows)
    centreline = np.stack([15 * np.sin(z / 60), 20 * np.cos(z / 90), z], axis=1)
    return Spine(centreline, 18 + 3 * np.sin(z / 100), 14 - z / 100)


def lens_iou(radius: float, distance: float) -> float:
    lens = 2 * radius**2 * np.arccos(distance / (2 * radius)) - distance / 2 * np.sqrt(4 * radius**2 - distance**2)
    return float(lens / (2 * np.pi * radius**2 - lens))


def test_equal_spines_have_iou_of_exactly_one() -> None:
    assert iou3d(wavy(), wavy()) == 1.0
    assert iou3d(column(), column()) == 1.0


@pytest.mark.parametrize("distance", [1.0, 10.0, 20.0, 35.0])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_offset_discs_share_a_lens(distance: float, axis: str) -> None:
    shifted = column(x=distance) if axis == "x" else column(y=distance)
    assert iou3d(column(), shifted) == pytest.approx(lens_iou(20.0, distance), abs=1e-3)


def test_offset_ellipses_are_discs_stretched() -> None:
    a, b = column(depth=10.0), column(x=12.0, y=8.0, depth=10.0)
    # Stretching y twofold makes discs of radius 20 at (12, 16), 20 apart.
    assert iou3d(a, b) == pytest.approx(lens_iou(20.0, 20.0), abs=1e-3)


def test_crossed_ellipses() -> None:
    # x^2/a^2 + y^2/b^2 <= 1 and its quarter turn share 4 a b arctan(b / a).
    a, b = 24.0, 12.0
    shared = 4 * a * b * np.arctan(b / a)
    expected = shared / (2 * np.pi * a * b - shared)
    assert iou3d(column(width=a, depth=b), column(width=b, depth=a)) == pytest.approx(expected, abs=1e-3)


def test_concentric_cylinders_give_the_ratio_of_areas() -> None:
    assert iou3d(column(), column(width=15.0, depth=12.0)) == pytest.approx(15 * 12 / 400, abs=1e-6)


@pytest.mark.parametrize("shift", [0.7, 40.0, 200.0])
def test_heights_that_one_spine_covers_count_to_the_union(shift: float) -> None:
    assert iou3d(column(), column(top=-shift)) == pytest.approx((400 - shift) / (400 + shift), abs=1e-6)


def test_a_shorter_spine_within_a_longer_one() -> None:
    assert iou3d(column(), column(top=-100.0, length=200.0, rows=57)) == pytest.approx(0.5, abs=1e-6)


def test_spines_apart_share_nothing() -> None:
    assert iou3d(column(), column(x=41.0)) == 0.0
    assert iou3d(column(), column(top=-500.0)) == 0.0


def test_iou_hardly_depends_on_the_rows() -> None:
    assert 0.995 < iou3d(wavy(), wavy(rows=150)) < 1.0
    assert iou3d(wavy(), column(rows=150)) == pytest.approx(iou3d(wavy(), column()), abs=1e-4)


def test_iou_is_symmetric() -> None:
    a, b = wavy(), wavy(rows=171, top=-30.0)
    assert iou3d(a, b) == pytest.approx(iou3d(b, a), abs=1e-12)


def test_deviation_of_equal_centrelines_is_zero() -> None:
    assert centreline_deviation(wavy(), wavy()) == 0.0


def test_deviation_of_a_lateral_shift_is_the_shift() -> None:
    assert centreline_deviation(column(), column(x=-3.0)) == pytest.approx(3.0)


def test_deviation_ignores_the_absolute_place_in_y() -> None:
    assert centreline_deviation(column(), column(y=25.0)) == pytest.approx(0.0, abs=1e-12)


def test_deviation_is_the_mean_of_the_3d_distance() -> None:
    # y differs by +-4 in the two halves and x by 3: 5 everywhere but at the step.
    step = np.where(np.arange(209) < 104, -4.0, 4.0)
    assert centreline_deviation(column(), column(x=3.0, y=step)) == pytest.approx(5.0, abs=0.02)
    # |y| of a tilted line, mean removed, is a triangle: a quarter of its range.
    assert centreline_deviation(column(), column(y=np.linspace(0, 40, 209))) == pytest.approx(10.0, abs=0.1)


def test_deviation_compares_equal_heights_of_different_rows() -> None:
    assert centreline_deviation(wavy(), wavy(rows=500)) < 0.02
    tilted = column(x=np.linspace(0, 40, 209))
    lower_half = column(x=np.linspace(20, 40, 60), top=-200.0, length=200.0, rows=60)
    assert centreline_deviation(tilted, lower_half) == pytest.approx(0.0, abs=1e-9)


def test_deviation_needs_a_common_height() -> None:
    with pytest.raises(ValueError, match="share no height"):
        centreline_deviation(column(), column(top=-500.0))


def test_iou_takes_less_than_30_ms() -> None:
    a, b = wavy(), wavy(top=-1.0)
    best = np.inf
    for _ in range(10):
        start = time.perf_counter()
        iou3d(a, b)
        best = min(best, time.perf_counter() - start)
    assert best < 0.03
