"""Measure whether a scan's pixel spacing agrees with the body in it, with the recorded height, and with the table.

Four lengths of the body, each along one axis of the image, are compared with those of adults: the skull's breadth and
the distance of the hip joints (columns), the extent from crown to toe and the depth of the hip joints below the crown
(rows). Their logarithms are taken as normally distributed about `MEANS` with the covariance `COVARIANCE`, which
`python -m export.studies.geometry --fit` prints; a factor on the spacing adds its logarithm to the lengths along its
axis. Generalised least squares gives two factors: of the scale, where both axes are wrong alike, and of the aspect,
columns over rows. Adults differ by 5 % in size, so that the body alone shows a scale that is wrong by 15 % in six
cases of ten only; with the shape of the image, which is that of a known table where nothing was cut, or a recorded
height it does in nearly all. The skull's circularity is not used: that of phantoms and that of a real head differ by
more than a tenth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_spine.errors import Refusal
from edge_spine.network import CANONICAL_ROWS, CROP_SIZE
from edge_spine.preprocessing.body import Body
from edge_spine.preprocessing.intensity import percentile
from edge_spine.preprocessing.prepare import Prepared
from edge_spine.scan import Scan

Array = NDArray[np.float64]

LENGTHS = ("skull breadth", "distance of the hip joints", "crown to toe", "crown to hip joints")
_ALONG_COLUMNS = np.array([1.0, 1.0, 0.0, 0.0])
# height and width of whole images, mm: GE Lunar iDXA, Hologic
TABLES_MM = ((1920.0, 658.0), (1955.0, 660.0))
# an image has a table's shape within this, logarithm of the ratio
_SAME_SHAPE = 0.02
# crown to the tips of pointed toes over the standing height
_TOES = 1.038
# heights that can be an adult's, m
_STATED_HEIGHT_M = (1.2, 2.3)
# natural logarithms of factors: least and most without a flag, and beyond which a scan is refused
_SCALE, _GROSS_SCALE = (-0.14, 0.135), 0.28
# a body of unusual size is believed where the image has the size of a whole table: how nearly, and up to which scale
_TABLE_ALIKE, _BELIEVED = 0.03, (-0.20, 0.20)
_ASPECT, _GROSS_ASPECT = (-0.068, 0.052), 0.17
_TABLE, _HEIGHT = 0.10, 0.08
# table and recorded height tell that the scale is wrong if the body shows at least this part of it
_SUPPORT = 0.2
SCALE_DOUBTFUL, ASPECT_DOUBTFUL = "scale-doubtful", "aspect-doubtful"
# parts of the extent below the crown
_SKULL_ROWS, _HIP_ROWS = 0.085, (0.43, 0.52)
# the skull ends at this part of its brightness; its breadth is the mean of the widest rows, part of the extent
_SKULL_PERCENTILE, _SKULL_LEVEL, _WIDEST_ROWS = 60, 0.45, 0.02
# hip joints lie between these distances from the midline, part of the extent, and are blurred to this size
_HIPS_FROM, _HIPS_TO, _CELL_MM, _BLUR_CELLS = 0.026, 0.080, 5.0, 3.0


@dataclass(frozen=True)
class Geometry:
    """The size of a body under a pixel spacing, beside what is usual; 1 is usual.

    Attributes
    ----------
    lengths_mm : (4,) array
        Of `LENGTHS`; nan where the image does not show one.
    scale, aspect : float or None
        Size of the body over an adult's, and its width over its height beside an adult's; None where too few lengths
        are seen.
    table : float or None
        Size of the image over that of the table whose shape it has, or its width where the feet are cut off; None
        where it has the shape of none.
    """

    lengths_mm: Array
    scale: float | None
    aspect: float | None
    table: float | None


def check_geometry(scan: Scan, prepared: Prepared) -> dict[str, str]:
    """Return flags, "scale-doubtful" and "aspect-doubtful", where a scan's spacing and the body in it disagree.

    Each flag has a sentence with its figures. Raise Refusal ("implausible-geometry") where they disagree grossly.
    """
    found = measure_geometry(prepared, scan.pixels.shape)
    if found.scale is None or found.aspect is None:
        return {}
    scale, aspect = math.log(found.scale), math.log(found.aspect)
    remarks: dict[str, str] = {}
    gross = abs(scale) > _GROSS_SCALE or abs(aspect) > _GROSS_ASPECT
    stated = f"the pixel spacing {scan.pixel_spacing_mm[0]:.4g}, {scan.pixel_spacing_mm[1]:.4g} mm"
    sizes = ", ".join(f"{name} {mm:.0f} mm" for name, mm in zip(LENGTHS, found.lengths_mm, strict=True) if mm > 0)
    others = []
    for other, limit, what in (
        (found.table, _TABLE, "the image, which has the shape of a whole table, would be {:.2f} times its size"),
        (_over_stated_height(scan, found.lengths_mm[2]), _HEIGHT, "its length is {:.2f} times that by PatientSize"),
    ):
        if other is not None and abs(math.log(other)) > limit and scale / math.log(other) > _SUPPORT:
            others.append(what.format(other))
            gross = gross or abs(math.log(other)) > _GROSS_SCALE
    whole_table = found.table is not None and abs(math.log(found.table)) < _TABLE_ALIKE
    least, most = _BELIEVED if whole_table else _SCALE
    if others or not least <= scale <= most:
        remarks[SCALE_DOUBTFUL] = "; ".join(
            [f"with {stated} the body is {found.scale:.2f} times the size of an average adult ({sizes})", *others]
        )
    if not _ASPECT[0] <= aspect <= _ASPECT[1]:
        remarks[ASPECT_DOUBTFUL] = (
            f"with {stated} the body is {found.aspect:.2f} times as wide for its height as an average adult ({sizes})"
        )
    if gross:
        raise Refusal(
            "implausible-geometry", f"{'; '.join(remarks.values())}; give the true spacing with --pixel-spacing ROW,COL"
        )
    return remarks


def _over_stated_height(scan: Scan, extent_mm: float) -> float | None:
    """Return the length of the body over that expected of the recorded height; None where either is unknown."""
    try:
        metres = float(scan.header.PatientSize) if scan.header is not None else math.nan
    except (AttributeError, TypeError, ValueError):
        return None
    known = _STATED_HEIGHT_M[0] < metres < _STATED_HEIGHT_M[1] and math.isfinite(extent_mm)
    return extent_mm / (1000 * metres * _TOES) if known else None


def measure_geometry(prepared: Prepared, shape: tuple[int, int]) -> Geometry:
    """Compare a body's size and proportions with those of adults.

    Parameters
    ----------
    prepared : Prepared
        Its body, extent and spacing.
    shape : (rows, columns)
        Size of the scan.
    """
    lengths = body_lengths(prepared)
    spacing = prepared.pixel_spacing_mm
    size = shape[0] * spacing[0], shape[1] * spacing[1]
    factors = [math.log(size[0] / height) for height, _ in TABLES_MM], [math.log(size[1] / w) for _, w in TABLES_MM]
    if "feet-outside" in prepared.body.flags:
        # the width is left
        alike = factors[1]
    else:
        pairs = zip(*factors, strict=True)
        alike = [(rows + columns) / 2 for rows, columns in pairs if abs(rows - columns) < _SAME_SHAPE]
    table = math.exp(min(alike, key=abs)) if alike else None
    return Geometry(lengths, *compare(lengths), table)


def compare(lengths_mm: Array) -> tuple[float | None, float | None]:
    """Estimate the factors of scale and aspect from those of `LENGTHS` that are not nan."""
    seen = np.isfinite(lengths_mm)
    columns = _ALONG_COLUMNS[seen]
    if not 0 < columns.sum() < len(columns):
        return None, None
    scale, rows, across = (_estimators(tuple(seen.tolist())) @ (np.log(lengths_mm[seen]) - MEANS[seen])).tolist()
    return math.exp(scale), math.exp(across - rows)


@lru_cache(maxsize=16)
def _estimators(seen: tuple[bool, ...]) -> Array:
    """Return (3, K) weights of the lengths that are seen: of one factor for both axes, of the rows', of the columns'.

    They are those of generalised least squares.
    """
    weight = np.linalg.inv(COVARIANCE[np.ix_(seen, seen)])
    columns = _ALONG_COLUMNS[np.array(seen)]
    factors = [
        np.linalg.solve(design.T @ weight @ design, design.T @ weight)
        for design in (np.ones((len(columns), 1)), np.stack([1 - columns, columns], axis=1))
    ]
    return np.concatenate(factors)


def body_lengths(prepared: Prepared) -> Array:
    """Measure `LENGTHS` in a scan, mm; nan where one is not seen."""
    body, (row_mm, column_mm) = prepared.body, prepared.pixel_spacing_mm
    extent = CANONICAL_ROWS * prepared.model_pixel_mm / row_mm
    middle = prepared.crop_origin_px[1] + (CROP_SIZE - 1) / 2 * prepared.model_pixel_mm / column_mm
    lengths = np.full(len(LENGTHS), np.nan)
    if "head-outside" in body.flags:
        return lengths
    lengths[0] = _skull_breadth(body, extent) * column_mm
    if (hips := _hip_joints(body, extent, middle, (row_mm, column_mm))) is not None:
        lengths[1], lengths[3] = hips
    if "feet-outside" not in body.flags:
        lengths[2] = (body.toe - body.crown) * row_mm
    return lengths


def _skull_breadth(body: Body, extent: float) -> float:
    """Return the breadth of the skull's bone, columns; nan where there is none."""
    top = int(body.crown + 0.5)
    rows = slice(top, top + max(3, int(_SKULL_ROWS * extent)))
    columns = np.flatnonzero(body.mask[rows].any(axis=0))
    if len(columns) == 0:
        return math.nan
    head = rows, slice(max(0, columns[0] - 1), columns[-1] + 2)
    mask, floor = body.mask[head], body.floor
    pixels = np.where(mask, body.pixels[head], np.float32(floor))
    level = floor + _SKULL_LEVEL * (percentile(pixels[mask], _SKULL_PERCENTILE) - floor)
    above = pixels > level
    bone = above.any(axis=1)
    if not bone.any():
        return math.nan
    pixels, above = pixels[bone], above[bone]
    breadth = pixels.shape[1] - _edge(pixels, above, level) - _edge(pixels[:, ::-1], above[:, ::-1], level)
    return float(np.sort(breadth)[-max(3, int(_WIDEST_ROWS * extent)) :].mean())


def _edge(pixels: NDArray[np.float32], above: NDArray[np.bool_], level: float) -> Array:
    """Return how far from the first column's outer edge each row first rises above a level, interpolated."""
    row, first = np.arange(len(above)), above.argmax(axis=1)
    inner, outer = pixels[row, first], pixels[row, np.maximum(first - 1, 0)]
    rise = np.maximum(inner - outer, 1e-6)
    return np.asarray(first + 0.5 - np.where(first > 0, (inner - level) / rise, 0.5), dtype=np.float64)


def _hip_joints(
    body: Body, extent: float, middle: float, spacing_mm: tuple[float, float]
) -> tuple[float, float] | None:
    """Return the distance of the hip joints and their mean depth below the crown, mm; None where either is outside."""
    first = int(body.crown + _HIP_ROWS[0] * extent)
    band = body.pixels[first : int(body.crown + _HIP_ROWS[1] * extent)]
    size = [max(1, round(n * mm / _CELL_MM)) for n, mm in zip(band.shape, spacing_mm, strict=True)]
    if len(band) == 0 or min(size) < 3:
        return None
    small = cv2.resize(band, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    small = np.asarray(cv2.GaussianBlur(small, (0, 0), _BLUR_CELLS), dtype=np.float32)
    row_cell, column_cell = (n * mm / s for n, mm, s in zip(band.shape, spacing_mm, size, strict=True))
    midline = (middle + 0.5) * spacing_mm[1] / column_cell
    near, far = (part * extent * spacing_mm[0] / column_cell for part in (_HIPS_FROM, _HIPS_TO))
    if midline - far < 0 or midline + far > size[1]:
        return None
    joints = []
    for first_column, last_column in ((midline - far, midline - near), (midline + near, midline + far)):
        begin = int(first_column)
        side = small[:, begin : int(last_column) + 1]
        row, column = np.unravel_index(int(side.argmax()), side.shape)
        joints.append((_peak(side[:, column], int(row)), begin + _peak(side[row], int(column))))
    depth = (joints[0][0] + joints[1][0] + 1) / 2 * row_cell + (first - body.crown - 0.5) * spacing_mm[0]
    return (joints[1][1] - joints[0][1]) * column_cell, depth


def _peak(values: NDArray[Any], place: int) -> float:
    """Return the place of a maximum between samples, by a parabola."""
    if not 0 < place < len(values) - 1:
        return float(place)
    before, at, after = (float(value) for value in values[place - 1 : place + 2])
    curvature = before - 2 * at + after
    return place + (0.5 * (before - after) / curvature if curvature < 0 else 0.0)


# logarithms of mm
MEANS = np.array([4.9571, 5.0566, 7.4611, 6.701])
COVARIANCE = np.array(
    [
        [0.002238, 0.0018431, 0.0020486, 0.002049],
        [0.0018431, 0.0044322, 0.0023868, 0.0024851],
        [0.0020486, 0.0023868, 0.0027015, 0.0026052],
        [0.002049, 0.0024851, 0.0026052, 0.0027262],
    ]
)
