"""Find what disturbs the picture of a spine: metal, contrast medium, clipped greys, movement, objects, coarse rows.

Everything but the last is measured on the network's input, most of it straightened along the centreline that was
found. The limits lie between what `python -m export.studies.disturbance` finds on undisturbed and on disturbed scans;
it prints hits and false alarms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_spine.bundle.bands import Bands
from edge_spine.network import ROWS
from edge_spine.preprocessing.intensity import percentile
from edge_spine.preprocessing.prepare import Prepared
from edge_spine.reconstruct import Curves

Rows: TypeAlias = NDArray[np.bool_]
Image: TypeAlias = NDArray[np.float32]
METAL, CONTRAST, SATURATED = "metal", "contrast-medium", "saturated"
MOTION, ACROSS, COARSE = "motion", "object-across", "rows-coarse"
FLAGS = (METAL, CONTRAST, SATURATED, MOTION, ACROSS, COARSE)
# factor on the 90 % band of disturbed rows: errors there reach this many bands, rounded up
WIDENING = {METAL: 8.0, CONTRAST: 8.0, SATURATED: 2.0, MOTION: 3.0, ACROSS: 2.0, COARSE: 2.0}

# columns of the straightened picture, mm from the centreline
_ACROSS_MM = np.linspace(-76.0, 76.0, 73)
_STEP_MM = float(_ACROSS_MM[1] - _ACROSS_MM[0])
# part of the half-width within which a pixel is surely spine
_WITHIN = 0.8
# grey of metal and of what is clipped; white share of the spine that is clipped
_WHITE, _CLIPPED = 0.985, 0.6
# where greys are clipped, more than this part is white this far outside the spine's border; else metal covers the spine
_BESIDE_MM, _BONE = 15.0, 0.002
# white areas that are metal, together and each at least, this far from the centreline
_METAL_MM2, _LEAST_METAL_MM2, _METAL_REACH_MM = 300.0, 60.0, 60.0
# either a compact area with a sharp edge, or any whose surroundings are clearly darker: limits of the mean grey just
# outside the edge, and of the area in and around it that is at least `_BRIGHT` over its own
_METAL_EDGES, _BRIGHT = ((0.88, 1.55), (0.78, 3.0)), 0.85
# contrast medium: as bright as this part of the lumbar spine, this far outside its border, this large, below T10
_CONTRAST_LEVEL, _CONTRAST_MM, _CONTRAST_MM2, _ABDOMEN = 0.9, (10.0, 50.0), 200.0, slice(115, 198)
# movement: shift from one pair of rows to the next, mm
_SHIFT_MM, _SHIFT_BLUR_PX = 8.0, 4.0
# objects across: how much brighter a quarter of the columns is than above and below, by half the height in rows
_BRIGHTER = {4: 0.035, 9: 0.10}
_COARSE_MM = 7.0
# rows beside an object are disturbed too; both ends show other things than the spine
_MARGIN_ROWS, _ENDS = 6, 8


@dataclass(frozen=True, eq=False)
class Disturbances:
    """Disturbances of a picture, by row of the curves.

    `rows` are (209,) arrays by any of `FLAGS`, True for the rows of the curves that are disturbed; `metal_mm` (209,) is
    the width of the metal in each row, mm, 0 where there is none.
    """

    rows: Mapping[str, Rows]
    metal_mm: NDArray[np.float64]

    @property
    def local(self) -> Rows:
        """Rows, (209,), where the centre may be misplaced; without `COARSE` and `SATURATED`, which concern them all."""
        placed = [rows for flag, rows in self.rows.items() if flag not in (COARSE, SATURATED)]
        return np.asarray(np.any([np.zeros(ROWS), *placed], axis=0))


def find_disturbances(prepared: Prepared, curves: Curves) -> Disturbances:
    """Find disturbances of the network's input, with the rows of the curves that each concerns."""
    row_px = prepared.rows_px(curves.z)
    half_mm = ((curves.coronal[:, 2] - curves.coronal[:, 0]) / 2)[:, np.newaxis]
    straight = _straightened(prepared, curves, row_px)
    cell_mm2 = _STEP_MM * abs(float(curves.z[1] - curves.z[0]))
    everywhere = np.ones(ROWS, dtype=np.bool_)
    found: dict[str, Rows] = {}
    if prepared.pixel_spacing_mm[0] > _COARSE_MM:
        found[COARSE] = everywhere
    white, spine = straight >= _WHITE, np.abs(_ACROSS_MM) < _WITHIN * half_mm
    if np.count_nonzero(white & spine) > _CLIPPED * np.count_nonzero(spine):
        # nothing brighter than the spine can be seen in it
        found[SATURATED] = everywhere
        beside = np.abs(_ACROSS_MM) > half_mm + _BESIDE_MM
        if np.count_nonzero(white & beside) > _BONE * np.count_nonzero(beside):
            return Disturbances(found, np.zeros(ROWS))
    metal = _metal(straight, white & (np.abs(_ACROSS_MM) < _METAL_REACH_MM), cell_mm2)
    objects = {
        METAL: np.asarray(metal.any(axis=1)),
        CONTRAST: _contrast(straight, spine, half_mm, cell_mm2),
        ACROSS: _across(straight),
    }
    found |= {flag: _grown(rows) for flag, rows in objects.items() if rows.any()}
    step = _step(prepared, row_px)
    # the edge of an object looks like a step
    if step is not None and not any(rows[step] for rows in found.values()):
        found[MOTION] = _grown(np.arange(ROWS) == step)
    rows_of = {flag: found[flag] for flag in FLAGS if flag in found}
    return Disturbances(rows_of, np.count_nonzero(metal, axis=1) * _STEP_MM)


def widened(bands: Bands, disturbed: Disturbances) -> Bands:
    """Return the bands, each row multiplied by the largest `WIDENING` of its disturbances.

    Behind metal the spine can lie anywhere: there the coronal half-width is at least the width of the metal.
    """
    factor = np.ones(ROWS)
    for flag, rows in disturbed.rows.items():
        factor[rows] = np.maximum(factor[rows], WIDENING[flag])
    coronal = np.maximum(bands.coronal * factor, disturbed.metal_mm)
    return replace(bands, coronal=coronal, sagittal=bands.sagittal * factor)


def _straightened(prepared: Prepared, curves: Curves, row_px: NDArray[np.float64]) -> Image:
    """Sample the network's input across the centreline, (209, 73)."""
    centre = prepared.columns_px(curves.coronal[:, 1:2])
    columns = (centre + _ACROSS_MM / prepared.model_pixel_mm).astype(np.float32)
    rows = np.repeat(row_px.astype(np.float32)[:, np.newaxis], len(_ACROSS_MM), axis=1)
    return np.asarray(cv2.remap(prepared.tensor[0, 0], columns, rows, cv2.INTER_LINEAR), dtype=np.float32)


def _opened(bright: Rows, rows: int, columns: int) -> NDArray[np.uint8]:
    opened = cv2.morphologyEx(bright.view(np.uint8), cv2.MORPH_OPEN, np.ones((rows, columns), np.uint8))
    return np.asarray(opened, dtype=np.uint8)


def _metal(straight: Image, white: Rows, cell_mm2: float) -> Rows:
    """Return white areas with sharp edges, (209, 73); bone that is as bright fades out."""
    # narrow enough for a rod
    opened = _opened(white, 5, 2)
    metal = np.zeros(white.shape, dtype=np.bool_)
    if cv2.countNonZero(opened) * cell_mm2 < _METAL_MM2:
        return metal
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened)
    for number in range(1, count):
        size = int(stats[number, cv2.CC_STAT_AREA])
        if size * cell_mm2 < _LEAST_METAL_MM2:
            continue
        area = labels == number
        edge, outside, around = (_dilated(area, width) for width in (3, 5, 9))
        mean = float(straight[outside & ~edge].mean())
        bright = np.count_nonzero(around & (straight >= _BRIGHT)) / size
        if any(mean < darker and bright < least for darker, least in _METAL_EDGES):
            metal |= area
    return np.asarray(metal & (np.count_nonzero(metal) * cell_mm2 >= _METAL_MM2))


def _dilated(area: Rows, width: int) -> Rows:
    return np.asarray(cv2.dilate(area.view(np.uint8), np.ones((width, width), np.uint8)) > 0)


def _contrast(straight: Image, spine: Rows, half_mm: NDArray[np.float64], cell_mm2: float) -> Rows:
    """Return the rows where something beside the lumbar spine is as bright as the spine."""
    part = straight[_ABDOMEN]
    level = _CONTRAST_LEVEL * percentile(part[spine[_ABDOMEN]], 50)
    outside = (np.abs(_ACROSS_MM) - half_mm[_ABDOMEN]).astype(np.float32)
    beside = (outside > _CONTRAST_MM[0]) & (outside < _CONTRAST_MM[1]) & (part > level)
    rows = np.zeros(ROWS, dtype=np.bool_)
    area = _opened(beside, 5, 5)
    rows[_ABDOMEN] = area.any(axis=1) & (cv2.countNonZero(area) * cell_mm2 >= _CONTRAST_MM2)
    return rows


def _across(straight: Image) -> Rows:
    """Return the rows where three quarters of the columns are brighter than above and below."""
    rows = np.zeros(len(straight), dtype=np.bool_)
    some = np.ascontiguousarray(straight[:, ::2])
    for half, limit in _BRIGHTER.items():
        mean, gap = cv2.blur(some, (1, 2 * half - 1)), 2 * half + 2
        brighter = mean[gap:-gap] - np.maximum(mean[: -2 * gap], mean[2 * gap :])
        share = np.count_nonzero(brighter > limit, axis=1)
        seen = np.flatnonzero(share >= brighter.shape[1] - brighter.shape[1] // 4) + gap
        for row in seen[(seen >= _ENDS) & (seen < ROWS - 3 * _ENDS)]:
            rows[row - half : row + half + 1] = True
    return rows


def _step(prepared: Prepared, row_px: NDArray[np.float64]) -> int | None:
    """Return the curves' row at which the picture is shifted sideways against the rows above; None where none is.

    The shift between the means of two pairs of rows is that of least squares (Lucas and Kanade 1981) after a blur.
    """
    image = prepared.tensor[0, 0]
    # half the columns are enough after a blur
    narrow = (image[:, ::2] + image[:, 1::2]) / 2
    smooth = cv2.GaussianBlur(narrow, (0, 0), sigmaX=_SHIFT_BLUR_PX / 2, sigmaY=0.01)
    pairs = (smooth[1:] + smooth[:-1]) / 2
    above, below = pairs[:-2], pairs[2:]
    middle = above + below
    slope = (middle[:, 2:] - middle[:, :-2]) / 8
    change = (above - below)[:, 1:-1]
    shift = np.einsum("ij,ij->i", slope, change) / np.maximum(np.einsum("ij,ij->i", slope, slope), 1e-6)
    first, last = int(row_px[0]) + _ENDS, int(row_px[-1]) - _ENDS
    inside = np.abs(shift[max(0, first) : last])
    if len(inside) == 0 or inside.max() * prepared.model_pixel_mm < _SHIFT_MM:
        return None
    return int(np.clip(np.searchsorted(row_px, max(0, first) + int(inside.argmax()) + 1.5), 0, ROWS - 1))


def _grown(rows: Rows) -> Rows:
    return np.convolve(rows, np.ones(2 * _MARGIN_ROWS + 1), "same") > 0
