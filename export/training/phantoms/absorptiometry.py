"""Compute bone areal density, and the thickness of soft tissue and air along the beam.

Bone comes from `solids`; soft tissue is a stack of superelliptic sections for each part of the body. `scanner` forms
the images: a steep compression of soft-tissue thickness is added to bone areal density, as on a bone image.
"""

from __future__ import annotations

import itertools
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from export.training.phantoms.person import Person
from export.training.phantoms.scanner import Framing
from export.training.phantoms.shape import FIRST_THORACIC, SpineShape
from export.training.phantoms.solids import Solids, areal_density, areal_density_torch

Image = NDArray[np.float32]

_FINE = 2  # Bones are integrated at half the pixel pitch and averaged.

# Fraction of the extent below the crown: half width, full depth, mm.
_TRUNK = np.array(
    [
        (0.000, 6, 20), (0.006, 34, 90), (0.020, 58, 150), (0.045, 75, 185), (0.070, 78, 190), (0.090, 73, 180),
        (0.108, 61, 150), (0.122, 56, 120), (0.136, 60, 122), (0.146, 88, 130), (0.154, 135, 150), (0.166, 176, 170),
        (0.185, 172, 195), (0.205, 162, 208), (0.250, 156, 218), (0.300, 153, 218), (0.340, 150, 212),
        (0.370, 154, 208), (0.400, 166, 208), (0.430, 186, 212), (0.465, 199, 208), (0.498, 197, 190),
        (0.510, 170, 175), (0.524, 60, 120), (0.530, 2, 60),
    ]
)  # fmt: skip
_LEG = np.array(
    [
        (0.470, 104, 190), (0.510, 103, 180), (0.560, 91, 165), (0.620, 75, 148), (0.680, 61, 126), (0.712, 56, 118),
        (0.750, 55, 112), (0.800, 57, 114), (0.850, 46, 92), (0.900, 34, 74), (0.925, 34, 76), (0.945, 40, 100),
        (0.970, 36, 62), (0.990, 26, 34), (1.000, 8, 15),
    ]
)  # fmt: skip
_ARM = np.array(
    [
        (0.142, 12, 50), (0.150, 34, 85), (0.170, 50, 105), (0.200, 51, 104), (0.250, 48, 98), (0.300, 43, 88),
        (0.325, 42, 82), (0.360, 41, 80), (0.400, 34, 68), (0.445, 26, 50), (0.467, 26, 42), (0.490, 36, 38),
        (0.520, 32, 30), (0.545, 20, 22), (0.560, 5, 10),
    ]
)  # fmt: skip


def bone_density(solids: Solids, framing: Framing, blur_px: float = 0.65, device: str = "cpu") -> Image:
    """Return the areal density of bone (g/cm2), averaged over each pixel and blurred by the beam.

    NumPy integrates it on the processor, torch on any other `device`.
    """
    rows, columns = framing.shape
    fine = (framing.pixel_mm[0] / _FINE, framing.pixel_mm[1] / _FINE)
    corner = (
        framing.top_left_mm[0] + framing.pixel_mm[0] / 2 - fine[0] / 2,
        framing.top_left_mm[1] - framing.pixel_mm[1] / 2 + fine[1] / 2,
    )
    shape = (rows * _FINE, columns * _FINE)
    if device == "cpu":
        detailed = areal_density(solids, shape, fine, corner)
    else:
        detailed = areal_density_torch(solids, shape, fine, corner, device)
    mean = cv2.resize(detailed, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.maximum(cv2.GaussianBlur(mean, (0, 0), blur_px), 0).astype(np.float32)


def soft_tissue(rng: np.random.Generator, person: Person, shape: SpineShape, framing: Framing) -> tuple[Image, Image]:
    """Return the thickness of soft tissue and of air along the beam (mm), two (rows, columns) images."""
    z, x = framing.grid()
    fraction = (person.crown_z - z[:, 0]) / person.extent_mm
    s, girth = person.scale, person.habitus
    broad = np.where(fraction < 0.14, 1.0, girth**0.55)
    hips = np.where((fraction > 0.38) & (fraction < 0.6) & person.female, 1.04, 1.0)
    lean = person.axis_x(np.maximum(z[:, 0], -200.0))

    def part(table: NDArray[np.float64], centre: Any, wide: Any, deep: float, power: float = 2.4) -> Image:
        half = np.interp(fraction, table[:, 0], table[:, 1], left=0, right=0) * wide
        depth = np.interp(fraction, table[:, 0], table[:, 2], left=0, right=0) * deep
        middle = np.broadcast_to(np.asarray(centre), half.shape)
        thick = np.zeros(framing.shape, dtype=np.float32)
        rows = np.flatnonzero(half > 0)
        if len(rows) == 0:
            return thick
        # Powers are slow; computed only inside the section.
        columns = (x[0] > (middle - half)[rows].min()) & (x[0] < (middle + half)[rows].max())
        first, last = np.argmax(columns), len(columns) - np.argmax(columns[::-1])
        window = slice(rows[0], rows[-1] + 1), slice(first, last)
        shown = slice(rows[0], rows[-1] + 1)
        away = np.abs(x[:, first:last] - middle[shown, None]) / np.maximum(half[shown], 1e-3)[:, None]
        inside = np.maximum(1 - away.astype(np.float32) ** np.float32(power), 0)
        thick[window] = depth[shown, None].astype(np.float32) * inside ** np.float32(1 / power)
        return thick

    table = _TRUNK.copy()
    table[11:20, 1] *= rng.normal(1.0, 0.04)
    table[14:18, 1] *= rng.normal(1.0, 0.05)
    # Muscle attenuates more than fat.
    rind, muscle = rng.uniform(0.78, 0.96), rng.uniform(0.0, 0.3)
    body = part(table, lean, broad * hips * s, girth * s)
    body += muscle * part(table, lean, rind * broad * hips * s, 0.85 * girth * s)
    for side in (-1, 1):
        knee = side * (96 - 10 * np.clip((fraction - 0.5) / 0.2, 0, 1)) * s
        leg = part(_LEG, knee, girth**0.6 * s, girth * s)
        leg += muscle * part(_LEG, knee, rind * girth**0.6 * s, 0.85 * girth * s)
        body = np.maximum(body, leg)
        place = np.interp(fraction, [0.142, 0.17, 0.25, 0.322, 0.467, 0.56], [150, 180, 218, 245, 262, 262])
        out = np.interp(fraction, [0.142, 0.25, 0.322], [1.0, 1.0, person.arm_out[side > 0]])
        arm = part(_ARM, side * place * out * s + lean * (fraction < 0.25), girth**0.5 * s, girth**0.7 * s)
        body = np.maximum(body, arm)
    if person.female and rng.random() < 0.8:
        size, drop = rng.uniform(0.6, 1.3) * girth, rng.normal(0.222, 0.01)
        for side in (-1, 1):
            across = (x - side * 92 * s - lean[:, None]) / (62 * s * size**0.5)
            along = (fraction[:, None] - drop) * person.extent_mm / (58 * s * size**0.5)
            body = body + 42 * size * np.sqrt(np.maximum(1 - across**2 - along**2, 0)) * (body > 0)
    return body.astype(np.float32), _air(rng, person, shape, framing)


def _lung_vessels(rng: np.random.Generator, person: Person, framing: Framing, middle: NDArray[np.float64]) -> Image:
    """Return the fraction of the lungs filled by vessels, as branches from each hilum."""
    canvas = np.zeros(framing.shape, dtype=np.float32)
    top, left = framing.top_left_mm
    row_mm, column_mm = framing.pixel_mm
    most = float(rng.uniform(0.1, 0.75))
    for side in (-1, 1):
        for _ in range(int(rng.integers(20, 60))):
            z = float(person.z(rng.normal(0.222, 0.022)))
            row = int(np.clip((top - z) / row_mm, 0, framing.shape[0] - 1))
            place = np.array([middle[row] + side * rng.uniform(26, 60), z])
            heading, path = rng.normal(0, 1.1), [place]
            for _ in range(int(rng.integers(3, 9))):
                heading += rng.normal(0, 0.35)
                place = place + rng.uniform(6, 13) * np.array([side * np.cos(heading), np.sin(heading)])
                path.append(place)
            points = (np.array(path) - [left, top]) / [column_mm, -row_mm]
            for k, pair in enumerate(itertools.pairwise(points)):
                ends = [tuple(int(v) for v in np.round(point * 16)) for point in pair]
                shade = most * float(rng.uniform(0.4, 1.0)) * 0.85**k
                cv2.line(canvas, ends[0], ends[1], shade, 2 if k < 2 and rng.random() < 0.5 else 1, cv2.LINE_8, 4)
    return cv2.GaussianBlur(canvas, (0, 0), 0.5).astype(np.float32)


def _air(rng: np.random.Generator, person: Person, shape: SpineShape, framing: Framing) -> Image:
    z, x = framing.grid()
    fraction = (person.crown_z - z) / person.extent_mm
    s = person.scale
    middle = np.interp(-z[:, 0], -shape.line[:, 2], shape.line[:, 0])[:, None]
    air = np.zeros(framing.shape, dtype=np.float32)
    for side in (-1, 1):
        dome = rng.normal(0.288, 0.008) + (0.004 if side > 0 else 0.0)
        along = (fraction - 0.150) / (dome - 0.150)
        # Between the lungs: aorta, oesophagus and heart.
        inner = (rng.uniform(20, 34) + (26 * np.clip(along - 0.45, 0, 1) if side > 0 else 6 * along)) * s
        outer = np.interp(along, [0, 0.25, 0.6, 1.0], [58, 98, 118, 124]) * s
        away = np.abs(side * (x - middle) - (inner + outer) / 2) / ((outer - inner) / 2)
        floor = np.clip((1.0 - along - 0.10 * away**2) * 12, 0, 1) * np.clip(along * 10, 0, 1)
        air += (
            rng.uniform(60, 105)
            * s
            * np.cbrt(np.maximum(1 - away**3, 0))
            * floor
            * (fraction > 0.15)
            * (fraction < dome + 0.01)
        )
    air *= 1 - _lung_vessels(rng, person, framing, middle[:, 0])
    # Trachea from the neck to its bifurcation, then the two main bronchi.
    fork = float(shape.centre[FIRST_THORACIC + 4][2])
    high = float(shape.centre[1][2])
    wide = rng.uniform(7.5, 10)
    shift = rng.normal(0, 3)
    tube = np.maximum(1 - ((x - middle - shift) / wide) ** 2, 0) ** 0.5
    air += 2.2 * rng.uniform(12, 20) * tube * np.clip((z - fork) / 20, 0, 1) * np.clip((high - z) / 15, 0, 1)
    canvas = np.zeros(framing.shape, dtype=np.float32)
    pitch = framing.pixel_mm
    for _ in range(int(rng.integers(2, 26))):
        # A bowel loop: gas in a row of pockets.
        place = np.array([rng.uniform(-115, 115) * s, float(person.z(rng.uniform(0.29, 0.46)))])
        heading, wide = rng.uniform(0, 2 * np.pi), float(np.exp(rng.uniform(0.6, 2.8)))
        for _ in range(int(rng.integers(1, 9))):
            heading += rng.normal(0, 0.5)
            place += rng.uniform(0.8, 1.6) * wide * np.array([np.cos(heading), np.sin(heading)])
            spot = (place[0] - framing.top_left_mm[1]) / pitch[1], (framing.top_left_mm[0] - place[1]) / pitch[0]
            size = rng.uniform(0.6, 1.2, 2) * wide / (pitch[1], pitch[0])
            axes = (max(1, round(size[0])), max(1, round(size[1])))
            centre = (round(spot[0]), round(spot[1]))
            cv2.ellipse(canvas, centre, axes, rng.uniform(0, 180), 0, 360, float(rng.uniform(15, 110)), -1)
    stomach = (
        int((75 * s - framing.top_left_mm[1]) / framing.pixel_mm[1]),
        int((framing.top_left_mm[0] - person.z(0.305)) / framing.pixel_mm[0]),
    )
    bubble = (round(rng.uniform(12, 34) / pitch[1]), round(rng.uniform(10, 29) / pitch[0]))
    cv2.ellipse(canvas, stomach, bubble, 30.0, 0, 360, float(rng.uniform(0, 60)), -1)
    return (air + cv2.GaussianBlur(canvas, (0, 0), 0.7)).astype(np.float32)
