"""The shape of a supine adult's spine, drawn at random.

Sagittal tangents follow the mean and correlation measured on supine CT (17 adults, body centres T1 to L5) at 1.2 times
the measured spread. Coronal tangents follow the spread, correlation and waves measured on 481 standing films of people
with scoliosis at 0.8 of their size, the ratio of supine to standing curves. A tangent is the direction from one body
centre to the next. Axial rotation goes with the coronal curve: about 0.28 degrees per degree of Cobb in the thoracic
spine and 0.17 in the lumbar, supine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.interpolate import CubicSpline

from edge_spine import vertebrae as levels

Array = NDArray[np.float64]

LEVELS = ("C3", "C4", "C5", "C6", "C7", *levels.LEVELS, "S1", "S2", "S3", "S4", "S5")
FIRST_THORACIC, LAST_LUMBAR = LEVELS.index("T1"), LEVELS.index("L5")

# centre to centre along the arc, mm, from each level to the next
_PITCH = np.concatenate([[15.5, 15.5, 16.0, 17.0, 18.5], levels.CENTRE_PITCH_MM, [32.0, 26.0, 23.0, 20.0, 17.0, 15.0]])
# disc below each level, mm (T12's lies above L1)
_DISC = np.array(
    [4.5, 4.5, 4.5, 5.0, 5.0]
    + [4.2, 4.2, 4.2, 4.2, 4.2, 4.5, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0]
    + [9.0, 10.0, 11.0, 12.0, 11.0]
    + [1.5, 1.0, 1.0, 1.0, 1.0]
)
# body width as it shows on a whole-body bone image, and depth, mm
_WIDTH = np.array(
    [19.0, 20.0, 21.0, 23.0, 25.0]
    + [27.0, 27.0, 27.0, 28.0, 29.0, 30.0, 31.0, 33.0, 34.5, 36.0, 38.0, 40.0]
    + [41.5, 43.0, 45.0, 47.0, 48.5]
    + [50.0, 44.0, 38.0, 32.0, 26.0]
)
_DEPTH = np.array(
    [16.0, 16.0, 16.5, 17.0, 18.0]
    + [19.0, 21.0, 23.0, 24.0, 25.0, 26.0, 28.0, 29.0, 30.0, 31.0, 32.0, 33.0]
    + [34.5, 35.0, 35.0, 35.0, 34.0]
    + [30.0, 24.0, 19.0, 15.0, 12.0]
)
# tangents of T1-2 ... L4-5, degrees: positive goes posterior on the way down
_SAGITTAL = np.array(
    [24.4, 22.9, 19.2, 13.9, 8.0, 2.1, -3.1, -7.2, -10.1, -11.6, -11.9, -11.4, -10.3, -8.3, -2.6, 14.3]
)
_SAGITTAL_SD = np.array([9.4, 6.8, 5.4, 4.8, 4.7, 4.9, 4.9, 4.8, 4.6, 4.3, 4.0, 4.2, 5.0, 5.8, 7.3, 9.8])
SAGITTAL_SPREAD = 1.2
_CERVICAL = np.array([3.0, 7.0, 12.0, 17.0, 22.0])
_SACRAL = np.array([31.0, 48.0, 55.0, 52.0, 40.0, 25.0])


# Coronal figures of standing films in classes of these median Cobb angles, degrees, and the supine share of them.
SUPINE = 0.8
_CLASS_COBB = (17.0, 35.0, 58.0)
# A film's Cobb angle lies between vertebrae, which tilt less than the line: the line's tangents swing more.
SWING_OVER_COBB = 1.16
# SD of the common tilt of the films' tangents, degrees
_FILM_TILT_SD = 2.65
# SD of the tangents T1-2 ... L4-5 by class, degrees
_CORONAL_SD = np.array(
    [
        [6.2, 6.7, 6.6, 5.9, 6.2, 5.7, 5.2, 4.9, 5.2, 6.8, 7.2, 7.0, 6.3, 7.1, 8.4, 9.8],
        [8.2, 9.0, 9.2, 8.7, 9.5, 10.9, 9.2, 8.6, 9.9, 11.2, 10.8, 9.7, 10.7, 13.2, 13.4, 11.7],
        [12.8, 15.6, 17.7, 18.9, 19.1, 19.5, 18.0, 17.5, 19.7, 20.8, 19.0, 18.0, 19.9, 23.7, 21.4, 18.3],
    ]
)
# RMS of the tangents' short waves by class, degrees, for half-waves 4, 5, ... 15 over T1-L5
_SHORT_RMS = np.array(
    [
        [2.1, 1.4, 1.2, 1.05, 0.95, 0.9, 0.75, 0.7, 0.7, 0.6, 0.55, 0.6],
        [2.95, 2.3, 1.4, 1.0, 0.95, 1.0, 0.7, 0.75, 0.7, 0.65, 1.0, 1.0],
        [4.6, 2.9, 1.9, 1.4, 1.2, 1.15, 0.95, 0.75, 0.75, 0.9, 0.95, 0.65],
    ]
)
# mean amplitude of one and of three half-waves by class, degrees RMS: most curves are right thoracic, left lumbar
_MEAN_WAVES = np.array([[0.0, 2.0], [0.0, 6.3], [-6.0, 9.5]])
_FIRST_SHORT = 4
_LANDMARK_NOISE_DEG = 1.0
# candidates from which the curve nearest to the wanted Cobb angle is taken
_CANDIDATES = 24
# share of the line's coronal tangent by which a vertebra tilts, and what is left at Cobb angles near 40, degrees
TILT_SHARE = 0.82
_TILT_RESIDUAL_SD = SUPINE * np.sqrt(
    np.array([3.0, 3.2, 3.4, 3.4, 3.4, 3.9, 3.6, 2.8, 2.5, 2.6, 2.7, 2.8, 3.2, 3.6, 3.2, 3.7, 4.8]) ** 2
    - _LANDMARK_NOISE_DEG**2
)
# a guess: no such figure is published
_SAGITTAL_RESIDUAL_SD = 1.5
_RESIDUAL_GROWTH = ([8.0, 45.0], [0.5, 1.2])
# short waves 4, 5, ... of a straight spine against those of the films' straightest class, a guess
_CALM_SHORT = np.interp(np.arange(4, 16), [6, 10], [0.95, 0.5])
# half-waves that a Cobb angle sees
_READ_WAVES = 9
_STEEPEST_DEG = 63.0
_SEGMENTS = LAST_LUMBAR - FIRST_THORACIC


def sagittal_correlation() -> Array:
    """Return the (16, 16) correlation of the sagittal tangents T1-2 to L4-5.

    A cosine of half-period ten segments under slow decay, on a level axis that runs faster in the lumbar spine: it
    gives the measured 0.84-0.96 between neighbours, 0.3-0.5 four levels apart in the upper half, about -0.2 in the
    lower, and about -0.76 between T6-7 and L3-4.
    """
    place = np.cumsum(np.where(np.arange(16) < 10, 0.85, 1.45))
    apart = place[:, None] - place[None, :]
    slow = np.exp(-(apart**2) / (2 * 12.0**2)) * np.cos(np.pi * apart / 10.0)
    quick = np.exp(-(apart**2) / (2 * 2.0**2))
    return 0.92 * slow + 0.08 * quick


def coronal_correlation() -> Array:
    """Return the (16, 16) correlation of the coronal tangents T1-2 to L4-5, before waves get their sizes.

    A decaying cosine with a half-period of 7.9 segments, on a level axis that runs fastest at mid-spine, plus a part
    that each segment has to itself. Fitted so that the films' correlation comes out, off by 0.06 on average, once the
    spread, the waves' sizes and the common tilt are the films' too.
    """
    place = np.cumsum(np.exp(np.interp(np.arange(_SEGMENTS), [0, 7.5, 15], [-1.82, 0.14, -0.64])))
    place = (place - place[0]) / (place[-1] - place[0]) * 15
    apart = place[:, None] - place[None, :]
    waves = np.exp(-(apart**2) / (2 * 14.3**2)) * np.cos(np.pi * apart / 7.9)
    return (waves + 0.27 * np.eye(_SEGMENTS)) / 1.27


def half_waves(tangents: Array) -> Array:
    """Split tangents T1-2 to L4-5 into half-waves.

    Parameters
    ----------
    tangents : (..., 16) array
        Degrees.

    Returns
    -------
    (..., 16) array
        Degrees: coefficients of the DCT-II, scaled so that their squares add up to the mean square of the tangents.
        Number k belongs to cos(pi k x), x from 0 to 1 over the segments.
    """
    waves: Array = dct(tangents, axis=-1, norm="ortho") / np.sqrt(tangents.shape[-1])
    return waves


@dataclass(frozen=True)
class Build:
    """Size of a person's vertebrae and discs at each level of `LEVELS`, each (27,), mm but for `wear`.

    Attributes
    ----------
    pitch : array
        Distance from each body centre to the next.
    disc : array
        Height of the disc below each level.
    width, depth : array
        Body size.
    wear : array
        Degeneration of the disc below each level, 0 to 1.
    """

    pitch: Array
    disc: Array
    width: Array
    depth: Array
    wear: Array

    @property
    def height(self) -> Array:
        """Height of each body, (27,) mm: what the discs leave of the pitches above and below."""
        body = self.pitch - self.disc
        return np.concatenate([body[:1], (body[1:] + body[:-1]) / 2])

    def scaled_to(self, length_mm: float) -> Build:
        """Return the build with pitch and discs scaled to an arc from the top of T1 to the bottom of L5, mm."""
        ends = (self.height[FIRST_THORACIC] + self.height[LAST_LUMBAR]) / 2
        factor = length_mm / (self.pitch[FIRST_THORACIC:LAST_LUMBAR].sum() + ends)
        return replace(self, pitch=self.pitch * factor, disc=self.disc * factor)


@dataclass(frozen=True)
class SpineShape:
    """A spine's axis and its vertebrae, mm and degrees, LPS; z of the T1-L5 middle is 0.

    Attributes
    ----------
    line : (K, 3) array
        Centres of the vertebral bodies' axis from C2 to S5, top to bottom, about every millimetre of arc.
    half_width, half_depth : (K,) arrays
        Half the vertebral width and depth at each point of `line`.
    centre : (27, 3) array
        Body centre of each level of `LEVELS`.
    tangent : (27, 3) array
        Unit vector along the axis, downwards, at each level.
    axes : (27, 3, 3) array
        Frame of each vertebra: rows are the unit vectors to its left, its back and its top.
    rotation : (27,) array
        Axial rotation, degrees, positive turns the front to the patient's left.
    height, width, depth : (27,) arrays
        Body size.
    pitch : (27,) array
        Distance to the next level.
    wear : (27,) array
        Degeneration of the disc below each level, 0 to 1.
    """

    line: Array
    half_width: Array
    half_depth: Array
    centre: Array
    tangent: Array
    axes: Array
    rotation: Array
    height: Array
    width: Array
    depth: Array
    pitch: Array
    wear: Array


def draw_build(rng: np.random.Generator, size: float) -> Build:
    """Draw the vertebrae of one person.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of chance.
    size : float
        Factor on vertebral width and depth.
    """
    count = len(LEVELS)
    pitch = _PITCH * (1 + rng.normal(0, 0.025, count) + rng.normal(0, 0.02) * np.linspace(-1, 1, count))
    # in some, vertebrae have sunk in
    sunk = rng.random(count) < rng.choice([0.0, 0.0, 0.0, 0.05, 0.12])
    pitch = pitch * np.where(sunk, rng.uniform(0.72, 0.92, count), 1.0)
    disc = _DISC * np.clip(rng.normal(1.0, 0.12, count), 0.5, 1.5)
    narrowed = rng.random(count) < rng.choice([0.0, 0.0, 0.1, 0.3, 0.5])
    wear = np.where(narrowed, rng.uniform(0.2, 0.7, count), 0.0)
    return Build(
        pitch=pitch,
        disc=disc * (1 - wear),
        width=_WIDTH * size * rng.normal(1.0, 0.04) * rng.normal(1.0, 0.015, count),
        depth=_DEPTH * size * rng.normal(1.0, 0.05) * rng.normal(1.0, 0.015, count),
        wear=wear,
    )


def draw_cobb(rng: np.random.Generator) -> float:
    """Draw the supine Cobb angle of a spine's largest curve, degrees: calm in 45 %, else spread over 10 to 67."""
    low, high = ((4.0, 9.5), (9.5, 25.0), (25.0, 40.0), (40.0, 67.0))[rng.choice(4, p=[0.45, 0.19, 0.18, 0.18])]
    return float(rng.uniform(low, high))


def draw_shape(
    rng: np.random.Generator, length_mm: float, build: Build, lean_deg: float, cobb_deg: float | None = None
) -> SpineShape:
    """Draw the curve of one spine and put vertebrae on it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of chance.
    length_mm : float
        Arc length from the top of T1 to the bottom of L5; pitch and discs are scaled to it.
    build : Build
        The person's vertebrae.
    lean_deg : float
        Tilt of the whole trunk, degrees, positive moves the head to the patient's left.
    cobb_deg : float, optional
        Supine Cobb angle of the largest coronal curve; drawn where it is not given. Met within a few degrees from
        about 8 on: the short waves of a straight spine swing as much.
    """
    build = build.scaled_to(length_mm)
    pitch, height = build.pitch, np.maximum(build.height, 6.0)

    cobb = draw_cobb(rng) if cobb_deg is None else cobb_deg
    sagittal = _draw_sagittal(rng)
    spine = _draw_coronal(rng, cobb)
    rotation = _draw_rotation(rng, spine)
    coronal = _continue_coronal(rng, spine) - lean_deg

    # body centres, with one point more at each end for the ends of the line
    slope = np.tan(np.radians(np.clip(np.stack([coronal, sagittal], axis=1), -_STEEPEST_DEG, _STEEPEST_DEG)))
    step = np.concatenate([slope, -np.ones((len(LEVELS), 1))], axis=1)
    step *= (pitch / np.linalg.norm(step, axis=1))[:, None]
    points = np.concatenate([-step[:1] * 20 / pitch[0], np.zeros((1, 3)), np.cumsum(step, axis=0)])
    station = np.concatenate([[0.0], np.cumsum(pitch[:-1])])
    curve = CubicSpline(np.concatenate([[-20.0], station, [station[-1] + pitch[-1]]]), points, bc_type="natural")
    arc_mm = np.arange(-20.0, station[-1] + 10.0, 1.0)
    line = curve(arc_mm)
    ends = curve(
        [
            station[FIRST_THORACIC] - height[FIRST_THORACIC] / 2,
            station[LAST_LUMBAR] + height[LAST_LUMBAR] / 2,
        ]
    )
    middle = ends.mean(axis=0)
    tangent = curve(station, 1)
    axes = _draw_axes(rng, tangent, rotation, cobb)
    return SpineShape(
        line=line - middle,
        half_width=np.interp(arc_mm, station, build.width) / 2,
        half_depth=np.interp(arc_mm, station, build.depth) / 2,
        centre=points[1:-1] - middle,
        tangent=tangent / np.linalg.norm(tangent, axis=1, keepdims=True),
        axes=axes,
        rotation=rotation,
        height=height,
        width=build.width,
        depth=build.depth,
        pitch=pitch,
        wear=build.wear,
    )


def _draw_sagittal(rng: np.random.Generator) -> Array:
    """Draw the sagittal tangent below each level, degrees."""
    spread = SAGITTAL_SPREAD * _SAGITTAL_SD
    departure = np.clip(_factor("sagittal") @ rng.standard_normal(_SEGMENTS), -2.8, 2.8) * spread
    spine = _SAGITTAL + departure
    neck = _CERVICAL + departure[0] * np.linspace(0.2, 0.9, 5) + rng.normal(0, 3) * np.linspace(1, 0.2, 5)
    tail = _SACRAL + departure[-1] * np.array([0.8, 0.6, 0.5, 0.4, 0.3, 0.2]) + rng.normal(0, 4)
    return np.concatenate([neck, spine, tail])


def _draw_coronal(rng: np.random.Generator, cobb_deg: float) -> Array:
    """Draw the coronal tangents T1-2 to L4-5, degrees, with a mean of 0 and about the Cobb angle wanted."""
    spread, gain, mean = _coronal_class(cobb_deg)
    waves = half_waves(rng.standard_normal((_CANDIDATES, _SEGMENTS)) @ _factor("coronal").T * spread) * gain + mean
    swing = np.ptp(waves @ _reading_basis(), axis=1)
    chosen: Array = waves[np.argmin(np.abs(swing - cobb_deg))] @ _wave_basis()
    return chosen


def _coronal_class(cobb_deg: float) -> tuple[Array, Array, Array]:
    """Return spread by level, gain and mean by half-wave, each (16,), supine, of spines of one Cobb angle."""
    knots = SWING_OVER_COBB * SUPINE * np.array([0.0, *_CLASS_COBB])
    spread, gain, mean = _class_tables()
    # beyond the severest class everything grows in proportion
    more = max(cobb_deg / knots[-1], 1.0)
    found = np.searchsorted(knots, min(cobb_deg, knots[-1] - 1e-9), side="right") - 1
    part = (min(cobb_deg, knots[-1]) - knots[found]) / (knots[found + 1] - knots[found])
    a, b, c = ((1 - part) * t[found] + part * t[found + 1] for t in (spread, gain, mean))
    return a * more, b, c * more


@lru_cache(maxsize=1)
def _class_tables() -> tuple[Array, Array, Array]:
    """Spread by level, gain and mean by half-wave of the classes, (4, 16) each; the first is a straight spine's."""
    # landmarks' noise alternates from segment to segment, so short waves have the most of it
    noise = _LANDMARK_NOISE_DEG**2 * np.sin(np.pi * np.arange(_FIRST_SHORT, _SEGMENTS) / (2 * _SEGMENTS)) ** 2 / 8
    short = SUPINE * np.sqrt(_SHORT_RMS**2 - noise)
    target = SUPINE * np.sqrt(_CORONAL_SD**2 - _LANDMARK_NOISE_DEG**2)
    spread, gain, basis = target.copy(), np.ones_like(target), _wave_basis()
    gain[:, 0] = 0.0
    # find the spread that is the films' after the waves got their sizes, with the common tilt left to the lean
    for _ in range(30):
        for k in range(len(target)):
            waves = half_waves(half_waves(coronal_correlation() * np.outer(spread[k], spread[k])).T)
            gain[k, _FIRST_SHORT:] = short[k] / np.sqrt(np.diag(waves)[_FIRST_SHORT:])
            made = np.diag(basis.T @ (waves * np.outer(gain[k], gain[k])) @ basis)
            spread[k] *= np.sqrt(target[k] / np.sqrt(made + (SUPINE * _FILM_TILT_SD) ** 2))
    straight = np.concatenate([np.zeros(_FIRST_SHORT), _CALM_SHORT * gain[0, _FIRST_SHORT:]])
    mean = np.zeros((4, _SEGMENTS))
    mean[1:, [1, 3]] = SUPINE * _MEAN_WAVES
    return np.concatenate([spread[:1], spread]), np.concatenate([straight[None], gain]), mean


@lru_cache(maxsize=1)
def _wave_basis() -> Array:
    """(16, 16): tangents of each half-wave; `half_waves(t) @ _wave_basis()` is t."""
    basis: Array = np.linalg.inv(half_waves(np.eye(_SEGMENTS)))
    return basis


@lru_cache(maxsize=1)
def _reading_basis() -> Array:
    """(16, 49): tangents along the smooth line, T1 to L5, from which a Cobb angle is read, of each half-wave."""
    number = np.arange(_SEGMENTS)[:, None]
    # a chord shows less of a wave than the line has
    line = np.sqrt(2) * np.cos(np.pi * number * np.linspace(0, 1, 49)) / np.sinc(number / (2 * _SEGMENTS))
    return np.where((number > 0) & (number < _READ_WAVES), line, 0.0)


@lru_cache(maxsize=3)
def _factor(which: str) -> Array:
    """Matrix that gives standard normal numbers the correlation of sagittal or coronal tangents or of rotations."""
    if which == "rotation":
        place = np.concatenate([[0.0], np.cumsum(_PITCH[:-1])])
        correlation = np.exp(-((place[:, None] - place[None, :]) ** 2) / (2 * 70.0**2))
    else:
        correlation = sagittal_correlation() if which == "sagittal" else coronal_correlation()
    values, vectors = np.linalg.eigh(correlation)
    factor: Array = vectors * np.sqrt(np.maximum(values, 0.0))
    return factor


def _continue_coronal(rng: np.random.Generator, spine: Array) -> Array:
    """Add the tangents of the neck and the sacrum, which fade from those of the ends, to those of T1-2 to L4-5."""
    above, below = np.arange(5, 0, -1), np.arange(1, 7)
    neck = (spine[0] + 0.5 * (spine[0] - spine[1]) * above * np.exp(-above)) * np.exp(-above / 4)
    neck += rng.normal(0, 3) * (1 - np.exp(-above / 3))
    tail = (spine[-1] + 0.5 * (spine[-1] - spine[-2]) * below * np.exp(-below)) * np.exp(-below / 2.5)
    tail += rng.normal(0, 2) * (1 - np.exp(-below / 2))
    return np.concatenate([neck, spine, tail])


def _draw_rotation(rng: np.random.Generator, spine: Array) -> Array:
    """Draw each level's axial rotation, degrees, given the coronal tangents T1-2 to L4-5.

    A half-wave a cos(pi k x) of the tangents is a row of curves of Cobb angle 2 a whose deviation goes with
    sin(pi k x): left where it is positive, and vertebrae face the convex side.
    """
    waves = half_waves(spine) * np.sqrt(2)
    x = np.arange(_SEGMENTS + 1) / _SEGMENTS
    number = np.arange(1, _FIRST_SHORT + 2)
    turn = 2 * np.sin(np.pi * x[:, None] * number) @ waves[number]
    share = np.interp(np.arange(_SEGMENTS + 1), [10, 13], [0.28, 0.17]) * rng.normal(1.0, 0.25)
    rotation = rng.normal(0, 1.5) + np.sqrt(2.0) * _factor("rotation") @ rng.standard_normal(len(LEVELS))
    rotation[FIRST_THORACIC : LAST_LUMBAR + 1] += share * turn
    return rotation


def _draw_axes(rng: np.random.Generator, tangent: Array, rotation: Array, cobb_deg: float) -> Array:
    """Draw the (27, 3, 3) frames of the vertebrae, given (27, 3) tangents of the line and axial rotations, degrees."""
    count = len(LEVELS)
    coronal, sagittal = np.degrees(np.arctan2(tangent[:, 0], -tangent[:, 2])), tangent[:, 1] / -tangent[:, 2]
    sacrum = LAST_LUMBAR + 1
    residual = np.concatenate([np.full(FIRST_THORACIC, 2.0), _TILT_RESIDUAL_SD])
    # straighter spines have the smaller residuals: their tilts vary less than a fixed residual would allow
    residual *= np.interp(cobb_deg, *_RESIDUAL_GROWTH)
    coronal[:sacrum] = TILT_SHARE * coronal[:sacrum] + residual * rng.standard_normal(sacrum)
    lean = np.degrees(np.arctan(sagittal)) + _SAGITTAL_RESIDUAL_SD * rng.standard_normal(count)
    up = np.stack([-np.tan(np.radians(coronal)), -np.tan(np.radians(lean)), np.ones(count)], axis=1)
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    lateral = np.array([1.0, 0.0, 0.0]) - up[:, :1] * up
    lateral /= np.linalg.norm(lateral, axis=1, keepdims=True)
    back = np.cross(up, lateral)
    cos, sin = (f(np.radians(rotation))[:, None] for f in (np.cos, np.sin))
    return np.stack([cos * lateral + sin * back, cos * back - sin * lateral, up], axis=1)
