"""Extract the six curves of an aligned MRI: borders of its spine mask in coronal and sagittal projection.

As in the paper (Bourigault et al., MICCAI 2024), the coronal curves are the outermost voxels of the mask's coronal
projection and the line between them, the sagittal curves those of its sagittal projection.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import BSpline, make_lsq_spline

from edge_spine.network import CURVE_ROWS
from export.training.alignment.rigid import Array, Placement, moved
from export.training.alignment.volume import PairSkipped, Volume
from export.training.dataset import SpineInScan

# End plates are tilted; sections between these depths below an end are complete.
_WHOLE_FROM_MM, _WHOLE_TO_MM = 18.0, 36.0
_KNOT_MM = 38.0
# Of 10,376 phantoms T1 to L5 covered 180 to 231 rows, least where curves of 60 degrees and more shorten it: below 183,
# 1.8 % of those would be lost. Whether a mask is whole is judged by both masks' ends (`checks`), not by its length.
_MOST_EXTRAPOLATED_ROWS, _MOST_ROWS = 17, 240
_MOST_GAP_MM, _MOST_MISSING = 45.0, 0.25
# Smallest vertebra as a fraction of the largest part of a mask; smaller parts are specks.
_LEAST_PART = 0.1
# Shared height of two parts as a fraction of the lower one, for tilted vertebrae that are labelled apart.
_MOST_BESIDE = 0.5


@dataclass(frozen=True, eq=False)
class Track:
    """Spine of an aligned mask, in mm of the scan.

    Attributes
    ----------
    top_mm, bottom_mm : float
        z of the middle of T1's upper and of L5's lower end plate.
    first_mm, last_mm : float
        z of the first and last complete section; borders are extrapolated linearly beyond them.
    borders : spline
        From -z to left, right, anterior and posterior border.
    """

    top_mm: float
    bottom_mm: float
    first_mm: float
    last_mm: float
    borders: BSpline

    def curves_at(self, z: Array) -> Array:
        """Return the six curves (K, 6) at heights z (K,)."""
        held = np.clip(z, self.last_mm, self.first_mm)
        left, right, front, back = (self.borders(-held) + (held - z)[:, None] * self.borders(-held, 1)).T
        return np.stack([left, (left + right) / 2, right, front, (front + back) / 2, back], axis=1)

    def in_scan(self, model_pixel_mm: float, spacing_mm: tuple[float, float]) -> SpineInScan:
        """Return the position of the true crop.

        Raises
        ------
        PairSkipped
            "spine-not-whole" or "spine-too-long", if the mask cannot be T1 to L5.
        """
        middle = (self.top_mm + self.bottom_mm) / 2
        rows = (self.top_mm - self.bottom_mm) / model_pixel_mm
        if rows < len(CURVE_ROWS) - 2 * _MOST_EXTRAPOLATED_ROWS:
            raise PairSkipped(
                "spine-not-whole",
                f"the MRI's mask covers {rows:.0f} of {len(CURVE_ROWS)} rows; T1 to L5 covers at least "
                f"{len(CURVE_ROWS) - 2 * _MOST_EXTRAPOLATED_ROWS}",
            )
        if rows > _MOST_ROWS:
            raise PairSkipped(
                "spine-too-long", f"the MRI's mask is {rows:.0f} rows high; T1 to L5 is at most {_MOST_ROWS}"
            )
        z = middle - (np.arange(len(CURVE_ROWS)) - (len(CURVE_ROWS) - 1) / 2) * model_pixel_mm
        curves = self.curves_at(z)
        centre = (curves[:, 0].min() + curves[:, 2].max()) / 2
        row_mm, column_mm = spacing_mm
        ends_mm = np.array([self.top_mm, self.bottom_mm])
        ends = [
            (float(-z) / row_mm, float(x) / column_mm)
            for z, x in zip(ends_mm, self.curves_at(ends_mm)[:, 1], strict=True)
        ]
        return SpineInScan(model_pixel_mm, (-middle / row_mm, float(centre) / column_mm), ends, self.curves_at)


def track(mask: Volume, placement: Placement, pixel_mm: float) -> Track:
    """Trace the borders of a spine mask in the frame of the scan.

    Raises
    ------
    PairSkipped
        "mri-mask-empty"; "mri-mask-pieces"; "spine-not-whole" if the mask leaves the volume or has long gaps.
    """
    values = _main_parts(mask.values > 0)
    if values[:, :, 0].any() or values[:, :, -1].any():
        raise PairSkipped("spine-not-whole", "the spine mask runs out of the MRI's field of view")
    pitch = pixel_mm / 2
    occupied, z_mm, x_mm = _in_scan_rows(Volume(values, mask.voxel_mm, mask.first_mm), placement, pitch)
    y_mm = mask.first_mm[1] + np.arange(occupied.shape[0]) * mask.voxel_mm[1]
    area = occupied.sum(axis=(0, 2))
    first, top = _end(area, pitch)
    last, bottom = _end(area[::-1], pitch)
    last, bottom = len(area) - 1 - last, len(area) - 1 - bottom
    views = ((occupied.max(axis=0), x_mm), (occupied.max(axis=2).T, y_mm))
    borders = np.concatenate([mm[0] + borders_of(shown) * (mm[1] - mm[0]) for shown, mm in views], axis=1)
    inside = slice(first, last + 1)
    borders, z = borders[inside], z_mm[inside]
    shown = np.isfinite(borders).all(axis=1)
    missing = np.diff(np.flatnonzero(shown), prepend=-1).max() * pitch
    if missing > _MOST_GAP_MM or shown.mean() < 1 - _MOST_MISSING:
        raise PairSkipped("spine-not-whole", f"the MRI's mask has gaps, the longest {missing:.0f} mm")
    spline = _robust_spline(-z[shown], borders[shown])
    rows = np.arange(len(z_mm))
    return Track(
        float(np.interp(top, rows, z_mm)), float(np.interp(bottom, rows, z_mm)), float(z[0]), float(z[-1]), spline
    )


def _main_parts(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Keep the parts of a mask that may be vertebrae."""
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if not count:
        raise PairSkipped("mri-mask-empty", "the MRI's spine mask is empty")
    size = np.bincount(labels.ravel())
    size[0] = 0
    kept = np.flatnonzero(size > _LEAST_PART * size.max())
    boxes = ndimage.find_objects(labels)
    heights = sorted((boxes[part - 1][2].start, boxes[part - 1][2].stop) for part in kept)
    for (first, end), (start, stop) in itertools.pairwise(heights):
        # vertebrae stand on each other
        if min(end, stop) - start > _MOST_BESIDE * min(end - first, stop - start):
            raise PairSkipped("mri-mask-pieces", "two parts of the MRI's mask lie beside each other: one is no spine")
    return np.asarray(np.isin(labels, kept), dtype=np.float32)


def _in_scan_rows(mask: Volume, placement: Placement, pitch: float) -> tuple[NDArray[np.float32], Array, Array]:
    """Resample a mask on rows and columns of the scan: (y, rows, columns), with z of the rows and x of the columns."""
    held = np.argwhere(mask.values > 0)
    corners = mask.first_mm + np.stack([held.min(axis=0) - 1, held.max(axis=0) + 1]) * mask.voxel_mm
    points = placement.to_scan(np.array([(x, z) for x in corners[:, 0] for z in corners[:, 2]]))
    (left, low), (right, top) = points.min(axis=0), points.max(axis=0)
    shape = (int((top - low) / pitch) + 2, int((right - left) / pitch) + 2)
    slices = np.zeros((mask.values.shape[1], *shape), dtype=np.float32)
    for y in range(held[:, 1].min(), held[:, 1].max() + 1):
        slices[y] = moved(mask.coronal(mask.values[:, y]), placement, pitch, (float(top), float(left)), shape)
    return slices, top - np.arange(shape[0]) * pitch, left + np.arange(shape[1]) * pitch


def _end(area: NDArray[np.float32], pitch: float) -> tuple[int, float]:
    """Return the first row with a complete section, and that with half a section: the middle of a tilted end plate."""
    start = int(np.flatnonzero(area > 0)[0])
    near = area[start + int(_WHOLE_FROM_MM / pitch) : start + int(_WHOLE_TO_MM / pitch)]
    whole = float(np.median(near)) if near.size else 0.0
    if whole <= 0:
        raise PairSkipped("spine-not-whole", "the MRI's mask has a gap at one end")
    full = start + int(np.argmax(area[start:] >= 0.93 * whole))
    half = start + int(np.argmax(area[start:] >= 0.5 * whole))
    before = float(area[half - 1]) if half else 0.0
    return full, half - (float(area[half]) - 0.5 * whole) / max(float(area[half]) - before, 1e-6)


def borders_of(shown: NDArray[np.float32]) -> Array:
    """Return the first and last crossing of 0.5 in each row of a mask (rows, columns), columns: (rows, 2); else NaN."""
    above, last = shown > 0.5, shown.shape[1] - 1
    rows = np.flatnonzero(above.any(axis=1))
    outside = np.pad(shown, ((0, 0), (1, 1))).astype(np.float64)
    found = np.full((len(shown), 2), np.nan)
    for side, (inner, out) in enumerate(((above.argmax(axis=1), -1), (last - above[:, ::-1].argmax(axis=1), 1))):
        at = inner[rows] + 1
        level, beyond = outside[rows, at], outside[rows, at + out]
        found[rows, side] = inner[rows] + out * (level - 0.5) / np.maximum(level - beyond, 1e-6)
    return found


def _robust_spline(along: Array, values: Array) -> BSpline:
    """Fit cubics to (K, 4) borders robustly (iteratively reweighted, Cauchy)."""
    count = max(2, round((along[-1] - along[0]) / _KNOT_MM))
    inner = np.linspace(along[0], along[-1], count + 1)[1:-1]
    knots = np.concatenate([[along[0]] * 4, inner, [along[-1]] * 4])
    weight = np.ones_like(values)
    for _ in range(8):
        coefficients = [
            make_lsq_spline(along, values[:, k], knots, w=np.sqrt(weight[:, k])).c for k in range(values.shape[1])
        ]
        spline = BSpline(knots, np.stack(coefficients, axis=1), 3)
        apart = values - spline(along)
        scale = np.maximum(2 * 1.4826 * np.median(np.abs(apart), axis=0), 0.8)
        weight = 1 / (1 + (apart / scale) ** 2) ** 2
    return spline
