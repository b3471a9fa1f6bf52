"""Measure angles and lengths of a spine.

The tilt of a vertebra is estimated, in each view, by the mean direction of the two lines from its body centre to its
neighbours' (to the top of T1 and the bottom of L5 at the ends): vertebrae tilt less than the tangent of the line
through their centres, and these chords flatten it to about the same. A Cobb angle is the difference of tilt between
the two most tilted vertebrae of a curve, kyphosis that of T4 and T12, lordosis that of L1 and L5.

The chords are taken from the smooth fit of the centreline (`edge_spine.smooth_fit`).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_spine.reconstruct import Spine
from edge_spine.smooth_fit import fit
from edge_spine.vertebrae import LEVELS, Levels, average_levels

Side = Literal["left", "right"]

# repeated scans differ by more than smaller curves; scoliosis begins at 10 degrees
MIN_CURVE_DEG = 3.0
MIN_POINTS = 8

# ends of the kyphosis and of the lordosis
KYPHOSIS, LORDOSIS = ("T4", "T12"), ("L1", "L5")


@dataclass(frozen=True)
class ScoliosisCurve:
    """One lateral curve between two end vertebrae.

    Attributes
    ----------
    cobb_deg : float
        Difference of two successive extrema of the tilt: of the vertebrae, or of the tangent where there are none
        (Bonanni, IJSS 11(3):22).
    ferguson_deg : float
        Angle at the apex between the lines to the centres of the two ends.
    side : {"left", "right"}
        The patient's side to which the curve is convex.
    apex, upper_end, lower_end : int
        Indices into the centreline. The ends are the most tilted vertebrae or points, the apex the point farthest from
        the straight line between them.
    """

    cobb_deg: float
    ferguson_deg: float
    side: Side
    apex: int
    upper_end: int
    lower_end: int

    @property
    def convex_sign(self) -> int:
        """Return the sign of x towards the convex side: 1 to the patient's left, -1 to the right."""
        return 1 if self.side == "left" else -1


@dataclass(frozen=True)
class LevelledCurve(ScoliosisCurve):
    """A lateral curve with the names of its vertebrae."""

    apex_level: str
    upper_end_level: str
    lower_end_level: str


@dataclass(frozen=True)
class Measurements:
    """Measurements of one spine; angles in degrees, lengths in mm.

    Attributes
    ----------
    posture : str
        "supine": the angles are smaller than standing ones.
    max_cobb_deg : float
        Cobb angle of the largest lateral curve; the largest difference of tilt if none reaches `MIN_CURVE_DEG`.
    max_cobb_error_90_deg, kyphosis_error_90_deg, lordosis_error_90_deg : float or None
        Half-width of the calibrated 90 % interval of the angle, wider where rows are disturbed, see `measure`; None
        without calibration.
    scoliosis_curves : tuple of LevelledCurve
        Largest first.
    kyphosis_t4_t12_deg : float
        Tilt of T4 against that of T12 in the sagittal view; positive if convex to posterior.
    lordosis_l1_l5_deg : float
        Tilt of L5 against that of L1 in the sagittal view; positive if convex to anterior.
    plane_of_maximal_curvature_deg : float or None
        Azimuth in [0, 180), from the patient's left (0, coronal) towards posterior (90, sagittal), of the
        vertical plane in which the largest lateral curve's region shows the greatest difference of tangents. None
        without a lateral curve that is larger than its error.
    centreline_length_mm : float
        Length of the 3D centreline.
    max_lateral_deviation_mm : float
        Greatest distance, in the coronal plane, from the straight line between the ends of the centreline.
    volume_ml : float
        Volume of the reconstructed tube.
    """

    posture: str
    max_cobb_deg: float
    max_cobb_error_90_deg: float | None
    scoliosis_curves: tuple[LevelledCurve, ...]
    kyphosis_t4_t12_deg: float
    kyphosis_error_90_deg: float | None
    lordosis_l1_l5_deg: float
    lordosis_error_90_deg: float | None
    plane_of_maximal_curvature_deg: float | None
    centreline_length_mm: float
    max_lateral_deviation_mm: float
    volume_ml: float


@dataclass(frozen=True)
class AngleErrors:
    """Half-widths of calibrated 90 % intervals, degrees.

    Attributes
    ----------
    cobb_from_deg : tuple of float
        Least measured Cobb angle of each class of size, the first 0.
    cobb_deg : tuple of float
        Half-width of each class.
    kyphosis_deg, lordosis_deg : float
        Of all sizes.
    """

    cobb_from_deg: tuple[float, ...]
    cobb_deg: tuple[float, ...]
    kyphosis_deg: float
    lordosis_deg: float

    def of_cobb(self, cobb_deg: float) -> float:
        """Return the half-width for a measured Cobb angle, degrees."""
        return self.cobb_deg[bisect_right(self.cobb_from_deg, cobb_deg) - 1]


def scoliosis_curves(x: ArrayLike, z: ArrayLike) -> list[ScoliosisCurve]:
    """Find the lateral curves of a coronal centreline by its tangents, where no vertebrae are known.

    Parameters
    ----------
    x : (N,) array
        mm, growing to the patient's left, from the top down; at least 8 points.
    z : (N,) array
        Heights, mm, strictly decreasing (or strictly increasing where z grows downwards).

    Returns
    -------
    list of ScoliosisCurve
        Curves of at least `MIN_CURVE_DEG`, largest first; empty for a straight or merely tilted line. Curves
        that alternate share an end vertebra.

    Raises
    ------
    ValueError
        If the shapes disagree, a value is not finite, there are too few points, or z is not monotonic.
    """
    x_mm, z_mm = np.asarray(x, dtype=np.float64), np.asarray(z, dtype=np.float64)
    if x_mm.ndim != 1 or x_mm.shape != z_mm.shape:
        raise ValueError(f"x {x_mm.shape} and z {z_mm.shape} do not match; expected (N,) and (N,)")
    down = _descent(z_mm)
    fitted, slope = fit(down, x_mm[:, np.newaxis])
    return _lateral_curves(down, fitted[:, 0], np.arange(down.size), np.degrees(np.arctan(slope[:, 0])))


def measure(
    spine: Spine,
    levels: Levels | None = None,
    errors: AngleErrors | None = None,
    disturbed: NDArray[np.bool_] | None = None,
) -> Measurements:
    """Measure a spine.

    Where rows are disturbed, the half-width of an angle's interval is the root of the sum of two squares: of the
    calibrated one, and of the change of the angle when straight lines bridge these rows (vertical ones at the ends).
    For the Cobb angle, whose ends are chosen, it is the largest change of an angle between two vertebrae.

    Parameters
    ----------
    spine : Spine
        mm, LPS, from the top of T1 to the bottom of L5; at least 8 rows.
    levels : Levels, optional
        Where its vertebrae lie; those of average proportions where they are not given.
    errors : AngleErrors, optional
        Calibration of the model that the spine is from.
    disturbed : (N,) array, optional
        True for rows whose place is in doubt; see `edge_spine.disturbance.Disturbances.local`.

    Raises
    ------
    ValueError
        If the centreline has fewer than 8 rows or values that are not finite.
    """
    heights = spine.centreline[:, 2]
    down = _descent(heights)
    fitted, slope = fit(down, spine.centreline[:, :2])
    levels = levels or levels_of(spine)
    stations = heights[0] - levels.stations
    tilts_deg = vertebra_tilts(stations, down, fitted)
    coronal_deg, sagittal_deg = tilts_deg.T
    doubt_deg = np.zeros_like(tilts_deg)
    if disturbed is not None and disturbed.any():
        kept = ~disturbed
        kept[0] |= disturbed.all()
        bridged = [np.interp(down, down[kept], places[kept]) for places in spine.centreline[:, :2].T]
        doubt_deg = tilts_deg - vertebra_tilts(stations, down, fit(down, np.stack(bridged, axis=1))[0])
    rows = np.abs(heights[:, np.newaxis] - levels.z).argmin(axis=0)
    curves = _with_levels(_lateral_curves(down, fitted[:, 0], rows, coronal_deg), heights, levels)
    largest = cobb_deg(coronal_deg)
    error = None if errors is None else math.hypot(errors.of_cobb(largest), np.ptp(doubt_deg[:, 0]))
    tilt_deg, doubt = (dict(zip(LEVELS, tilts.tolist(), strict=True)) for tilts in (sagittal_deg, doubt_deg[:, 1]))
    in_doubt = [doubt[upper] - doubt[lower] for upper, lower in (KYPHOSIS, LORDOSIS)]
    plane = None
    if curves and largest > (error or 0.0):
        plane = _plane_of_maximal_curvature(slope[curves[0].upper_end : curves[0].lower_end + 1])
    return Measurements(
        posture="supine",
        max_cobb_deg=largest,
        max_cobb_error_90_deg=error,
        scoliosis_curves=curves,
        kyphosis_t4_t12_deg=tilt_deg[KYPHOSIS[0]] - tilt_deg[KYPHOSIS[1]],
        kyphosis_error_90_deg=None if errors is None else math.hypot(errors.kyphosis_deg, in_doubt[0]),
        lordosis_l1_l5_deg=tilt_deg[LORDOSIS[1]] - tilt_deg[LORDOSIS[0]],
        lordosis_error_90_deg=None if errors is None else math.hypot(errors.lordosis_deg, in_doubt[1]),
        plane_of_maximal_curvature_deg=plane,
        centreline_length_mm=spine.length_mm,
        max_lateral_deviation_mm=float(np.abs(_chord_offset(down, fitted[:, 0])).max()),
        volume_ml=spine.volume_ml,
    )


def levels_of(spine: Spine) -> Levels:
    """Place vertebrae of average proportions on a spine from the top of T1 to the bottom of L5; errors as `measure`."""
    heights = spine.centreline[:, 2]
    down = _descent(heights)
    _, slope = fit(down, spine.centreline[:, :2])
    stretch = np.sqrt(1 + (slope**2).sum(axis=1))
    arc = np.concatenate([[0.0], np.cumsum((stretch[1:] + stretch[:-1]) / 2 * np.diff(down))])
    return average_levels(heights, arc / arc[-1])


def vertebra_tilts(
    stations: NDArray[np.float64], down: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the tilt of each vertebra in each view, degrees: (17, C).

    Parameters
    ----------
    stations : (19,) array
        Distance below the first row, mm, of the top of T1, the body centres and the bottom of L5.
    down : (N,) array
        Distance of each row below the first, mm.
    columns : (N, C) array
        Places of the centreline in each view, mm.
    """
    places = np.stack([np.interp(stations, down, column) for column in columns.T], axis=1)
    chords_deg = np.degrees(np.arctan2(np.diff(places, axis=0), np.diff(stations)[:, np.newaxis]))
    tilts: NDArray[np.float64] = (chords_deg[1:] + chords_deg[:-1]) / 2
    return tilts


def tilts_of(spine: Spine, levels: Levels) -> NDArray[np.float64]:
    """Return the tilts that `measure` compares, degrees: (17, 2), in the coronal and in the sagittal view.

    A tilt is positive where the spine descends to the patient's left, and to posterior.
    """
    heights = spine.centreline[:, 2]
    down = _descent(heights)
    return vertebra_tilts(heights[0] - levels.stations, down, fit(down, spine.centreline[:, :2])[0])


def cobb_deg(tilts_deg: NDArray[np.float64]) -> float:
    """Return the largest difference of successive extrema of tilts (N,), degrees; their range below `MIN_CURVE_DEG`."""
    ends = _alternating_extrema(tilts_deg, MIN_CURVE_DEG)
    differences = (abs(float(tilts_deg[b] - tilts_deg[a])) for a, b in pairwise(ends))
    return max(differences, default=float(np.ptp(tilts_deg)))


def _descent(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance below the first point, mm."""
    if z.size < MIN_POINTS:
        raise ValueError(f"the centreline has {z.size} points; expected at least {MIN_POINTS}")
    down: NDArray[np.float64] = np.abs(z - z[0])
    if not np.all(np.diff(down) > 0):
        raise ValueError("z of a centreline must be finite and strictly monotonic, from the top down")
    return down


def _lateral_curves(
    down: NDArray[np.float64], x: NDArray[np.float64], rows: NDArray[np.intp], tilt_deg: NDArray[np.float64]
) -> list[ScoliosisCurve]:
    """Return the curves between extrema of the tilts (K,) that were taken at `rows` (K,) of a centreline (N,)."""
    ends = _alternating_extrema(tilt_deg, MIN_CURVE_DEG)
    curves = [
        _curve_between(down, x, abs(float(tilt_deg[b] - tilt_deg[a])), int(rows[a]), int(rows[b]))
        for a, b in pairwise(ends)
    ]
    return sorted(curves, key=lambda curve: -curve.cobb_deg)


def _curve_between(
    down: NDArray[np.float64], x: NDArray[np.float64], cobb: float, upper: int, lower: int
) -> ScoliosisCurve:
    offset = _chord_offset(down[upper : lower + 1], x[upper : lower + 1])
    apex = upper + int(np.abs(offset).argmax())
    above = np.arctan2(x[apex] - x[upper], down[apex] - down[upper])
    below = np.arctan2(x[lower] - x[apex], down[lower] - down[apex])
    return ScoliosisCurve(
        cobb_deg=cobb,
        ferguson_deg=float(abs(np.degrees(below - above))),
        side="right" if offset[apex - upper] < 0 else "left",
        apex=apex,
        upper_end=upper,
        lower_end=lower,
    )


def _alternating_extrema(values: NDArray[np.float64], least: float) -> list[int]:
    """Find alternating maxima and minima, ends included, each at least `least` from the one before."""
    extrema: list[int] = []
    highest = lowest = 0
    rising: bool | None = None
    # single numbers of a list are read ten times as fast as those of an array
    listed = values.tolist()
    for index, value in enumerate(listed):
        if value > listed[highest]:
            highest = index
        if value < listed[lowest]:
            lowest = index
        if rising is not False and listed[highest] - value >= least:
            extrema.append(highest)
            rising, lowest = False, index
        elif rising is not True and value - listed[lowest] >= least:
            extrema.append(lowest)
            rising, highest = True, index
    if rising is not None:
        extrema.append(highest if rising else lowest)
    return extrema


def _chord_offset(down: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the signed perpendicular distance from the line between the first and the last point."""
    rise, run = x[-1] - x[0], down[-1] - down[0]
    offset: NDArray[np.float64] = ((x - x[0]) * run - (down - down[0]) * rise) / np.hypot(rise, run)
    return offset


def _with_levels(
    curves: list[ScoliosisCurve], heights: NDArray[np.float64], levels: Levels
) -> tuple[LevelledCurve, ...]:
    rows = [row for curve in curves for row in (curve.apex, curve.upper_end, curve.lower_end)]
    named = levels.names_at(heights[rows]) if rows else ()
    return tuple(LevelledCurve(*vars(c).values(), *named[3 * n : 3 * n + 3]) for n, c in enumerate(curves))


def _plane_of_maximal_curvature(slope: NDArray[np.float64]) -> float:
    """Return the azimuth in [0, 180) of the projection with the greatest tangent range, to 0.02 degrees."""
    best = 0.0
    for azimuths in (np.arange(0.0, 180.0), np.arange(-1.0, 1.0, 0.02)):
        candidates = best + azimuths
        angle = np.radians(candidates)
        # the extreme slopes have the extreme angles, so only these need an arctangent
        seen = np.stack([np.cos(angle), np.sin(angle)], axis=1) @ slope.T
        spread = np.arctan(seen.max(axis=1)) - np.arctan(seen.min(axis=1))
        best = float(candidates[np.argmax(spread)])
    # rounded first, or -0.0000001 would become 180
    return round(best, 2) % 180.0
