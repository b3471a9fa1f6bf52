"""Draw the shape of a supine adult's spine at random.

Sagittal tangents follow the mean and correlation measured on supine CT (17 adults, body centres T1 to L5) at 1.2 times
the measured deviation. Coronal tangents follow the deviation, correlation and waves measured on 481 standing films of
people with scoliosis at 0.8 of their size, the ratio of supine to standing curves. A tangent is the direction from one
body centre to the next. Axial rotation follows the coronal curve: about 0.28 degrees per degree of Cobb in the thoracic
spine and 0.17 in the lumbar, supine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from edge_spine import vertebrae as levels
from export.training.phantoms.tangents import (
    FIRST_SHORT,
    LANDMARK_NOISE_DEG,
    SEGMENTS,
    SUPINE,
    continue_coronal,
    draw_coronal,
    draw_sagittal,
    factor_of,
    half_waves,
)

Array = NDArray[np.float64]

LEVELS = ("C3", "C4", "C5", "C6", "C7", *levels.LEVELS, "S1", "S2", "S3", "S4", "S5")
FIRST_THORACIC, LAST_LUMBAR = LEVELS.index("T1"), LEVELS.index("L5")

# Distance along the arc from each level to the next, mm.
_PITCH = np.concatenate([[15.5, 15.5, 16.0, 17.0, 18.5], levels.CENTRE_PITCH_MM, [32.0, 26.0, 23.0, 20.0, 17.0, 15.0]])
# Height of the disc below each level, mm.
_DISC = np.array(
    [4.5, 4.5, 4.5, 5.0, 5.0]
    + [4.2, 4.2, 4.2, 4.2, 4.2, 4.5, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0]
    + [9.0, 10.0, 11.0, 12.0, 11.0]
    + [1.5, 1.0, 1.0, 1.0, 1.0]
)
# Body width in a whole-body bone image, and depth, mm.
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
# Those of T1 to L5.
WIDTH_MM, DEPTH_MM = (size[FIRST_THORACIC : LAST_LUMBAR + 1] for size in (_WIDTH, _DEPTH))

# Tilt of a vertebra as a fraction of the coronal tangent, and its residual SD at Cobb angles near 40, degrees.
TILT_SHARE = 0.82
_TILT_RESIDUAL_SD = SUPINE * np.sqrt(
    np.array([3.0, 3.2, 3.4, 3.4, 3.4, 3.9, 3.6, 2.8, 2.5, 2.6, 2.7, 2.8, 3.2, 3.6, 3.2, 3.7, 4.8]) ** 2
    - LANDMARK_NOISE_DEG**2
)
# Estimated; no published figure.
_SAGITTAL_RESIDUAL_SD = 1.5
_RESIDUAL_GROWTH = ([8.0, 45.0], [0.5, 1.2])
_STEEPEST_DEG = 63.0


@dataclass(frozen=True)
class Build:
    """Size of a person's vertebrae and discs at each level of `LEVELS`, each (27,), mm except `wear`.

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
        """Height of each body, (27,) mm: the pitch minus the discs."""
        body = self.pitch - self.disc
        return np.concatenate([body[:1], (body[1:] + body[:-1]) / 2])

    def scaled_to(self, length_mm: float) -> Build:
        """Return the build with pitch and discs scaled to an arc from the top of T1 to the bottom of L5, mm."""
        ends = (self.height[FIRST_THORACIC] + self.height[LAST_LUMBAR]) / 2
        factor = length_mm / (self.pitch[FIRST_THORACIC:LAST_LUMBAR].sum() + ends)
        return replace(self, pitch=self.pitch * factor, disc=self.disc * factor)


@dataclass(frozen=True)
class SpineShape:
    """Axis and vertebrae of a spine, mm and degrees, LPS; z of the T1-L5 middle is 0.

    Attributes
    ----------
    line : (K, 3) array
        Axis of the vertebral bodies from C2 to S5, top to bottom, about every mm of arc.
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
        Random generator.
    size : float
        Factor on vertebral width and depth.
    """
    count = len(LEVELS)
    pitch = _PITCH * (1 + rng.normal(0, 0.025, count) + rng.normal(0, 0.02) * np.linspace(-1, 1, count))
    # Vertebral fractures in some.
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
    """Draw the supine Cobb angle of a spine's largest curve, degrees: small in 45 %, otherwise 10 to 67."""
    low, high = ((4.0, 9.5), (9.5, 25.0), (25.0, 40.0), (40.0, 67.0))[rng.choice(4, p=[0.45, 0.19, 0.18, 0.18])]
    return float(rng.uniform(low, high))


def draw_shape(
    rng: np.random.Generator, length_mm: float, build: Build, lean_deg: float, cobb_deg: float | None = None
) -> SpineShape:
    """Draw the curve of one spine and place vertebrae on it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Random generator.
    length_mm : float
        Arc length from the top of T1 to the bottom of L5; pitch and discs are scaled to it.
    build : Build
        Sizes of the vertebrae.
    lean_deg : float
        Tilt of the whole trunk, degrees, positive moves the head to the patient's left.
    cobb_deg : float, optional
        Supine Cobb angle of the largest coronal curve; random by default. Met within a few degrees above
        about 8, since the short waves of a straight spine reach as much.
    """
    build = build.scaled_to(length_mm)
    pitch, height = build.pitch, np.maximum(build.height, 6.0)

    cobb = draw_cobb(rng) if cobb_deg is None else cobb_deg
    sagittal = draw_sagittal(rng)
    spine = draw_coronal(rng, cobb)
    rotation = _draw_rotation(rng, spine)
    coronal = continue_coronal(rng, spine) - lean_deg

    # Body centres, and one more point at each end of the line.
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


@lru_cache(maxsize=1)
def _rotation_factor() -> Array:
    """Return the matrix that gives standard normal numbers the correlation of rotations."""
    place = np.concatenate([[0.0], np.cumsum(_PITCH[:-1])])
    return factor_of(np.exp(-((place[:, None] - place[None, :]) ** 2) / (2 * 70.0**2)))


def _draw_rotation(rng: np.random.Generator, spine: Array) -> Array:
    """Draw each level's axial rotation, degrees, given the coronal tangents T1-2 to L4-5.

    A half-wave a cos(pi k x) of the tangents is a series of curves of Cobb angle 2 a with deviation proportional to
    sin(pi k x), positive to the left; vertebrae rotate to the convex side.
    """
    waves = half_waves(spine) * np.sqrt(2)
    x = np.arange(SEGMENTS + 1) / SEGMENTS
    number = np.arange(1, FIRST_SHORT + 2)
    turn = 2 * np.sin(np.pi * x[:, None] * number) @ waves[number]
    share = np.interp(np.arange(SEGMENTS + 1), [10, 13], [0.28, 0.17]) * rng.normal(1.0, 0.25)
    rotation = rng.normal(0, 1.5) + np.sqrt(2.0) * _rotation_factor() @ rng.standard_normal(len(LEVELS))
    rotation[FIRST_THORACIC : LAST_LUMBAR + 1] += share * turn
    return rotation


def _draw_axes(rng: np.random.Generator, tangent: Array, rotation: Array, cobb_deg: float) -> Array:
    """Draw the (27, 3, 3) frames of the vertebrae, given (27, 3) tangents of the line and axial rotations, degrees."""
    count = len(LEVELS)
    coronal, sagittal = np.degrees(np.arctan2(tangent[:, 0], -tangent[:, 2])), tangent[:, 1] / -tangent[:, 2]
    sacrum = LAST_LUMBAR + 1
    residual = np.concatenate([np.full(FIRST_THORACIC, 2.0), _TILT_RESIDUAL_SD])
    # Straighter spines have smaller residuals.
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
