"""The shape of a supine adult's spine, drawn at random.

Sagittal tangents follow the mean, spread and correlation measured on supine CT (17 adults, body centres T1 to L5);
coronal tangents are a small random waviness plus, for some, one to three scoliotic curves with the axial rotation
that goes with them (about 0.28 degrees per degree of Cobb in the thoracic spine and 0.17 in the lumbar, supine).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from edge_spine import levels

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
_CERVICAL = np.array([3.0, 7.0, 12.0, 17.0, 22.0])
_SACRAL = np.array([31.0, 48.0, 55.0, 52.0, 40.0, 25.0])


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
    rotation: Array
    height: Array
    width: Array
    depth: Array
    pitch: Array
    wear: Array


def draw_shape(rng: np.random.Generator, length_mm: float, size: float, lean_deg: float) -> SpineShape:
    """Draw one spine.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of chance.
    length_mm : float
        Arc length from the top of T1 to the bottom of L5.
    size : float
        Factor on vertebral width and depth.
    lean_deg : float
        Tilt of the whole trunk, degrees, positive moves the head to the patient's left.
    """
    count = len(LEVELS)
    pitch = _PITCH * (1 + rng.normal(0, 0.025, count) + rng.normal(0, 0.02) * np.linspace(-1, 1, count))
    # in some, vertebrae have sunk in
    sunk = rng.random(count) < rng.choice([0.0, 0.0, 0.0, 0.05, 0.12])
    pitch = pitch * np.where(sunk, rng.uniform(0.72, 0.92, count), 1.0)
    disc = _DISC * np.clip(rng.normal(1.0, 0.12, count), 0.5, 1.5)
    narrowed = rng.random(count) < rng.choice([0.0, 0.0, 0.1, 0.3, 0.5])
    wear = np.where(narrowed, rng.uniform(0.2, 0.7, count), 0.0)
    disc = disc * (1 - wear)
    inner = slice(FIRST_THORACIC, LAST_LUMBAR)
    arc = pitch[inner].sum() + (pitch[FIRST_THORACIC] - disc[FIRST_THORACIC]) / 2 + (pitch[LAST_LUMBAR] - 11) / 2
    pitch *= length_mm / arc
    disc *= length_mm / arc
    width = _WIDTH * size * rng.normal(1.0, 0.04) * rng.normal(1.0, 0.015, count)
    depth = _DEPTH * size * rng.normal(1.0, 0.05) * rng.normal(1.0, 0.015, count)
    height = np.maximum(pitch - disc, 6.0)
    height[1:] = np.maximum((pitch[1:] + pitch[:-1]) / 2 - (disc[1:] + disc[:-1]) / 2, 6.0)

    # arc positions: level centres, and the tangents' places half way between them
    station = np.concatenate([[0.0], np.cumsum(pitch[:-1])])
    between = station + pitch / 2
    sagittal = _draw_sagittal(rng)
    coronal, rotation = _draw_coronal(rng, station, between)
    coronal -= lean_deg

    arc_mm = np.arange(-20.0, station[-1] + 10.0, 1.0)
    tilt_s = CubicSpline(between, np.tan(np.radians(sagittal)))(np.clip(arc_mm, between[0], between[-1]))
    tilt_c = CubicSpline(between, np.tan(np.radians(coronal)))(np.clip(arc_mm, between[0], between[-1]))
    tilt_s = np.clip(tilt_s, -2.0, 2.0)
    step = np.stack([tilt_c, tilt_s, -np.ones_like(arc_mm)], axis=1)
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    line = np.cumsum(step, axis=0)
    top, bottom = (
        np.array([np.interp(s, arc_mm, line[:, k]) for k in range(3)])
        for s in (
            station[FIRST_THORACIC] - height[FIRST_THORACIC] / 2,
            station[LAST_LUMBAR] + height[LAST_LUMBAR] / 2,
        )
    )
    line -= (top + bottom) / 2
    centre = np.stack([np.interp(station, arc_mm, line[:, k]) for k in range(3)], axis=1)
    tangent = np.stack([np.interp(station, arc_mm, step[:, k]) for k in range(3)], axis=1)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    return SpineShape(
        line=line,
        half_width=np.interp(arc_mm, station, width) / 2,
        half_depth=np.interp(arc_mm, station, depth) / 2,
        centre=centre,
        tangent=tangent,
        rotation=rotation,
        height=height,
        width=width,
        depth=depth,
        pitch=pitch,
        wear=wear,
    )


def _draw_sagittal(rng: np.random.Generator) -> Array:
    """Draw the sagittal tangent below each level, degrees."""
    covariance = sagittal_correlation() * np.outer(_SAGITTAL_SD, _SAGITTAL_SD)
    departure = rng.multivariate_normal(np.zeros(16), covariance, method="eigh")
    departure = np.clip(departure, -2.8 * _SAGITTAL_SD, 2.8 * _SAGITTAL_SD)
    spine = _SAGITTAL + departure
    neck = _CERVICAL + departure[0] * np.linspace(0.2, 0.9, 5) + rng.normal(0, 3) * np.linspace(1, 0.2, 5)
    tail = _SACRAL + departure[-1] * np.array([0.8, 0.6, 0.5, 0.4, 0.3, 0.2]) + rng.normal(0, 4)
    return np.concatenate([neck, spine, tail])


def _draw_coronal(rng: np.random.Generator, station: Array, between: Array) -> tuple[Array, Array]:
    """Draw the coronal tangent below each level and each level's axial rotation, degrees."""
    count = len(LEVELS)
    apart = between[:, None] - between[None, :]
    wavy = np.exp(-(apart**2) / (2 * 70.0**2))
    spread = np.interp(between, [between[0], between[8], between[18], between[-1]], [3.0, 1.8, 1.8, 3.0])
    tangent = rng.multivariate_normal(np.zeros(count), wavy * np.outer(spread, spread), method="eigh")
    rotation = rng.normal(0, 1.5) + rng.multivariate_normal(np.zeros(count), 2.0 * wavy, method="eigh")
    if rng.random() < 0.5:
        severity = rng.choice(4, p=[0.3, 0.4, 0.2, 0.1])
        low, high = ((4, 10), (10, 25), (25, 40), (40, 65))[severity]
        side = rng.choice([-1.0, 1.0], p=[0.4, 0.6])
        apexes = rng.choice(4)
        places = ([10.5], [15.5], [9.5, 17.5], [6.5, 12.0, 18.0])[apexes]
        for order, place in enumerate(places):
            main = order == (1 if len(places) == 3 else 0)
            cobb = rng.uniform(low, high) * (1.0 if main else rng.uniform(0.4, 0.9))
            apex = np.interp(place + rng.normal(0, 0.8), np.arange(count), station)
            reach = rng.uniform(3.0, 4.5) * 24.0 * (0.75 if len(places) > 1 else 1.0)
            bend = side * (-1) ** order
            # the derivative of a bump: the tangent swings once through the Cobb angle (0.8244 is half of sqrt(e)),
            # and above and below the curve the spine is where it would have been
            along = (between - apex) / reach
            tangent += bend * cobb * 0.8244 * along * np.exp(-(along**2) / 2)
            share = 0.28 if place < 13 else 0.17
            near = np.exp(-(((station - apex) / reach) ** 2))
            # bent this way the apex points to the patient's right, and vertebrae face the convex side
            rotation -= bend * share * cobb * near * rng.normal(1.0, 0.25)
    return tangent, rotation
