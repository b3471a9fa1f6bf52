"""Move the bone of a pack with its vertebrae onto the curve of another spine, and project it.

Each voxel follows the rigid motion of its vertebra, with a transition half way between two bodies, so that vertebrae
keep their shape and discs are deformed. Ribs follow their vertebra at the neck and, further out, the thorax, which
follows only the smooth part of the motion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from edge_spine.vertebrae import LEVELS
from export.training.people.frames import Frames, find_frames
from export.training.people.packs import Pack, read_pack
from export.training.phantoms.scanner import Framing

Array = NDArray[np.float64]
Image = NDArray[np.float32]

# Mineral below visibility, g/cm3.
_LEAST = 0.02
# Length of the transition, as a fraction of the distance between bodies.
_PASS = (0.36, 0.64)
# Distance from the middle at which ribs begin to follow the thorax, and at which the pack's bone ends, mm.
_NECK_MM, _FREE_MM = 24.0, 58.0
PROXIMAL_MM, FADE_MM = 52.0, 15.0
# A lower rib: distance of its head from the middle, mm, fall along the spine, levels/mm, half its height, levels, and
# where it is cut off, mm from the middle.
_RIB_HEAD_MM, _RIB_FALL, _RIB_HALF, _STUMP_MM = 22.0, 0.8 / 30, 0.34, 27.0
# Levels over which the motion of the thorax is averaged.
_THORAX_LEVELS = 2.0
# Mean areal density of T1 to T12 and L1 to L5 over the width of the bodies in an average adult, g/cm2.
_AREAL = np.concatenate([np.linspace(0.80, 0.90, 12), np.full(5, 0.94)])
_FINE = 2


@dataclass(frozen=True, eq=False)
class Bone:
    """Bone of one pack, in parts between two body centres.

    Attributes
    ----------
    frames : Frames
        Frames of its vertebrae.
    levels : tuple of int
        Their levels, indices into `edge_spine.vertebrae.LEVELS`.
    parts : tuple of (N, 3) arrays
        Positions, mm in the pack's frame: part k is between vertebra k - 1 and vertebra k.
    lower : tuple of (N,) arrays
        Weight of the motion of vertebra k.
    free : tuple of (N,) arrays
        Weight of the motion of the thorax.
    place : tuple of (N,) arrays
        Position along the levels: -0.5 is half a pitch above the first centre, 0 the first centre.
    behind : tuple of (N,) arrays
        Distance behind the posterior wall of the bodies, mm; 0 within and in front of them.
    mass : tuple of (N,) arrays
        Bone mineral, g.
    """

    frames: Frames
    levels: tuple[int, ...]
    parts: tuple[NDArray[np.float32], ...]
    lower: tuple[NDArray[np.float32], ...]
    free: tuple[NDArray[np.float32], ...]
    place: tuple[NDArray[np.float32], ...]
    behind: tuple[NDArray[np.float32], ...]
    mass: tuple[NDArray[np.float32], ...]


@lru_cache(maxsize=32)
def read_bone(folder: Path, name: str) -> Bone:
    """Read a pack and cut it into parts; cached."""
    pack = read_pack(folder, name)
    return cut(pack, find_frames(pack))


def _ease(value: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    t = np.clip((value - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def cut(pack: Pack, frames: Frames) -> Bone:
    """Cut a pack's bone by oblique planes through its body centres."""
    voxels = np.argwhere(pack.mineral > _LEAST)
    points = (voxels[:, ::-1] * pack.step_mm + pack.origin_mm).astype(np.float32)
    mineral = pack.mineral[tuple(voxels.T)]
    count = len(frames.centre)
    up = frames.axes[:, 2].astype(np.float32)
    height = points @ up.T - np.einsum("li,li->l", frames.centre, frames.axes[:, 2]).astype(np.float32)
    if pack.label is None:
        part = np.clip((height < 0).sum(axis=1), 0, count).astype(np.int64)
    else:
        # Labelled bones follow their own vertebra everywhere.
        own = pack.label[tuple(voxels.T)].astype(np.int64)
        part = own + 1
    upper, lower = np.maximum(part - 1, 0), np.minimum(part, count - 1)
    index = np.arange(len(points))
    before, after = -height[index, upper], height[index, lower]
    share = before / np.maximum(before + after, 1e-3)
    share = np.where(part == 0, 1.0, np.where(part == count, 0.0, share)).astype(np.float32)
    place = (upper + share).astype(np.float32)
    place = np.where(part == 0, -after / frames.pitch[0], place)
    place = np.where(part == count, count - 1 + before / frames.pitch[-1], place)
    if pack.label is not None:
        share, place = np.zeros_like(share), own.astype(np.float32)
        part = np.minimum(part, count)
    nearest = np.clip(np.rint(place), 0, count - 1).astype(np.int64)
    away = points - frames.centre[nearest]
    across = np.einsum("ni,ni->n", away, frames.axes[nearest, 0]).astype(np.float32) / frames.scale
    along = np.einsum("ni,ni->n", away, frames.axes[nearest, 1]).astype(np.float32)
    lateral = np.abs(across).astype(np.float32)
    deep = frames.half_depth[nearest]
    fade = 1 - _ease(lateral, PROXIMAL_MM, PROXIMAL_MM + FADE_MM)
    kept = (place > -0.5) & (place < count - 0.5) & (fade > 0) & (mineral > 0)
    # Anterior to the bodies are vessels, airways and the sternum.
    kept &= along > -(deep + np.where(lateral < 30, 7.0, 20.0))
    areal = _areal_factor(frames, pack, nearest, across, mineral, kept)
    volume_cm3 = (pack.step_mm / 10) ** 3
    mass = (mineral * fade * volume_cm3 * areal).astype(np.float32)
    free = _ease(lateral, _NECK_MM, _FREE_MM)
    moved = _ease(share, *_PASS)
    behind = np.maximum(along - deep, 0).astype(np.float32)
    rows = [np.flatnonzero(kept & (part == k)) for k in range(count + 1)]
    return Bone(
        frames,
        pack.levels,
        *(
            tuple(np.ascontiguousarray(values[r]) for r in rows)
            for values in (points, moved, free, place, behind, mass)
        ),
    )


def without_ribs(bone: Bone, level: str) -> Bone:
    """Return the bone without the ribs of one thoracic level, cut off at the tip of its transverse processes."""
    if LEVELS.index(level) not in bone.levels:
        return bone
    order, kept = bone.levels.index(LEVELS.index(level)), []
    for free, place in zip(bone.free, bone.place, strict=True):
        # the share of the motion of the thorax tells how far to the side a point is; `_ease` inverted
        lateral = _NECK_MM + (_FREE_MM - _NECK_MM) * (0.5 - np.sin(np.arcsin(1 - 2 * free) / 3))
        axis = order - 0.1 + _RIB_FALL * (lateral - _RIB_HEAD_MM)
        own = (np.abs(place - axis) < _RIB_HALF) | (place == order)
        kept.append(~(own & (lateral > _STUMP_MM)))
    fields = {name: getattr(bone, name) for name in ("parts", "lower", "free", "place", "behind", "mass")}
    parts = {name: tuple(v[k] for v, k in zip(values, kept, strict=True)) for name, values in fields.items()}
    return replace(bone, **parts)


def _areal_factor(
    frames: Frames, pack: Pack, nearest: NDArray[np.int64], across: Array, mineral: Array, kept: NDArray[np.bool_]
) -> float:
    """Return the factor to the areal density of an average adult of this size, since HU are not calibrated."""
    inside = kept & (np.abs(across) * frames.scale < 0.9 * frames.half_width[nearest])
    mass = np.bincount(nearest[inside], weights=mineral[inside], minlength=len(frames.centre))
    mass = mass * (pack.step_mm / 10) ** 3
    area = 1.8 * frames.half_width * frames.pitch / 100
    return float(np.mean(_AREAL[list(pack.levels)] * frames.scale**0.5) / np.mean(mass / area))


@dataclass(frozen=True, eq=False)
class Target:
    """Target pose: centres (L, 3) and axes (L, 3, 3) of all of a pack's levels, and factors on its size.

    `size` is along the lateral, back and up axes; `first` and `last` are the pack's vertebrae that are used, from mid-
    disc to mid-disc.
    """

    centre: Array
    axes: Array
    size: tuple[float, float, float]
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Arches:
    """Change of the vertebral arches of a person, one value a level.

    Attributes
    ----------
    slope : (L,) array
        Tangent of the angle by which everything behind a body is turned down along the spine.
    mineral : (L,) array
        Factor on its bone mineral.
    """

    slope: Array
    mineral: Array

    def of(self, levels: tuple[int, ...]) -> Arches:
        """Return those of some levels."""
        return Arches(self.slope[list(levels)], self.mineral[list(levels)])


def draw_arches(rng: np.random.Generator, count: int) -> Arches:
    """Draw arches that differ from those of their pack: a constant of the person, a trend, and each vertebra's own.

    The spreads are guesses: 3 and 2 degrees, a fifth and a twelfth of the mineral.
    """
    along = np.linspace(-1, 1, count)
    angle = rng.normal(0, 3.0) + rng.normal(0, 3.0) * along + rng.normal(0, 2.0, count)
    mineral = np.exp(rng.normal(0, 0.2) + rng.normal(0, 0.08, count))
    return Arches(np.tan(np.radians(angle)), mineral)


def motions(frames: Frames, target: Target) -> tuple[Array, Array]:
    """Return the affine motions (L, 3, 4) of a pack's vertebrae, and of the thorax at each of them."""
    linear = np.einsum("lki,k,lkj->lij", target.axes, np.array(target.size), frames.axes)
    shift = target.centre - np.einsum("lij,lj->li", linear, frames.centre)
    rigid = np.concatenate([linear, shift[:, :, None]], axis=2)
    return rigid, ndimage.gaussian_filter1d(rigid, _THORAX_LEVELS, axis=0, mode="nearest")


def project(bone: Bone, target: Target, framing: Framing, gamma: float = 1.0, arches: Arches | None = None) -> Image:
    """Return the areal density (g/cm2) of a pack's bone in the pose of another spine, on a scan's pixels.

    Parameters
    ----------
    bone, target, framing : Bone, Target, Framing
        Bone, target pose, and image geometry.
    gamma : float
        Above 1 increases the wall of the bone relative to the marrow, at equal mass.
    arches : Arches, optional
        Change of the arches, one value for each of the pack's vertebrae.
    """
    rigid, thorax = motions(bone.frames, target)
    rows, columns = framing.shape[0] * _FINE, framing.shape[1] * _FINE
    pixel = (framing.pixel_mm[0] / _FINE, framing.pixel_mm[1] / _FINE)
    top = framing.top_left_mm[0] + framing.pixel_mm[0] / 2 - pixel[0] / 2
    left = framing.top_left_mm[1] - framing.pixel_mm[1] / 2 + pixel[1] / 2
    places, masses = [], []
    last = len(bone.levels) - 1
    for k, points in enumerate(bone.parts):
        upper, lower = max(k - 1, 0), min(k, last)
        used = (bone.place[k] >= target.first - 0.5) & (bone.place[k] < target.last + 0.5)
        if not used.any():
            continue
        everything = bool(used.all())
        point, low, free, place, behind, mass = (
            values if everything else values[used]
            for values in (points, bone.lower[k], bone.free[k], bone.place[k], bone.behind[k], bone.mass[k])
        )
        # Only x and z are visible.
        visible = np.concatenate([m[[0, 2]] for m in (rigid[upper], rigid[lower], thorax[upper], thorax[lower])])
        moved = point @ visible[:, :3].T.astype(np.float32) + visible[:, 3].astype(np.float32)
        near = moved[:, 0:2] + low[:, None] * (moved[:, 2:4] - moved[:, 0:2])
        far = moved[:, 4:6] + low[:, None] * (moved[:, 6:8] - moved[:, 4:6])
        seen = near + free[:, None] * (far - near)
        if arches is not None:
            order = np.clip(place, 0, last)
            levels = np.arange(last + 1)
            seen[:, 1] -= (np.interp(order, levels, arches.slope) * behind * target.size[1]).astype(np.float32)
            changed = np.interp(order, levels, arches.mineral).astype(np.float32)
            mass = mass * (1 + (changed - 1) * np.minimum(behind / 5, 1))
        places.append(seen)
        masses.append(mass)
    image = np.zeros((rows, columns), dtype=np.float32)
    if not places:
        return image[::_FINE, ::_FINE]
    place, mass = np.concatenate(places), np.concatenate(masses)
    if gamma != 1.0:
        total = mass.sum()
        mass = mass**gamma
        mass *= total / mass.sum()
    column, row = (place[:, 0] - left) / pixel[1], (top - place[:, 1]) / pixel[0]
    _deposit(image, row, column, mass * float(np.prod(target.size)))
    image *= 100.0 / (pixel[0] * pixel[1])
    return np.asarray(cv2.resize(image, framing.shape[::-1], interpolation=cv2.INTER_AREA), dtype=np.float32)


def _deposit(image: Image, row: NDArray[np.float32], column: NDArray[np.float32], mass: NDArray[np.float32]) -> None:
    """Add masses to the four pixels around each position with bilinear weights."""
    rows, columns = image.shape
    inside = (row > 0) & (row < rows - 1) & (column > 0) & (column < columns - 1)
    if not inside.all():
        row, column, mass = row[inside], column[inside], mass[inside]
    if len(row) == 0:
        return
    r, c = row.astype(np.int64), column.astype(np.int64)
    first, height = int(r.min()), int(r.max() - r.min()) + 2
    down, right = row - r, column - c
    start = (r - first) * columns + c
    size = height * columns
    lower = mass * down
    upper = mass - lower
    total = np.bincount(start, weights=upper * (1 - right), minlength=size)
    total += np.bincount(start + 1, weights=upper * right, minlength=size)[:size]
    total += np.bincount(start + columns, weights=lower * (1 - right), minlength=size)[:size]
    total += np.bincount(start + columns + 1, weights=lower * right, minlength=size + 1)[:size]
    image[first : first + height] += total.reshape(height, columns).astype(np.float32)
