"""Measure angles and lengths of a spine.

Every angle comes from the tangent of one smooth fit of the centreline. The fit is a polynomial in z whose
degree follows the noise: Legendre polynomials up to degree 10, each degree weighted by its Bayesian
information criterion against the noise seen in degrees 11 to 30 (waves of 30 to 80 mm, shorter than any
curve of the spine). A straight line with noise is fitted as straight, and a curve without noise keeps its shape to
its ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import ArrayLike, NDArray

from edge_spine.reconstruct import Spine
from edge_spine.vertebrae import Part, fraction_of, level_at

Side = Literal["left", "right"]

# repeated scans differ by more than smaller curves; scoliosis begins at 10 degrees
MIN_CURVE_DEG = 3.0
MIN_POINTS = 8

_MAX_DEGREE = 10
_MAX_NOISE_DEGREE = 30
# above the criterion's log(209) = 5.3, since a false curve is worse than a slightly stiff fit
_DEGREE_PENALTY = 7.0
# a network's error is smoother than white noise, so the noise of 209 rows is taken as at least 0.02 mm each
_NOISE_FLOOR_MM = 0.02
_NOISE_FLOOR_POINTS = 209
# deviation from even spacing, share of half the length, below which the cached polynomials are used; moves no fit by
# a millionth of a millimetre
_EVEN = 1e-12

# of kyphosis, then of lordosis
_SAGITTAL_ENDS: tuple[tuple[str, Part], ...] = (("T4", "top"), ("T12", "bottom"), ("L1", "top"), ("L5", "bottom"))

Polynomials: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class ScoliosisCurve:
    """One lateral curve between two end vertebrae.

    Attributes
    ----------
    cobb_deg : float
        Curve-based Cobb angle: difference of the two successive extrema of the tangent angle (Bonanni, IJSS
        11(3):22).
    ferguson_deg : float
        Angle at the apex between the lines to the centres of the two ends.
    side : {"left", "right"}
        The patient's side to which the curve is convex.
    apex, upper_end, lower_end : int
        Indices into the centreline. The ends are the most tilted points, the apex the point farthest from the
        straight line between them.
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
    """A lateral curve with the names of its levels, estimated from fractions of the arc length."""

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
        Cobb angle of the largest lateral curve, 0 if none reaches `MIN_CURVE_DEG`.
    scoliosis_curves : tuple of LevelledCurve
        Largest first.
    kyphosis_t4_t12_deg : float
        Tangent at the top of T4 against the bottom of T12; positive if convex to posterior.
    lordosis_l1_l5_deg : float
        Tangent at the top of L1 against the bottom of L5; positive if convex to anterior.
    plane_of_maximal_curvature_deg : float
        Azimuth in [0, 180), from the patient's left (0, coronal) towards posterior (90, sagittal), of the
        vertical plane in which the largest lateral curve's region shows the greatest difference of tangents.
        Without a lateral curve the region is the whole spine.
    centreline_length_mm : float
        Length of the 3D centreline.
    max_lateral_deviation_mm : float
        Greatest distance, in the coronal plane, from the straight line between the ends of the centreline.
    volume_ml : float
        Volume of the reconstructed tube.
    """

    posture: str
    max_cobb_deg: float
    scoliosis_curves: tuple[LevelledCurve, ...]
    kyphosis_t4_t12_deg: float
    lordosis_l1_l5_deg: float
    plane_of_maximal_curvature_deg: float
    centreline_length_mm: float
    max_lateral_deviation_mm: float
    volume_ml: float


def scoliosis_curves(x: ArrayLike, z: ArrayLike) -> list[ScoliosisCurve]:
    """Find the lateral curves of a coronal centreline.

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
    fitted, slope = _fit(down, x_mm[:, np.newaxis])
    return _lateral_curves(down, fitted[:, 0], slope[:, 0])


def measure(spine: Spine) -> Measurements:
    """Measure a spine.

    Parameters
    ----------
    spine : Spine
        mm, LPS, from the top of T1 to the bottom of L5; at least 8 rows.

    Returns
    -------
    Measurements
        Degrees, mm and ml.

    Raises
    ------
    ValueError
        If the centreline has fewer than 8 rows or values that are not finite.
    """
    down = _descent(spine.centreline[:, 2])
    fitted, slope = _fit(down, spine.centreline[:, :2])
    fraction = _arc_fraction(down, slope)
    curves = tuple(_with_levels(curve, fraction) for curve in _lateral_curves(down, fitted[:, 0], slope[:, 0]))
    region = slice(curves[0].upper_end, curves[0].lower_end + 1) if curves else slice(None)
    sagittal_deg = np.degrees(np.arctan(slope[:, 1]))
    t4, t12, l1, l5 = np.interp([fraction_of(*end) for end in _SAGITTAL_ENDS], fraction, sagittal_deg)
    return Measurements(
        posture="supine",
        max_cobb_deg=curves[0].cobb_deg if curves else 0.0,
        scoliosis_curves=curves,
        kyphosis_t4_t12_deg=float(t4 - t12),
        lordosis_l1_l5_deg=float(l5 - l1),
        plane_of_maximal_curvature_deg=_plane_of_maximal_curvature(slope[region]),
        centreline_length_mm=spine.length_mm,
        max_lateral_deviation_mm=float(np.abs(_chord_offset(down, fitted[:, 0])).max()),
        volume_ml=spine.volume_ml,
    )


def row_levels(spine: Spine) -> tuple[str, ...]:
    """Estimate the vertebral level of each row of a spine, as `measure` does for apexes and ends.

    Raises
    ------
    ValueError
        As `measure`.
    """
    down = _descent(spine.centreline[:, 2])
    _, slope = _fit(down, spine.centreline[:, :2])
    return tuple(level_at(fraction) for fraction in _arc_fraction(down, slope).tolist())


def _descent(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance below the first point, mm."""
    if z.size < MIN_POINTS:
        raise ValueError(f"the centreline has {z.size} points; expected at least {MIN_POINTS}")
    down: NDArray[np.float64] = np.abs(z - z[0])
    if not np.all(np.diff(down) > 0):
        raise ValueError("z of a centreline must be finite and strictly monotonic, from the top down")
    return down


def _fit(down: NDArray[np.float64], columns: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smooth (N, C) columns over the descent; return them and their slopes, mm per mm of descent."""
    if not np.all(np.isfinite(columns)):
        raise ValueError("the centreline has values that are not finite numbers")
    points = down.size
    max_degree = _max_degree(points)
    t = 2 * down / down[-1] - 1
    even = np.abs(t - np.linspace(-1, 1, points)).max() < _EVEN
    orthonormal, derivatives = _even_polynomials(points) if even else _polynomials(t)
    coefficients = orthonormal.T @ columns

    energy = coefficients**2
    noise = energy[max_degree + 1 :].mean(axis=0)
    noise = np.maximum(noise, _NOISE_FLOOR_MM**2 * points / _NOISE_FLOOR_POINTS)
    explained = np.cumsum(energy[1 : max_degree + 1], axis=0)
    degrees = np.arange(1, max_degree + 1)[:, np.newaxis]
    log_evidence = (explained / noise - _DEGREE_PENALTY * degrees) / 2
    evidence = np.exp(log_evidence - log_evidence.max(axis=0))
    # each coefficient is weighted by the evidence of the degrees that include it
    belief = np.cumsum((evidence / evidence.sum(axis=0))[::-1], axis=0)[::-1]
    kept = coefficients[: max_degree + 1] * np.concatenate([np.ones_like(noise)[np.newaxis], belief])

    fitted: NDArray[np.float64] = orthonormal[:, : max_degree + 1] @ kept
    slope: NDArray[np.float64] = derivatives @ kept * (2 / down[-1])
    return fitted, slope


def _max_degree(points: int) -> int:
    return min(_MAX_DEGREE, (points - 1) // 3)


def _polynomials(t: NDArray[np.float64]) -> Polynomials:
    """Return polynomials that are orthonormal on the points `t` (-1 to 1), and the derivatives of those in the fit.

    Returns
    -------
    orthonormal : (N, noise degrees + 1) array
    derivatives : (N, fit degrees + 1) array
        By t.
    """
    kept = _max_degree(t.size) + 1
    basis = legendre.legvander(t, min(_MAX_NOISE_DEGREE, t.size - 1))
    orthonormal, triangle = np.linalg.qr(basis)
    to_series = np.linalg.solve(triangle[:kept, :kept], np.eye(kept))
    derivatives: NDArray[np.float64] = legendre.legval(t, legendre.legder(to_series)).T
    return orthonormal, derivatives


@lru_cache(maxsize=4)
def _even_polynomials(points: int) -> Polynomials:
    """Return `_polynomials` of evenly spaced points, as the rows of a network's curves are."""
    return _polynomials(np.linspace(-1, 1, points))


def _lateral_curves(
    down: NDArray[np.float64], x: NDArray[np.float64], slope: NDArray[np.float64]
) -> list[ScoliosisCurve]:
    tangent_deg = np.degrees(np.arctan(slope))
    ends = _alternating_extrema(tangent_deg, MIN_CURVE_DEG)
    curves = [_curve_between(down, x, tangent_deg, upper, lower) for upper, lower in pairwise(ends)]
    return sorted(curves, key=lambda curve: -curve.cobb_deg)


def _curve_between(
    down: NDArray[np.float64],
    x: NDArray[np.float64],
    tangent_deg: NDArray[np.float64],
    upper: int,
    lower: int,
) -> ScoliosisCurve:
    offset = _chord_offset(down[upper : lower + 1], x[upper : lower + 1])
    apex = upper + int(np.abs(offset).argmax())
    above = np.arctan2(x[apex] - x[upper], down[apex] - down[upper])
    below = np.arctan2(x[lower] - x[apex], down[lower] - down[apex])
    return ScoliosisCurve(
        cobb_deg=float(abs(tangent_deg[lower] - tangent_deg[upper])),
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


def _arc_fraction(down: NDArray[np.float64], slope: NDArray[np.float64]) -> NDArray[np.float64]:
    stretch = np.sqrt(1 + (slope**2).sum(axis=1))
    arc = np.concatenate([[0.0], np.cumsum((stretch[1:] + stretch[:-1]) / 2 * np.diff(down))])
    fraction: NDArray[np.float64] = arc / arc[-1]
    return fraction


def _with_levels(curve: ScoliosisCurve, fraction: NDArray[np.float64]) -> LevelledCurve:
    return LevelledCurve(
        **vars(curve),
        apex_level=level_at(float(fraction[curve.apex])),
        upper_end_level=level_at(float(fraction[curve.upper_end])),
        lower_end_level=level_at(float(fraction[curve.lower_end])),
    )


def _plane_of_maximal_curvature(slope: NDArray[np.float64]) -> float:
    """Return the azimuth in [0, 180) of the projection with the greatest tangent range, to 0.02 degrees."""
    best = 0.0
    for azimuths in (np.arange(0.0, 180.0), np.arange(-1.0, 1.0, 0.02)):
        candidates = best + azimuths
        direction = np.stack([np.cos(np.radians(candidates)), np.sin(np.radians(candidates))])
        # the extreme slopes have the extreme angles, so only these need an arctangent
        seen = direction.T @ slope.T
        spread = np.arctan(seen.max(axis=1)) - np.arctan(seen.min(axis=1))
        best = float(candidates[np.argmax(spread)])
    # rounded first, or -0.0000001 would become 180
    return round(best, 2) % 180.0
