"""Estimate position, orientation and body size of each vertebra of a pack.

The body centres of a pack (read by eye in CT, the thickest part of the bone in a mesh) give a smooth line. A
vertebra's up axis is the tangent of that line. Its axial rotation is the turn about it at which the bone of the level
behind the middle of the body is most like its own mirror image. Left and right, front and rear of the body are where
the bone falls to half of its inner density, on the body's rows and, between them, across the disc; they give width,
depth and the centre that lies half way between them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import make_smoothing_spline

from edge_spine.vertebrae import CENTRE_PITCH_MM
from export.training.people.packs import Pack

Array = NDArray[np.float64]

_SEARCH_DEG = np.arange(-14.0, 14.5, 1.0)
_BIN_MM = 1.5
_LATERAL_MM, _FRONT_MM, _BACK_MM = 36.0, 4.0, 52.0
_MOST_OFF_MM = 6.0
# Limits the weight of contrast agent and cement.
_BRIGHTEST = 0.5
# Half width and depth of a body relative to the pitch of its level, if they cannot be measured.
_HALF_WIDTH, _HALF_DEPTH = 0.66, 0.52
# Tolerance of a level's size relative to the person's other levels.
_UNEVEN = 0.17


@dataclass(frozen=True, eq=False)
class Frames:
    """Vertebrae of a pack, mm in its own frame.

    Attributes
    ----------
    centre : (L, 3) array
        Centres of the bodies.
    axes : (L, 3, 3) array
        Rows: lateral (to the patient's left), back, up.
    pitch : (L,) array
        Distance to the next centre; the last one is the scaled average.
    half_width, half_depth : (L,) array
        Of the body and the disc below it.
    scale : float
        Size relative to the average spine.
    """

    centre: Array
    axes: Array
    pitch: Array
    half_width: Array
    half_depth: Array
    scale: float


def find_frames(pack: Pack) -> Frames:
    """Find the vertebrae of a pack; see the module."""
    table = np.append(CENTRE_PITCH_MM, CENTRE_PITCH_MM[-1])[list(pack.levels)]
    straight = _frames(pack.centres_mm, np.zeros(len(pack.levels)), table)
    turn = ndimage.median_filter([_symmetry(pack, straight, k) for k in range(len(pack.levels))], 3, mode="nearest")
    turn = ndimage.gaussian_filter1d(turn, 0.8, mode="nearest")
    frames = _frames(pack.centres_mm, turn, table)
    # The axes depend on the centres, so both are estimated twice.
    for _ in range(2):
        sizes = np.array([_body(pack, frames, k) for k in range(len(pack.levels))])
        off = ndimage.gaussian_filter1d(ndimage.median_filter(sizes[:, 2:], (3, 1), mode="nearest"), 0.7, axis=0)
        centres = frames.centre + np.einsum("lk,lki->li", off, frames.axes[:, :2])
        frames = _frames(centres, turn, table)
    typical = np.stack([_HALF_WIDTH * table * frames.scale, _HALF_DEPTH * table * frames.scale], axis=1)
    ratio = sizes[:, :2] / typical
    # Missing values are interpolated from the neighbours.
    for column in ratio.T:
        known = np.flatnonzero(np.isfinite(column))
        column[:] = np.interp(np.arange(len(column)), known, column[known]) if len(known) else 1.0
    # Exclude vessels with contrast and calcified ligaments at the edge of the body.
    median = np.median(ratio, axis=0)
    ratio = np.clip(ratio, (1 - _UNEVEN) * median, (1 + _UNEVEN) * median)
    ratio = ndimage.gaussian_filter1d(ndimage.median_filter(ratio, (3, 1), mode="nearest"), 0.7, axis=0, mode="nearest")
    return replace(frames, half_width=ratio[:, 0] * typical[:, 0], half_depth=ratio[:, 1] * typical[:, 1])


def _frames(centres: Array, turn_deg: Array, table: Array) -> Frames:
    count = len(centres)
    step = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    arc = np.concatenate([[0.0], np.cumsum(step)])
    if count >= 5:
        line = [make_smoothing_spline(arc, centres[:, axis], lam=2e3) for axis in range(3)]
        centre = np.stack([spline(arc) for spline in line], axis=1)
        tangent = np.stack([spline.derivative()(arc) for spline in line], axis=1)
    else:
        centre, tangent = centres, np.gradient(centres, arc, axis=0)
    up = -tangent / np.linalg.norm(tangent, axis=1, keepdims=True)
    lateral = np.array([1.0, 0.0, 0.0]) - up[:, :1] * up
    lateral /= np.linalg.norm(lateral, axis=1, keepdims=True)
    back = np.cross(up, lateral)
    angle = np.radians(turn_deg)[:, None]
    axes = np.stack(
        [np.cos(angle) * lateral + np.sin(angle) * back, np.cos(angle) * back - np.sin(angle) * lateral, up], axis=1
    )
    pitch = np.linalg.norm(np.diff(centre, axis=0), axis=1)
    scale = float(pitch.sum() / table[:-1].sum())
    return Frames(centre, axes, np.append(pitch, table[-1] * scale), np.zeros(count), np.zeros(count), scale)


def sample(pack: Pack, frames: Frames, level: int, lateral: Array, back: Array, up: Array) -> NDArray[np.float32]:
    """Return the mineral in a vertebra's frame, (len(up), len(back), len(lateral)), by linear interpolation."""
    grid = np.stack(np.meshgrid(up, back, lateral, indexing="ij"), axis=-1)[..., ::-1]
    points = frames.centre[level] + grid @ frames.axes[level]
    voxels = np.moveaxis((points - pack.origin_mm) / pack.step_mm, -1, 0)[::-1]
    bone: NDArray[np.float32] = ndimage.map_coordinates(pack.mineral, voxels, order=1, mode="constant")
    if pack.label is not None:
        # Exclude other vertebrae in the box.
        own = ndimage.map_coordinates(pack.label, voxels, order=0, mode="constant", cval=-1) == level
        bone = np.where(own, bone, 0)
    return bone


def _symmetry(pack: Pack, frames: Frames, level: int) -> float:
    """Return the rotation about the up axis (degrees) with the most symmetric bone, for any mirror plane."""
    half = 0.5 * frames.pitch[level]
    reach = np.hypot(_LATERAL_MM, _BACK_MM)
    wide = np.arange(-reach, reach + 1e-6, _BIN_MM)
    bone = sample(pack, frames, level, wide, wide, np.arange(-half, half, 2 * _BIN_MM))
    bone = np.minimum(bone, _BRIGHTEST).mean(axis=0)
    lateral = np.arange(-_LATERAL_MM, _LATERAL_MM + 1e-6, _BIN_MM)
    back = np.arange(-_FRONT_MM, _BACK_MM + 1e-6, _BIN_MM)
    x, y = np.meshgrid(lateral, back)
    best = (-np.inf, 0.0)
    for turn in _SEARCH_DEG:
        c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        place = np.stack([(s * x + c * y + reach) / _BIN_MM, (c * x - s * y + reach) / _BIN_MM])
        turned = ndimage.map_coordinates(bone, place, order=1)
        # Correlation with the mirror image for all lateral positions of the plane at once.
        size = 2 * turned.shape[1]
        spectrum = np.fft.rfft(turned, size, axis=1)
        likeness = np.fft.irfft((spectrum**2).sum(axis=0), size)
        near = np.arange(size)
        shift = (near - (turned.shape[1] - 1)) / 2 * _BIN_MM
        allowed = np.abs(shift) <= _MOST_OFF_MM
        score = np.where(allowed, likeness, -np.inf) / (turned**2).sum() - 1e-4 * turn**2
        best = max(best, (float(score.max()), float(turn)))
    return best[1]


def _body(pack: Pack, frames: Frames, level: int) -> tuple[float, float, float, float]:
    """Return half width and half depth, NaN if unclear, and the offset of the middle to left and back (mm)."""
    pitch = float(frames.pitch[level])
    wide, deep = _HALF_WIDTH * pitch, _HALF_DEPTH * pitch
    up = np.arange(-0.42, 0.43, 0.07) * pitch
    across, along = np.arange(-1.7 * wide, 1.7 * wide, 0.75), np.arange(-1.8 * deep, 1.9 * deep, 0.75)
    profile = sample(pack, frames, level, np.linspace(-0.25, 0.25, 7) * wide, along, up[2:-2]).mean(axis=(0, 2))
    front, rear = _edges(along, profile, 0.35 * deep)
    depth, middle = (rear - front) / 2, (rear + front) / 2
    if not 0.65 * deep < depth < 1.45 * deep:
        depth, middle = np.nan, 0.0
    # Anterior to the middle, without rib heads and pedicles.
    rows = sample(pack, frames, level, across, middle + np.linspace(-0.35, 0.05, 5) * deep, up).mean(axis=1)
    ends = np.array([_edges(across, row, 0.5 * wide) for row in rows])
    found, off = (ends[:, 1] - ends[:, 0]) / 2, ends.mean(axis=1)
    good = (found > 0.65 * wide) & (found < 1.4 * wide)
    if good.sum() < 4:
        return np.nan, depth, 0.0, middle
    found = np.interp(up, up[good], found[good])
    # Endplates are as wide as the disc between them.
    width = 0.8 * found.mean() + 0.2 * (found[:2].mean() + found[-2:].mean()) / 2
    return float(width), depth, float(np.median(off[good])), middle


def _edges(place: Array, profile: NDArray[np.float32], inside: float) -> tuple[float, float]:
    """Return the positions on both sides where a profile falls to half of its mean within `inside` of the middle."""
    core = np.abs(place) < inside
    level = 0.5 * float(profile[core].mean())
    ends = []
    for side in (-1, 1):
        order = np.flatnonzero(place * side > inside)[:: 1 if side > 0 else -1]
        value = profile[order]
        low = np.flatnonzero(value < level)
        if level <= 0.01 or len(low) == 0:
            return np.nan, np.nan
        k = low[0]
        if k == 0:
            ends.append(float(place[order[0]]))
            continue
        share = (value[k - 1] - level) / (value[k - 1] - value[k])
        ends.append(float(place[order[k - 1]] + share * (place[order[k]] - place[order[k - 1]])))
    return ends[0], ends[1]
