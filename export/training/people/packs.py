"""Read packs of real bone, CT of a spine or bone meshes of a skeleton, as a grid of bone mineral.

A pack is an npz file in a folder that the user names. A CT pack has `hu` (int16 [z, y, x]), `spacing_mm`, `keep` with
`keep_shape` (bit-packed mask of what is not vessel or heart), `levels` and `centers_mm` (z, y, x). A mesh pack has
`NAME__v` (vertices, mm, LPS) and `NAME__f` (triangles) for every bone; where its trunk is one mesh, a CSV beside it
(`NAME_levels.csv`: level, x_mm, y_mm, z_mm) gives the positions of the bodies.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from edge_spine.errors import UsageError
from edge_spine.vertebrae import LEVELS

Array = NDArray[np.float64]

MESH_STEP_MM = 1.25
# Bone density in CT: about 0.8 mg/cm3 per HU above marrow and muscle.
_MINERAL_PER_HU = 0.0008
_MARROW_HU = 35.0
_BONE_HU = 150.0
# g/cm3; the wall of a closed surface is cortical bone, the inside marrow.
_CORTICAL, _CANCELLOUS = 0.95, 0.17
_WALL_MM = 1.0


@dataclass(frozen=True, eq=False)
class Pack:
    """One person's bone.

    Attributes
    ----------
    name : str
        Name of the file.
    kind : str
        "ct" or "mesh".
    mineral : (Z, Y, X) float32 array
        Bone mineral, g/cm3 before calibration, z upwards, y to posterior, x to the patient's left.
    label : (Z, Y, X) int8 array or None
        Index into `levels` of the vertebra or rib of a voxel, -1 for none; None if bones are not
        labelled.
    step_mm : float
        Side of a voxel; voxel (0, 0, 0) has its centre at `origin_mm`.
    origin_mm : (3,) array
        x, y, z.
    levels : tuple of int
        Complete vertebrae, indices into `edge_spine.vertebrae.LEVELS`, without a gap.
    centres_mm : (L, 3) array
        Centres of their bodies (x, y, z).
    """

    name: str
    kind: str
    mineral: NDArray[np.float32]
    label: NDArray[np.int8] | None
    step_mm: float
    origin_mm: Array
    levels: tuple[int, ...]
    centres_mm: Array


def pack_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the packs in a folder and its subfolders.

    Raises
    ------
    UsageError
        There are no packs.
    """
    names = sorted(path.stem for path in folder.rglob("*.npz"))
    if not names:
        raise UsageError(f"{folder}: no packs of bone (NAME.npz) in this folder or below it")
    return tuple(names)


@lru_cache(maxsize=32)
def read_pack(folder: Path, name: str) -> Pack:
    """Read a pack by name from a folder or one of its subfolders.

    Raises
    ------
    UsageError
        The pack does not exist or has no usable vertebra.
    """
    path = next((path for path in sorted(folder.rglob("*.npz")) if path.stem == name), None)
    if path is None:
        raise UsageError(f"{folder}: no pack {name!r}; there are {', '.join(pack_names(folder))}")
    with np.load(path, allow_pickle=False) as stored:
        if "hu" in stored.files:
            return _ct(name, stored)
        bones = {key[:-3]: (stored[key], stored[f"{key[:-3]}__f"]) for key in stored.files if key.endswith("__v")}
    return _meshes(name, bones, path.with_name(f"{name}_levels.csv"))


def _ct(name: str, stored: Any) -> Pack:
    hu = stored["hu"].astype(np.float32)
    kept = np.unpackbits(stored["keep"])[: hu.size].reshape(stored["keep_shape"]).astype(bool)
    step = float(stored["spacing_mm"][0])
    levels = tuple(LEVELS.index(str(level)) for level in stored["levels"])
    centres = np.asarray(stored["centers_mm"], dtype=np.float64)[:, ::-1]
    smooth = ndimage.gaussian_filter(hu, 0.7)
    bone = smooth > _BONE_HU
    for centre, pitch in zip(centres, _pitches(centres), strict=True):
        bone |= _ellipsoid(hu.shape, centre / step, np.array([0.62, 0.5, 0.42]) * pitch / step) & (smooth > 0)
    mineral = np.where(bone & kept, np.clip(hu - _MARROW_HU, 0, 1800), 0) * np.float32(_MINERAL_PER_HU)
    return Pack(name, "ct", mineral.astype(np.float32), None, step, np.zeros(3), levels, centres)


def _pitches(centres: Array) -> Array:
    """Return the distance from each centre to the next (mm), repeated for the last."""
    pitch = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    return np.append(pitch, pitch[-1])


def _ellipsoid(shape: tuple[int, ...], centre: Array, radii: Array) -> NDArray[np.bool_]:
    """Return the voxels of an ellipsoid; centre and radii (x, y, z) in voxels."""
    inside = np.zeros(shape, dtype=bool)
    window = []
    for size, middle, radius in zip(shape, centre[::-1], radii[::-1], strict=True):
        window.append(slice(max(0, int(middle - radius)), min(size, int(middle + radius) + 2)))
    grids = np.ogrid[tuple(window)]
    away = sum(((g - m) / r) ** 2 for g, m, r in zip(grids, centre[::-1], radii[::-1], strict=True))
    inside[tuple(window)] = away <= 1
    return inside


def _meshes(name: str, bones: dict[str, tuple[NDArray[Any], NDArray[Any]]], beside: Path) -> Pack:
    if beside.exists():
        with beside.open(newline="", encoding="utf-8") as lines:
            rows = {row["level"]: [float(row[f"{axis}_mm"]) for axis in "xyz"] for row in csv.DictReader(lines)}
        levels = tuple(k for k, level in enumerate(LEVELS) if level in rows)
        centres = np.array([rows[LEVELS[k]] for k in levels])
        parts = {"skeleton": bones["skeleton"]}
        labels: dict[str, int] = {}
    else:
        levels = tuple(k for k, level in enumerate(LEVELS) if level in bones)
        if not levels:
            raise UsageError(f"{name}: no vertebra between T1 and L5 in this pack")
        bones = _stacked(bones, [LEVELS[k] for k in levels])
        parts, labels = {}, {}
        for order, k in enumerate(levels):
            for bone in (LEVELS[k], f"rib{k + 1}_R", f"rib{k + 1}_L"):
                if bone in bones:
                    parts[bone], labels[bone] = bones[bone], order
        centres = np.empty((0, 3))
    low = np.min([v.min(axis=0) for v, _ in parts.values()], axis=0) - 3.0
    high = np.max([v.max(axis=0) for v, _ in parts.values()], axis=0) + 3.0
    if len(centres):
        low = np.maximum(low, centres.min(axis=0) - [95.0, 80.0, 40.0])
        high = np.minimum(high, centres.max(axis=0) + [95.0, 95.0, 40.0])
    size = np.ceil((high - low) / MESH_STEP_MM).astype(int) + 1
    mineral = np.zeros(tuple(size[::-1]), dtype=np.float32)
    label = np.full(mineral.shape, -1, dtype=np.int8)
    found = []
    for bone, (vertices, faces) in parts.items():
        # Only inside the bone's bounding box.
        first = np.maximum(np.floor((vertices.min(axis=0) - low) / MESH_STEP_MM).astype(int) - 2, 0)
        last = np.minimum(np.ceil((vertices.max(axis=0) - low) / MESH_STEP_MM).astype(int) + 3, size)
        if np.any(last <= first):
            continue
        corner = low + first * MESH_STEP_MM
        solid = fill(vertices.astype(np.float64), faces, corner, tuple(last - first))
        depth = ndimage.distance_transform_edt(solid).astype(np.float32) * MESH_STEP_MM
        wall = np.clip((_WALL_MM - depth) / MESH_STEP_MM + 1.0, 0, 1)
        box = tuple(slice(f, e) for f, e in zip(first[::-1], last[::-1], strict=True))
        filled = np.where(solid, _CANCELLOUS + (_CORTICAL - _CANCELLOUS) * wall, 0).astype(np.float32)
        mineral[box] = np.maximum(mineral[box], filled)
        if labels:
            label[box][solid] = labels[bone]
        if bone in LEVELS:
            # The body is the thickest part of a vertebra.
            thick = np.argwhere(depth > 0.6 * depth.max())[:, ::-1]
            found.append(thick.mean(axis=0) * MESH_STEP_MM + corner)
    middle = np.array(found) if labels else centres
    return Pack(name, "mesh", mineral.astype(np.float32), label if labels else None, MESH_STEP_MM, low, levels, middle)


def _stacked(
    bones: dict[str, tuple[NDArray[Any], NDArray[Any]]], names: list[str]
) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Stack vertebrae with separate frames on a straight line."""
    middles = np.array([bones[name][0].mean(axis=0) for name in names])
    if np.all(-np.diff(middles[:, 2]) > 12.0):
        return bones
    stacked = {}
    for order, name in enumerate(names):
        vertices, faces = bones[name]
        stacked[name] = vertices - [0.0, 0.0, float(vertices[:, 2].mean()) + 38.0 * order], faces
    return stacked


def fill(vertices: Array, faces: NDArray[Any], low: Array, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the voxels inside a closed surface, by parity along z.

    Parameters
    ----------
    vertices, faces : (V, 3) and (F, 3) arrays
        mm, and indices.
    low : (3,) array
        Centre of voxel (0, 0, 0), x, y, z.
    size : (X, Y, Z)
        Voxels along each axis.

    Returns
    -------
    (Z, Y, X) bool array
    """
    # Shifted slightly, so that no ray meets an edge.
    place = (vertices - low) / MESH_STEP_MM + [1.3e-4, 2.7e-4, 0.0]
    corner = place[faces]
    first = np.clip(np.ceil(corner[:, :, :2].min(axis=1)), 0, None).astype(int)
    last = np.minimum(np.floor(corner[:, :, :2].max(axis=1)), np.array(size[:2]) - 1).astype(int)
    span = np.maximum(last - first + 1, 0)
    count = span[:, 0] * span[:, 1]
    which = np.repeat(np.arange(len(faces)), count)
    local = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    x = first[which, 0] + local % np.maximum(span[which, 0], 1)
    y = first[which, 1] + local // np.maximum(span[which, 0], 1)
    a, b, c = (corner[which, k] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
    area = np.where(np.abs(area) < 1e-12, np.inf, area)
    v = ((x - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (y - a[:, 1])) / area
    w = ((b[:, 0] - a[:, 0]) * (y - a[:, 1]) - (x - a[:, 0]) * (b[:, 1] - a[:, 1])) / area
    hit = (v >= 0) & (w >= 0) & (v + w <= 1) & np.isfinite(area)
    z = a[:, 2] + v * (b[:, 2] - a[:, 2]) + w * (c[:, 2] - a[:, 2])
    slot = np.clip(np.ceil(z[hit]), 0, size[2]).astype(int)
    crossings = np.zeros((size[2] + 1, size[1], size[0]), dtype=np.int16)
    np.add.at(crossings, (slot, y[hit], x[hit]), 1)
    inside: NDArray[np.bool_] = np.cumsum(crossings, axis=0, dtype=np.int16)[:-1] % 2 == 1
    return inside
