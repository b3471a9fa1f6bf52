from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_spine.measure import (
    MIN_CURVE_DEG,
    AngleErrors,
    cobb_deg,
    levels_of,
    measure,
    scoliosis_curves,
    tilts_of,
    vertebra_tilts,
)
from edge_spine.reconstruct import Spine
from edge_spine.vertebrae import LEVELS, Levels

Array = NDArray[np.float64]

ROWS = 209
LENGTH = 460.0
DOWN = np.linspace(0, LENGTH, ROWS)
Z = -DOWN


def sine(cobb_deg: float, halves: int, down: Array = DOWN) -> Array:
    """`halves` half-waves, each with the given Cobb angle; the first bends to larger x."""
    wave = halves * np.pi / LENGTH
    return np.tan(np.radians(cobb_deg / 2)) / wave * np.sin(wave * down)


def arc(cobb_deg: float) -> Array:
    """A circle's arc about the middle, convex to larger x."""
    radius = LENGTH / 2 / np.sin(np.radians(cobb_deg / 2))
    return np.sqrt(radius**2 - (DOWN - LENGTH / 2) ** 2)


def spine_of(x: Array, y: Array, z: Array = Z) -> Spine:
    return Spine(np.stack([x, y, z], axis=1), np.full(z.size, 18.0), np.full(z.size, 14.0))


# One curve


@pytest.mark.parametrize("cobb", [4.0, 10.0, 25.0, 45.0, 60.0])
def test_half_sine(cobb: float) -> None:
    (curve,) = scoliosis_curves(sine(cobb, 1), Z)
    assert curve.cobb_deg == pytest.approx(cobb, abs=0.3)
    amplitude = sine(cobb, 1).max()
    assert curve.ferguson_deg == pytest.approx(2 * np.degrees(np.arctan(amplitude / (LENGTH / 2))), abs=0.4)
    assert curve.apex == pytest.approx(104, abs=1)
    assert curve.upper_end <= 12 and curve.lower_end >= 196


@pytest.mark.parametrize("cobb", [10.0, 30.0, 60.0])
def test_arc_of_a_circle_has_half_its_cobb_angle_at_the_apex(cobb: float) -> None:
    (curve,) = scoliosis_curves(arc(cobb), Z)
    assert curve.cobb_deg == pytest.approx(cobb, abs=0.1)
    assert curve.ferguson_deg == pytest.approx(cobb / 2, abs=0.1)
    assert (curve.upper_end, curve.apex, curve.lower_end) == (0, pytest.approx(104, abs=1), ROWS - 1)


def test_side_is_the_patients() -> None:
    (left,) = scoliosis_curves(arc(20), Z)
    (right,) = scoliosis_curves(-arc(20), Z)
    assert left.side == "left"  # bulges to larger x, the patient's left
    assert right.side == "right"
    assert right.cobb_deg == pytest.approx(left.cobb_deg)


def test_tilt_and_place_change_neither_angle_nor_apex() -> None:
    turn = np.radians(8)
    x, z = arc(30), Z
    (upright,) = scoliosis_curves(x, z)
    (tilted,) = scoliosis_curves(500 + x * np.cos(turn) - z * np.sin(turn), -900 + x * np.sin(turn) + z * np.cos(turn))
    assert tilted.cobb_deg == pytest.approx(upright.cobb_deg, abs=0.3)
    assert tilted.ferguson_deg == pytest.approx(upright.ferguson_deg, abs=0.3)
    assert abs(tilted.apex - upright.apex) <= 1
    assert tilted.side == upright.side


@pytest.mark.parametrize("tilt_deg", [0.0, 2.0, -15.0])
def test_a_straight_line_has_no_curve_however_tilted(tilt_deg: float) -> None:
    assert scoliosis_curves(DOWN * np.tan(np.radians(tilt_deg)), Z) == []


def test_only_curves_above_the_least_angle_are_listed() -> None:
    assert scoliosis_curves(arc(MIN_CURVE_DEG - 0.3), Z) == []
    assert len(scoliosis_curves(arc(MIN_CURVE_DEG + 0.3), Z)) == 1


# Several curves


def test_s_curve_has_two_curves_that_share_an_end() -> None:
    curves = sorted(scoliosis_curves(sine(30, 2), Z), key=lambda c: c.apex)
    assert [c.side for c in curves] == ["left", "right"]
    assert [c.cobb_deg for c in curves] == pytest.approx([30, 30], abs=0.3)
    assert [c.apex for c in curves] == pytest.approx([52, 156], abs=1)
    assert curves[0].lower_end == curves[1].upper_end == pytest.approx(104, abs=1)


def test_triple_curve() -> None:
    curves = scoliosis_curves(sine(25, 3), Z)
    assert len(curves) == 3
    assert [c.cobb_deg for c in curves] == pytest.approx([25] * 3, abs=1)
    assert [c.side for c in sorted(curves, key=lambda c: c.apex)] == ["left", "right", "left"]


def test_largest_curve_comes_first() -> None:
    # A growing wave: the tangent runs through +a, -b, +c each steeper than the last.
    tangent = np.radians((5 + 20 * DOWN / LENGTH) * np.cos(2 * np.pi * DOWN / LENGTH))
    slope = np.tan(tangent)
    x = np.concatenate([[0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(DOWN))])
    curves = scoliosis_curves(x, Z)
    extrema = np.degrees([tangent[:60].max(), tangent.min(), tangent[-1]])
    assert [c.cobb_deg for c in curves] == pytest.approx([extrema[2] - extrema[1], extrema[0] - extrema[1]], abs=0.5)
    assert [c.side for c in curves] == ["right", "left"]


# Input of other shapes


@pytest.mark.parametrize("points", [17, 60, 1000])
def test_any_number_of_points(points: int) -> None:
    down = np.linspace(0, LENGTH, points)
    (curve,) = scoliosis_curves(sine(30, 1, down), -down)
    assert curve.cobb_deg == pytest.approx(30, abs=0.5)
    assert curve.apex == pytest.approx((points - 1) / 2, abs=points / 100 + 1)


def test_uneven_rows_give_the_same_angle() -> None:
    down = LENGTH * np.linspace(0, 1, ROWS) ** 1.5
    curves = scoliosis_curves(sine(30, 2, down), -down)
    assert [c.cobb_deg for c in curves] == pytest.approx([30, 30], abs=0.5)


def test_points_go_top_to_bottom_even_where_z_grows_downwards() -> None:
    assert scoliosis_curves(sine(30, 2), DOWN) == scoliosis_curves(sine(30, 2), Z)


@pytest.mark.parametrize(
    ("x", "z", "message"),
    [
        (np.zeros(20), np.zeros(19), "do not match"),
        (np.zeros((20, 2)), np.zeros((20, 2)), "do not match"),
        (np.zeros(7), -np.arange(7.0), "at least 8"),
        (np.full(20, np.nan), -np.arange(20.0), "finite"),
        (np.zeros(20), np.full(20, np.nan), "finite"),
        (np.zeros(20), np.zeros(20), "monotonic"),
        (np.zeros(20), -np.abs(np.arange(20.0) - 9), "monotonic"),
    ],
)
def test_bad_input_is_an_error(x: Array, z: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scoliosis_curves(x, z)


# A whole spine


def sagittal_from_tangent(tangent_deg: Callable[[Array], Array]) -> tuple[Array, Array]:
    """y and z at even heights of a curve whose tangent is given over the fraction of its arc length."""
    arc_length = np.linspace(0, LENGTH, 20001)
    tangent = np.radians(tangent_deg(arc_length / LENGTH))
    step = arc_length[1]
    y = np.concatenate([[0], np.cumsum(np.sin((tangent[1:] + tangent[:-1]) / 2)) * step])
    down = np.concatenate([[0], np.cumsum(np.cos((tangent[1:] + tangent[:-1]) / 2)) * step])
    rows = np.linspace(0, down[-1], ROWS)
    y_rows = np.interp(rows, down, y)
    return y_rows - y_rows.mean(), -rows


def healthy_tangent(fraction: Array) -> Array:
    return np.asarray(6 + 19 * np.cos(1.55 * np.pi * fraction))


def chord_tilts(tangent: Callable[[Array], Array], shares: Array) -> Array:
    """Tilts of vertebrae at shares of the arc: the mean direction of the chords to the next ones, degrees."""
    fine = np.linspace(0, 1, 20001)
    radians = np.radians(tangent(fine))
    across, down = (np.concatenate([[0], np.cumsum(f(radians))[:-1]]) for f in (np.sin, np.cos))
    places = np.stack([np.interp(shares, fine, values) for values in (across, down)])
    chords = np.degrees(np.arctan2(*np.diff(places)))
    return np.asarray((chords[1:] + chords[:-1]) / 2)


def test_kyphosis_and_lordosis_are_between_the_tilts_of_their_vertebrae() -> None:
    y, z = sagittal_from_tangent(healthy_tangent)
    spine = spine_of(np.zeros(ROWS), y, z)
    stations = levels_of(spine).stations
    steps = np.hypot(np.diff(y), np.diff(z))
    share = np.interp(-stations, -z, np.concatenate([[0], np.cumsum(steps)]) / steps.sum())
    tilt = dict(zip(LEVELS, chord_tilts(healthy_tangent, share), strict=True))
    measured = measure(spine)
    assert measured.kyphosis_t4_t12_deg == pytest.approx(tilt["T4"] - tilt["T12"], abs=0.3) and tilt["T4"] > 15
    assert measured.lordosis_l1_l5_deg == pytest.approx(tilt["L5"] - tilt["L1"], abs=0.5)


def test_angles_follow_the_levels_that_were_found() -> None:
    y, z = sagittal_from_tangent(healthy_tangent)
    spine = spine_of(np.zeros(ROWS), y, z)
    found = levels_of(spine)
    # one level higher: lordosis is then that between T12 and L4
    higher = Levels(np.concatenate([[found.z[0] + 10], found.z[:-1]]), found.top + 20, found.bottom)
    tilt = vertebra_tilts(-higher.stations, -z, np.stack([y], axis=1))[:, 0]
    assert measure(spine, found) == measure(spine)
    assert measure(spine, higher).lordosis_l1_l5_deg == pytest.approx(tilt[16] - tilt[12], abs=0.1)
    assert abs(measure(spine, higher).lordosis_l1_l5_deg - measure(spine).lordosis_l1_l5_deg) > 2


def test_a_vertebra_tilts_as_the_chords_to_its_neighbours() -> None:
    down = np.linspace(0, 400, 401)
    stations = np.linspace(0, 400, 19)
    line = np.stack([0.1 * down, np.zeros(401)], axis=1)
    assert vertebra_tilts(stations, down, line) == pytest.approx(
        np.broadcast_to([np.degrees(np.arctan(0.1)), 0.0], (17, 2)), abs=1e-9
    )
    # a sideways step between two vertebrae tilts only these two
    step = np.where(down[:, np.newaxis] > 210, [5.0, 0.0], 0.0)
    tilts = vertebra_tilts(stations, down, step)[:, 0]
    assert np.flatnonzero(np.abs(tilts) > 1e-9).tolist() == [8, 9]


def test_cobb_is_between_extrema_of_the_tilt() -> None:
    tilts = np.concatenate([np.linspace(0, 12, 6), np.linspace(12, -8, 6), np.linspace(-8, 1, 5)])
    assert cobb_deg(tilts) == pytest.approx(20)
    assert cobb_deg(np.linspace(0, MIN_CURVE_DEG - 0.1, 17)) == pytest.approx(MIN_CURVE_DEG - 0.1)


def test_the_ends_of_a_curve_are_vertebrae() -> None:
    spine = spine_of(sine(35, 2), np.zeros(ROWS))
    measured, found = measure(spine), levels_of(spine)
    for curve in measured.scoliosis_curves:
        for row, name in ((curve.upper_end, curve.upper_end_level), (curve.lower_end, curve.lower_end_level)):
            assert abs(Z[row] - found.z[LEVELS.index(name)]) < LENGTH / (ROWS - 1)


def test_errors_are_those_of_the_angle_and_its_size() -> None:
    errors = AngleErrors((0, 10, 25), (3.0, 4.0, 6.0), 8.0, 9.0)
    assert [errors.of_cobb(angle) for angle in (0, 9.9, 10, 24, 60)] == [3, 3, 4, 4, 6]
    spine = spine_of(sine(40, 1), np.zeros(ROWS))
    measured, plain = measure(spine, errors=errors), measure(spine)
    assert (measured.max_cobb_error_90_deg, plain.max_cobb_error_90_deg) == (6.0, None)
    assert (measured.kyphosis_error_90_deg, measured.lordosis_error_90_deg) == (8.0, 9.0)


def test_no_plane_of_a_curve_that_is_smaller_than_its_error() -> None:
    spine = spine_of(sine(20, 1), np.zeros(ROWS))
    cobb = measure(spine).max_cobb_deg
    planes = [
        measure(spine, errors=AngleErrors((0,), (error,), 8.0, 9.0)).plane_of_maximal_curvature_deg
        for error in (cobb - 1, cobb + 1)
    ]
    assert planes == [pytest.approx(0, abs=0.5), None] or planes == [pytest.approx(180, abs=0.5), None]


def test_normal_sagittal_curves_are_positive_and_mirrored_ones_negative() -> None:
    # Thorax convex to posterior (larger y), lumbar spine convex to anterior.
    y = 25 * np.sin(2 * np.pi * (DOWN - 40) / LENGTH)
    normal, mirrored = measure(spine_of(np.zeros(ROWS), y)), measure(spine_of(np.zeros(ROWS), -y))
    assert normal.kyphosis_t4_t12_deg > 15 and normal.lordosis_l1_l5_deg > 15
    assert mirrored.kyphosis_t4_t12_deg == pytest.approx(-normal.kyphosis_t4_t12_deg)
    assert mirrored.lordosis_l1_l5_deg == pytest.approx(-normal.lordosis_l1_l5_deg)


def test_sagittal_noise_moves_kyphosis_little() -> None:
    rng = np.random.default_rng(10)
    y, z = sagittal_from_tangent(healthy_tangent)
    clean = measure(spine_of(np.zeros(ROWS), y, z))
    noisy = [measure(spine_of(np.zeros(ROWS), y + rng.normal(0, 0.4, ROWS), z)) for _ in range(60)]
    assert np.std([m.kyphosis_t4_t12_deg - clean.kyphosis_t4_t12_deg for m in noisy]) < 0.5
    assert np.std([m.lordosis_l1_l5_deg - clean.lordosis_l1_l5_deg for m in noisy]) < 2.0


@pytest.mark.parametrize("azimuth", [0.0, 20.0, 45.0, 70.0, 110.0, 150.0, 179.0])
@pytest.mark.parametrize("halves", [1, 2])
def test_plane_of_a_planar_curve_turned_about_the_vertical(azimuth: float, halves: int) -> None:
    bend, turn = sine(40, halves), np.radians(azimuth)
    measured = measure(spine_of(bend * np.cos(turn), bend * np.sin(turn)))
    assert measured.plane_of_maximal_curvature_deg is not None
    difference = (measured.plane_of_maximal_curvature_deg - azimuth + 90) % 180 - 90
    assert abs(difference) < 0.5
    assert 0 <= measured.plane_of_maximal_curvature_deg < 180


def test_there_is_no_plane_without_a_lateral_curve() -> None:
    y, z = sagittal_from_tangent(healthy_tangent)
    assert measure(spine_of(np.zeros(ROWS), y, z)).plane_of_maximal_curvature_deg is None


def test_plane_belongs_to_the_region_of_the_largest_curve() -> None:
    # Below, a bend of 25 degrees in the plane of 30; above, a greater one that is purely sagittal.
    turn = np.radians(30)
    lower = 22 * np.exp(-(((DOWN - 320) / 70) ** 2))
    upper = 60 * np.exp(-(((DOWN - 90) / 70) ** 2))
    measured = measure(spine_of(lower * np.cos(turn), lower * np.sin(turn) + upper))
    assert measured.plane_of_maximal_curvature_deg == pytest.approx(30, abs=3)


def test_measurements_of_a_whole_spine() -> None:
    y, z = sagittal_from_tangent(healthy_tangent)
    x = -25 * np.exp(-(((z + 150) / 80) ** 2))
    spine = spine_of(x, y, z)
    measured = measure(spine)
    main = measured.scoliosis_curves[0]
    alone = scoliosis_curves(x, z)
    assert measured.posture == "supine"
    assert len(alone) == len(measured.scoliosis_curves) == 3
    # Steepest at 80 / sqrt(2) mm from the apex: slope 25 / 80 * sqrt(2) * exp(-1/2).
    assert alone[0].cobb_deg == pytest.approx(2 * np.degrees(np.arctan(25 / 80 * np.sqrt(2 / np.e))), abs=1)
    # Vertebrae tilt less than the steepest tangents.
    assert 0.9 * alone[0].cobb_deg < measured.max_cobb_deg == main.cobb_deg < alone[0].cobb_deg
    assert main.side == "right"
    assert measured.centreline_length_mm == spine.length_mm == pytest.approx(LENGTH, rel=0.02)
    assert measured.volume_ml == spine.volume_ml
    assert measured.max_lateral_deviation_mm == pytest.approx(25, abs=1)


def test_levels_of_a_curve_are_named_by_arc_length() -> None:
    # Apex 160 mm down 460 mm, ends 46 mm above and below it, where T6 and T10 are.
    x = 20 * np.exp(-(((DOWN - 160) / 65) ** 2))
    main = measure(spine_of(x, np.zeros(ROWS))).scoliosis_curves[0]
    assert (main.upper_end_level, main.apex_level, main.lower_end_level) == ("T6", "T8", "T10")


def test_levels_follow_the_arc_and_not_the_height() -> None:
    # Leaning 45 degrees in its upper half, the curve passes T9 where a plumb one passes T8.
    lean = 60 * np.log(np.cosh((DOWN - LENGTH / 2) / 60)) / 2 - DOWN / 2
    x = 20 * np.exp(-(((DOWN - 160) / 75) ** 2))
    plumb, leaning = (measure(spine_of(x, y)).scoliosis_curves[0] for y in (0 * DOWN, lean))
    assert abs(plumb.apex - leaning.apex) <= 1
    assert (plumb.apex_level, leaning.apex_level) == ("T8", "T9")


def test_lateral_deviation_is_from_the_line_between_the_ends() -> None:
    x = sine(20, 1)
    assert measure(spine_of(x, np.zeros(ROWS))).max_lateral_deviation_mm == pytest.approx(x.max(), abs=0.1)
    tilted = measure(spine_of(DOWN * 0.1, np.zeros(ROWS)))
    assert tilted.max_lateral_deviation_mm == pytest.approx(0, abs=1e-6)
    assert tilted.max_cobb_deg == pytest.approx(0, abs=1e-6) and tilted.scoliosis_curves == ()


def test_angles_are_differences_of_the_tilts() -> None:
    spine = spine_of(sine(20, 2), sine(30, 1))
    levels, measured = levels_of(spine), measure(spine)
    coronal, sagittal = tilts_of(spine, levels).T
    assert measured.max_cobb_deg == cobb_deg(coronal)
    assert measured.kyphosis_t4_t12_deg == pytest.approx(sagittal[3] - sagittal[11])
    small = spine_of(sine(0.5, 1), np.zeros(ROWS))
    assert not measure(small).scoliosis_curves
    assert measure(small).max_cobb_deg == pytest.approx(np.ptp(tilts_of(small, levels_of(small))[:, 0]))
    assert 0.3 < measure(small).max_cobb_deg < MIN_CURVE_DEG


def test_measuring_takes_less_than_5_ms() -> None:
    spine = spine_of(sine(30, 2), sine(40, 2))
    best = np.inf
    for _ in range(20):
        start = time.perf_counter()
        measure(spine)
        best = min(best, time.perf_counter() - start)
    assert best < 0.005


def test_rows_that_are_almost_even_give_what_even_rows_give() -> None:
    # even rows share their polynomials; a thousandth of a millimetre off, they get their own
    z = -2.2 * np.arange(209.0)
    x = 12 * np.sin(z / 70) + 0.05 * np.random.default_rng(0).standard_normal(209)
    bent = z.copy()
    bent[100] += 1e-3
    even, own = scoliosis_curves(x, z), scoliosis_curves(x, bent)
    assert [(curve.apex, curve.side) for curve in even] == [(curve.apex, curve.side) for curve in own]
    for one, other in zip(even, own, strict=True):
        assert one.cobb_deg == pytest.approx(other.cobb_deg, abs=0.01)
        assert one.cobb_deg != other.cobb_deg
