"""Simulate the MRI of a phantom: a volume like UK Biobank's stitched Dixon MRI, with the mask of its spine.

The body has the outline of the phantom's soft tissue; depth, breasts and lungs are drawn anew, as breath differs from
scan to scan. A shell of fat lies around water, lungs are dark, vertebrae between the two. The spine mask has elliptic
cross-sections between the true borders and ends at the end plates of T1 and L5.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from export.training.alignment.rigid import Placement
from export.training.phantoms.absorptiometry import soft_tissue
from export.training.phantoms.phantom import Subject, make_phantom
from export.training.phantoms.scanner import IDXA, Framing
from export.training.phantoms.shape import FIRST_THORACIC, LAST_LUMBAR

FAT, WATER, MARROW, AIR = 900.0, 480.0, 640.0, 30.0
_PITCH_MM = 2.0
_LEAST_MM = 25.0
# Distance of the middle of the body anterior to the spine.
_BODY_Y_MM = -40.0


@dataclass(frozen=True)
class Grid:
    """Voxel grid of an MRI.

    Attributes
    ----------
    shape : (x, y, z)
        Number of voxels.
    voxel_mm : (x, y, z)
        Voxel size.
    first_mm : (x, y, z)
        Centre of the first voxel, LPS; coordinates increase with the index.
    """

    shape: tuple[int, int, int] = (224, 174, 370)
    voxel_mm: tuple[float, float, float] = (2.232, 2.232, 3.0)
    first_mm: tuple[float, float, float] = (-249.0, -234.0, -790.0)

    def axis(self, k: int) -> NDArray[np.float64]:
        """Return the coordinates of the voxels along one axis, mm."""
        return self.first_mm[k] + np.arange(self.shape[k]) * self.voxel_mm[k]

    @property
    def affine(self) -> NDArray[np.float64]:
        """NIfTI affine: from voxel indices to mm in RAS."""
        affine = np.diag([-self.voxel_mm[0], -self.voxel_mm[1], self.voxel_mm[2], 1.0])
        affine[:3, 3] = -self.first_mm[0], -self.first_mm[1], self.first_mm[2]
        return affine


DIXON = Grid()


def scan_offset_mm(subject: Subject) -> NDArray[np.float64]:
    """Return the position (x, z) of the middle of the subject's T1-L5, mm of the scan."""
    top, left = subject.framing.top_left_mm
    return np.array([-left, -top])


def make_mri(
    subject: Subject, placement: Placement, rng: np.random.Generator, grid: Grid = DIXON
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Simulate the MRI of a subject.

    Parameters
    ----------
    subject : Subject
        The person.
    placement : Placement
        Takes the MRI's coordinates (x, z) to those of the DXA scan.
    rng : numpy.random.Generator
        Generator of breath, fat, shading and noise.
    grid : Grid
        Voxel grid.

    Returns
    -------
    volume, mask : (x, y, z) arrays
        Intensities, float32, and the spine, 0 or 1.
    """
    x, z = np.meshgrid(grid.axis(0), grid.axis(2), indexing="ij")
    points = placement.to_scan(np.stack([x.ravel(), z.ravel()], axis=1)) - scan_offset_mm(subject)
    mask = _spine_mask(subject, points, grid)
    thick, air = _thickness(subject, rng, points, x.shape)
    fat = rng.uniform(6, 16) * subject.person.habitus
    y = np.abs(grid.axis(1) - _BODY_Y_MM)[None, :, None]
    volume = np.where(y < thick[:, None] / 2 - fat, WATER, FAT).astype(np.float32)
    volume[y < air[:, None] / 2] = AIR
    volume[mask > 0] = MARROW
    volume[y >= thick[:, None] / 2] = 0
    shading = 1 + 0.12 * np.cos(grid.axis(0) / 250 + rng.uniform(0, 6))[:, None, None]
    volume = volume * shading.astype(np.float32)
    return np.abs(volume + 18 * rng.standard_normal(volume.shape, dtype=np.float32)), mask


def _thickness(
    subject: Subject, rng: np.random.Generator, points: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return soft tissue and air (mm) at (N, 2) points (x, z) of the phantom, in the given shape."""
    top, left = subject.person.crown_z + 20, -400.0
    framing = Framing((round((top + 900) / _PITCH_MM), round(800 / _PITCH_MM)), (_PITCH_MM, _PITCH_MM), (top, left))
    where = (
        ((points[:, 0] - left) / _PITCH_MM).astype(np.float32).reshape(shape),
        ((top - points[:, 1]) / _PITCH_MM).astype(np.float32).reshape(shape),
    )
    images = soft_tissue(rng, subject.person, subject.shape, framing)
    body, air = (cv2.remap(image, *where, interpolation=cv2.INTER_LINEAR) for image in images)
    outline = _outline(subject, points).reshape(shape)
    return np.where(outline, np.maximum(body, _LEAST_MM), 0).astype(np.float32), np.asarray(air)


def _outline(subject: Subject, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which (N, 2) points (x, z) of the phantom are body in its scan."""
    whole = make_phantom(subject.seed, scanner=IDXA)
    top, left = whole.framing.top_left_mm
    row_mm, column_mm = whole.framing.pixel_mm
    column = ((points[:, 0] - left) / column_mm).astype(np.float32)
    row = ((top - points[:, 1]) / row_mm).astype(np.float32)
    inside = (whole.tissue > 0).astype(np.float32)
    # OpenCV's limit is 32767 columns.
    parts = zip(np.array_split(column, 64), np.array_split(row, 64), strict=True)
    return np.concatenate([cv2.remap(inside, c, r, interpolation=cv2.INTER_LINEAR).ravel() for c, r in parts]) > 0.5


def _spine_mask(subject: Subject, points: NDArray[np.float64], grid: Grid) -> NDArray[np.uint8]:
    """Return the voxels inside the ellipses between the true borders, from the top of T1 to the bottom of L5."""
    left, _, right, front, _, back = subject.curves_at(points[:, 1]).T
    across = (2 * points[:, 0] - left - right) / (right - left)
    # lines along y that meet the spine
    near = np.flatnonzero(np.abs(across) < 1)
    x, z = (points[near, k][:, None] for k in (0, 1))
    y = grid.axis(1)
    inside = across[near, None] ** 2 + ((2 * y - (front + back)[near, None]) / (back - front)[near, None]) ** 2 < 1
    for (x0, y0, z0), level, sign in zip(subject.trunk_ends, (FIRST_THORACIC, LAST_LUMBAR), (1, -1), strict=True):
        tx, ty, tz = subject.shape.tangent[level]
        inside &= sign * ((x - x0) * tx + (y - y0) * ty + (z - z0) * tz) > 0
    mask = np.zeros(grid.shape, dtype=np.uint8)
    column, row = np.unravel_index(near, (grid.shape[0], grid.shape[2]))
    mask[column, :, row] = inside
    return mask
