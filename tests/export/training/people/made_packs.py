"""Packs of bone with known sizes: vertebrae as elliptic cylinders of average proportions, as CT and as meshes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_spine.vertebrae import CENTRE_PITCH_MM, LEVELS

STEP_MM = 1.5
PITCH = np.append(CENTRE_PITCH_MM, CENTRE_PITCH_MM[-1])
HALF_WIDTH, HALF_DEPTH = 0.63 * PITCH, 0.50 * PITCH
TURN_DEG = 6.0


def centres(first: int = 0, last: int = len(LEVELS) - 1) -> NDArray[np.float64]:
    """Body centres (L, 3) of a gently bent spine, mm."""
    z = -np.concatenate([[0.0], np.cumsum(CENTRE_PITCH_MM)])
    share = z / z[-1]
    line = np.stack([6 * np.sin(np.pi * share), 18 * np.sin(np.pi * share), z], axis=1)[first : last + 1]
    return line - line.min(axis=0) + [60.0, 45.0, 30.0]


def write_ct(
    path: Path, first: int = 0, last: int = len(LEVELS) - 1, name: str = "made", *, arches: bool = True
) -> None:
    """Write a CT pack whose vertebrae are elliptic cylinders, with or without arches, turned by 6 degrees."""
    middle = centres(first, last)
    size = np.ceil((middle.max(axis=0) + [60.0, 75.0, 30.0]) / STEP_MM).astype(int)
    z, y, x = (axis * STEP_MM for axis in np.ogrid[: size[2], : size[1], : size[0]])
    hu = np.full((size[2], size[1], size[0]), 40, dtype=np.int16)
    turn = np.radians(TURN_DEG)
    for k, (cx, cy, cz) in enumerate(middle):
        pitch, wide, deep = PITCH[first + k], HALF_WIDTH[first + k], HALF_DEPTH[first + k]
        high = 0.39 * pitch
        across = np.cos(turn) * (x - cx) + np.sin(turn) * (y - cy)
        along = np.cos(turn) * (y - cy) - np.sin(turn) * (x - cx)
        body = (across / wide) ** 2 + (along / deep) ** 2 <= 1
        spine = (np.abs(across) < 3) & (along > deep + 12) & (along < deep + 34)
        arch = (np.abs(along - deep - 13) < 3) & (np.abs(across) < 16)
        processes = (np.abs(along - deep - 10) < 4) & (np.abs(np.abs(across) - wide - 5) < 8)
        hu[(np.abs(z - cz) < high) & (body | (arches & (spine | arch | processes)))] = 420
    keep = np.ones(hu.shape, dtype=bool)
    np.savez(
        path / f"{name}.npz",
        hu=hu,
        spacing_mm=np.full(3, STEP_MM),
        keep=np.packbits(keep),
        keep_shape=np.array(hu.shape),
        levels=np.array(LEVELS[first : last + 1]),
        centers_mm=middle[:, ::-1],
    )


def cylinder(
    centre: NDArray[np.float64], half_width: float, half_depth: float, high: float, sides: int = 40
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Vertices and triangles of a closed elliptic cylinder."""
    angle = 2 * np.pi * np.arange(sides) / sides
    ring = np.stack([half_width * np.cos(angle), half_depth * np.sin(angle)], axis=1)
    low, top = (np.column_stack([ring, np.full(sides, z)]) for z in (-high / 2, high / 2))
    vertices = np.concatenate([low, top, [[0, 0, -high / 2], [0, 0, high / 2]]]) + centre
    k, after = np.arange(sides), (np.arange(sides) + 1) % sides
    faces = np.concatenate(
        [
            np.stack([k, after, sides + k], axis=1),
            np.stack([after, sides + after, sides + k], axis=1),
            np.stack([after, k, np.full(sides, 2 * sides)], axis=1),
            np.stack([sides + k, sides + after, np.full(sides, 2 * sides + 1)], axis=1),
        ]
    )
    return vertices.astype(np.float32), faces.astype(np.int32)


def write_meshes(path: Path, first: int, last: int, name: str = "meshes") -> None:
    """Write a mesh pack whose vertebrae are closed cylinders."""
    bones = {}
    for k, centre in zip(range(first, last + 1), centres(first, last), strict=True):
        vertices, faces = cylinder(centre, HALF_WIDTH[k], HALF_DEPTH[k], 0.78 * PITCH[k])
        bones[f"{LEVELS[k]}__v"], bones[f"{LEVELS[k]}__f"] = vertices, faces
    np.savez(path / f"{name}.npz", **bones)
