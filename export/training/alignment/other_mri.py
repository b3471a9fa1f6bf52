"""Simulate a person's MRI and both spine masks by rules that share nothing with `phantom_mri` but the spine.

Outline, arms, breath, field of view, contrast and organs are drawn anew for each MRI, so that nothing of the body's
outline is common to scan and MRI. Vertebrae and discs differ in brightness. Both masks are drawn level by level, with
waisted bodies, widths that are off by a few percent, and uneven edges, each by itself.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from export.training.alignment.phantom_mri import DIXON, Grid, scan_offset_mm
from export.training.alignment.rigid import Placement
from export.training.phantoms.phantom import Phantom, Subject
from export.training.phantoms.shape import FIRST_THORACIC, LAST_LUMBAR

Array = NDArray[np.float64]
Image = NDArray[np.float32]

# Fraction of the extent below the crown: half width and depth of the trunk, mm.
_TRUNK = np.array(
    [(0.0, 60, 170), (0.10, 72, 185), (0.135, 55, 125), (0.155, 120, 140), (0.18, 190, 175), (0.23, 168, 215)]
    + [(0.30, 150, 225), (0.36, 138, 205), (0.42, 165, 205), (0.47, 186, 215), (0.52, 190, 195), (0.60, 180, 165)]
)
# Tissue of an image: fat, muscle, marrow, disc, liver, other organs, blood.
_CONTRASTS = {
    "fat": (900.0, 120.0, 560.0, 90.0, 110.0, 100.0, 80.0),
    "water": (110.0, 620.0, 330.0, 520.0, 560.0, 640.0, 540.0),
    "in phase": (820.0, 520.0, 640.0, 430.0, 480.0, 540.0, 420.0),
}
_AIR = 20.0
# Distance from the spine's mean y to the skin of the back, mm.
_BACK_MM = 88.0


def make_other_mri(
    subject: Subject, placement: Placement, rng: np.random.Generator, grid: Grid = DIXON
) -> tuple[Image, NDArray[np.uint8]]:
    """Simulate the MRI of a subject and the mask of its spine; see `phantom_mri.make_mri` for the arguments."""
    x, z = np.meshgrid(grid.axis(0), grid.axis(2), indexing="ij")
    points = placement.to_scan(np.stack([x.ravel(), z.ravel()], axis=1)) - scan_offset_mm(subject)
    x, z = (points[:, k].reshape(x.shape) for k in (0, 1))
    y = grid.axis(1)
    contrast = _CONTRASTS[str(rng.choice(list(_CONTRASTS)))]
    fat, muscle, marrow, disc, liver, organ, blood = (value * float(rng.uniform(0.9, 1.1)) for value in contrast)
    front, back, rind, trunk = _surfaces(subject, rng, x, z)
    depth = y[None, :, None]
    volume = np.zeros(grid.shape, dtype=np.float32)
    volume[(depth > front[:, None]) & (depth < back[:, None])] = fat
    inner = (depth > front[:, None] + rind[:, None]) & (depth < back[:, None] - 0.7 * rind[:, None])
    volume[inner] = muscle
    fields = _Fields(volume, x, y, z, inner & trunk[:, None])
    _organs(subject, rng, fields, liver, organ, blood)
    mask, is_disc = _vertebrae(subject, rng, x, y, z)
    volume[mask] = marrow
    volume[mask & is_disc] = disc
    stations = np.cumsum(rng.normal(0, 0.03, 8))
    shading = 1 + stations[(np.arange(grid.shape[2]) * 8) // grid.shape[2]]
    across = 1 + 0.15 * np.cos(grid.axis(0) / rng.uniform(150, 300) + rng.uniform(0, 6))
    volume *= (across[:, None, None] * shading[None, None]).astype(np.float32)
    return np.abs(volume + 15 * rng.standard_normal(volume.shape, dtype=np.float32)), mask.astype(np.uint8)


def other_scan_mask(phantom: Phantom, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the spine in the frame of a phantom's scan, drawn as one outline by hand: (rows, columns), 0 or 255."""
    shape = phantom.shape
    levels = np.arange(FIRST_THORACIC, LAST_LUMBAR + 1)
    wide, waist = rng.normal(1.0, 0.03), rng.uniform(0.0, 0.08)
    sides: dict[int, list[Array]] = {-1: [], 1: []}
    for level in levels:
        centre, tangent = shape.centre[level][[0, 2]], shape.tangent[level][[0, 2]]
        tangent = tangent / np.linalg.norm(tangent)
        across = np.array([-tangent[1], tangent[0]])
        at = int(np.argmin(np.abs(shape.line[:, 2] - centre[1])))
        for share in (-0.48, 0.0, 0.48):
            ends = (level == levels[0] and share < 0) or (level == levels[-1] and share > 0)
            along = tangent * shape.height[level] * (share * 1.04 + (rng.normal(0, 0.05) if ends else 0.0))
            for side in (-1, 1):
                half = shape.half_width[at] * wide * (1 - waist * (share == 0)) + rng.normal(0, 0.7)
                sides[side].append(centre + along + side * half * across)
    outline = np.array(sides[-1] + sides[1][::-1])
    top, left = phantom.framing.top_left_mm
    row_mm, column_mm = phantom.framing.pixel_mm
    pixels = np.stack([(outline[:, 0] - left) / column_mm, (top - outline[:, 1]) / row_mm], axis=1)
    mask = np.zeros(phantom.framing.shape, dtype=np.uint8)
    cv2.fillPoly(mask, [np.round(pixels * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
    return mask


def _surfaces(
    subject: Subject, rng: np.random.Generator, x: Array, z: Array
) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """Return y of front and back of the body, thickness of fat, and where the trunk is, at each (x, z)."""
    person = subject.person
    table = _TRUNK.copy()
    table[1:-1, 0] += rng.normal(0, 0.004, len(table) - 2)
    table[:, 1:] *= rng.normal(1.0, 0.04, (len(table), 2)) * person.scale
    girth = person.habitus ** rng.uniform(0.5, 1.0)
    fraction = (person.crown_z - z) / person.extent_mm
    half, thick = (np.interp(fraction, table[:, 0], table[:, k] * girth) for k in (1, 2))
    middle = z * np.tan(np.radians(person.lean_deg + rng.normal(0, 0.7))) + rng.normal(0, 4)
    power = rng.uniform(2.0, 3.2)
    away = np.abs(x - middle) / half
    # two thighs
    gap = rng.uniform(6, 20)
    legs = fraction > rng.uniform(0.50, 0.53)
    leg = np.abs(np.abs(x - middle) - half / 2 - gap / 2) / np.maximum(half / 2 - gap / 2, 1)
    away = np.where(legs, leg, away)
    section = np.maximum(1 - away**power, 0) ** (1 / power)
    trunk = section > 0
    back_mm = _BACK_MM * girth * rng.uniform(0.95, 1.1)
    back = np.where(trunk, back_mm - thick * (1 - section) * 0.35, 0.0)
    front = np.where(trunk, back - thick * section, 0.0)
    if rng.random() < 0.7:
        for side in (-1, 1):
            out = rng.uniform(1.0, 1.25)
            place = np.interp(fraction, [0.17, 0.25, 0.46], [185, 230, 275]) * out * person.scale
            wide = np.interp(fraction, [0.165, 0.2, 0.45, 0.5], [5, 44, 28, 2]) * girth**0.5
            arm = np.abs(x - middle - side * place) / wide
            arm = np.where((fraction > 0.165) & (fraction < 0.5) & ~trunk, arm, 2)
            on = arm < 1
            high = 0.9 * wide * np.sqrt(np.maximum(1 - arm**2, 0))
            level = rng.uniform(10, 50)
            front, back = np.where(on, level - high, front), np.where(on, level + high, back)
    rind = np.where(trunk, rng.uniform(8, 22) * girth, 6.0)
    return front, back, rind, trunk


class _Fields:
    """A volume with the coordinates of its voxels, (x, z) images and y, and where organs may be."""

    def __init__(self, volume: Image, x: Array, y: Array, z: Array, inside: NDArray[np.bool_]) -> None:
        self.volume, self.x, self.y, self.z, self.inside = volume, x, y, z, inside

    def ellipsoid(self, centre: Array, size: Array, value: float) -> None:
        """Fill an ellipsoid; `centre` and half axes `size` are (x, y, z), mm."""
        plane = ((self.x - centre[0]) / size[0]) ** 2 + ((self.z - centre[2]) / size[2]) ** 2
        columns = np.flatnonzero((plane < 1).any(axis=1))
        rows = np.flatnonzero((plane < 1).any(axis=0))
        deep = np.flatnonzero(np.abs(self.y - centre[1]) < size[1])
        if not (columns.size and rows.size and deep.size):
            return
        box = tuple(slice(int(found[0]), int(found[-1]) + 1) for found in (columns, deep, rows))
        apart = plane[box[0], box[2]][:, None] + (((self.y[box[1]] - centre[1]) / size[1]) ** 2)[None, :, None]
        part = self.volume[box]
        part[(apart < 1) & self.inside[box]] = value


def _organs(
    subject: Subject, rng: np.random.Generator, fields: _Fields, liver: float, organ: float, blood: float
) -> None:
    """Draw lungs, heart, liver, stomach with gas, spleen, kidneys, aorta and gas of the bowel."""
    person, s = subject.person, subject.person.scale
    line = subject.shape.line

    def place(x: float, y: float, fraction: float) -> Array:
        z = float(person.z(fraction))
        axis = [float(np.interp(-z, -line[:, 2], line[:, k])) for k in (0, 1)]
        return np.array([axis[0] + x * s, y * s, z])

    def sized(*size: float) -> Array:
        return np.array(size) * s * rng.uniform(0.92, 1.08, 3)

    dome = rng.normal(0.282, 0.006)
    for side in (-1, 1):
        low = dome + 0.006 * (side > 0)
        middle, half = (0.155 + low) / 2, (low - 0.155) / 2 * person.extent_mm / s
        fields.ellipsoid(place(side * 78, -15, middle), sized(54, 82, half), _AIR)
    fields.ellipsoid(place(34, -62, 0.245), sized(62, 46, 55), blood)
    fields.ellipsoid(place(-68, -32, dome + 0.028), sized(82, 78, 72), liver)
    fields.ellipsoid(place(86, 12, dome + 0.030), sized(26, 42, 48), organ)
    fields.ellipsoid(place(62, -45, dome + 0.018), sized(46, 42, 40), organ)
    fields.ellipsoid(place(62, -58, dome + 0.014), sized(*rng.uniform((18, 14, 14), (38, 30, 30))), _AIR)
    for side in (-1, 1):
        fields.ellipsoid(place(side * 62, 12, 0.345 + 0.008 * (side < 0)), sized(27, 26, 54), organ)
    for _ in range(int(rng.integers(2, 12))):
        spot = place(float(rng.uniform(-90, 90)), float(rng.uniform(-90, -50)), float(rng.uniform(0.34, 0.46)))
        fields.ellipsoid(spot, rng.uniform(6, 20, 3), _AIR)
    for z in np.arange(float(person.z(0.40)), float(person.z(0.20)), 8.0):
        axis = [float(np.interp(-z, -line[:, 2], line[:, k])) for k in (0, 1)]
        half = float(np.interp(-z, -line[:, 2], subject.shape.half_depth))
        fields.ellipsoid(np.array([axis[0] + 12, axis[1] - half - 12, z]), np.array([11.0, 11.0, 9.0]), blood)


def _vertebrae(
    subject: Subject, rng: np.random.Generator, x: Array, y: Array, z: Array
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the voxels of bodies and discs from T1 to L5, and which of them are disc."""
    shape = subject.shape
    wide, deep = rng.normal(1.0, 0.03, 2)
    power, waist = rng.uniform(2.2, 3.2), rng.uniform(0.02, 0.10)
    mask = np.zeros((x.shape[0], len(y), x.shape[1]), dtype=bool)
    is_disc = np.zeros_like(mask)
    for level in range(FIRST_THORACIC, LAST_LUMBAR + 1):
        centre, tangent = shape.centre[level], shape.tangent[level]
        above = 0.5 * shape.height[level] * (1 + rng.normal(0, 0.03))
        pitch = float(np.linalg.norm(shape.centre[level + 1] - centre))
        below = above + rng.normal(0, 0.5) if level == LAST_LUMBAR else pitch - 0.45 * shape.height[level + 1]
        reach = pitch + 30
        columns = np.flatnonzero((np.hypot(x - centre[0], z - centre[2]) < reach).any(axis=1))
        rows = np.flatnonzero((np.hypot(x - centre[0], z - centre[2]) < reach).any(axis=0))
        deep_rows = np.flatnonzero(np.abs(y - centre[1]) < 45)
        box = tuple(slice(int(found[0]), int(found[-1]) + 1) for found in (columns, deep_rows, rows))
        dx, dz = (x - centre[0])[box[0], box[2]][:, None], (z - centre[2])[box[0], box[2]][:, None]
        dy = (y - centre[1])[box[1]][None, :, None]
        along = dx * tangent[0] + dy * tangent[1] + dz * tangent[2]
        along = along * (1 if tangent[2] < 0 else -1)
        sideways, forward = np.abs(dx - along * tangent[0]), np.abs(dy - along * tangent[1])
        at = int(np.argmin(np.abs(shape.line[:, 2] - centre[2])))
        narrow = 1 - waist * np.maximum(1 - (along / above) ** 2, 0)
        half = (float(half[at]) * factor for half, factor in ((shape.half_width, wide), (shape.half_depth, deep)))
        a, b = (size * narrow * (1 + rng.normal(0, 0.02)) for size in half)
        inside = (sideways / a) ** power + (forward / b) ** power < 1
        inside &= (along > -above) & (along <= below)
        mask[box] |= inside
        is_disc[box] |= inside & (along > above)
    return mask, is_disc
