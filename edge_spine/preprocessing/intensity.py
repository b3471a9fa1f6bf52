"""Normalise intensities as published, with lookup tables for images of whole numbers.

Scanners store whole numbers of 8 to 16 bits. Percentiles of such an image come from its histogram, and a curve of
intensities is computed once for each grey value; both give the same numbers as sorting and computing each pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

GreyValues: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]

LOWEST_PERCENTILE, HIGHEST_PERCENTILE = 9.5, 99.9
SIGMOID_SHIFT = 2.5

_MOST = 65_535
# OpenCV counts in float32, which is exact up to this number
_COUNTED_AT_ONCE = 2**24
# fits in a processor's first caches
_PIXELS_AT_ONCE = 2**16


def whole_greys(pixels: NDArray[np.float32], lowest: float, highest: float) -> GreyValues | None:
    """Return an image as integers of 8 or 16 bits, or None where a pixel is not a whole number of that range.

    `lowest` and `highest` are the least and the largest of `pixels`, (rows, columns) float32.
    """
    if not (lowest >= 0 and highest <= _MOST):
        return None
    kind = np.uint8 if highest <= 255 else np.uint16
    row = pixels[pixels.shape[0] // 2]
    if not np.array_equal(row.astype(kind), row):
        return None
    greys = pixels.astype(kind)
    return greys if np.array_equal(greys, pixels) else None


def value_counts(greys: GreyValues, mask: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Count the pixels of each value of an image (rows, columns), within `mask` where it is given.

    The counts are (256,) int64 for an image of uint8, (65536,) for one of uint16.
    """
    size = int(np.iinfo(greys.dtype).max) + 1
    total = np.zeros(size, np.int64)
    rows = max(1, _COUNTED_AT_ONCE // greys.shape[1])
    for first in range(0, greys.shape[0], rows):
        part: Any = np.ascontiguousarray(greys[first : first + rows])
        counted = None if mask is None else np.ascontiguousarray(mask[first : first + rows]).view(np.uint8)
        found: Any = cv2.calcHist([part], [0], counted, [size], [0, size])  # its types know no array of either kind
        total += found.ravel().astype(np.int64)
    return total


def percentiles_of_counts(counts: NDArray[np.int64], shares: Sequence[float]) -> list[float]:
    """Return percentiles of counted values, interpolated as `numpy.percentile` does.

    `counts` are from `value_counts` and not all 0; `shares` are per cent.
    """
    up_to = np.cumsum(counts)
    last = int(up_to[-1]) - 1
    found = []
    for share in shares:
        place = last * (share / 100)
        below = int(place)
        at, after = np.searchsorted(up_to, (below, min(below + 1, last)), side="right").tolist()
        found.append(_between(at, after, place - below))
    return found


def percentile(values: NDArray[np.float32], share: float) -> float:
    """Return a percentile of finite values (N,), at least one; `numpy.percentile` takes ten times the time."""
    last = values.size - 1
    place = last * (share / 100)
    below = int(place)
    above = min(below + 1, last)
    parted = np.partition(values, (below, above))
    return _between(float(parted[below]), float(parted[above]), place - below)


def _between(at: float, after: float, part: float) -> float:
    """Interpolate; exact at both ends, as NumPy's percentiles are."""
    return at + (after - at) * part if part < 0.5 else after - (after - at) * (1 - part)


def mapped(
    pixels: NDArray[np.float32],
    greys: GreyValues | None,
    curve: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float32]:
    """Apply an element-wise curve, computed in float64, to every pixel of a float32 image (rows, columns).

    `greys` are its pixels from `whole_greys`.
    """
    if greys is None or (greys.dtype != np.uint8 and greys.size < _MOST):
        shown = np.empty(pixels.shape, np.float32)
        rows = max(1, _PIXELS_AT_ONCE // pixels.shape[1])
        for first in range(0, pixels.shape[0], rows):
            shown[first : first + rows] = curve(pixels[first : first + rows].astype(np.float64))
        return shown
    count = 256 if greys.dtype == np.uint8 else int(greys.max()) + 1
    table = curve(np.arange(count, dtype=np.float64)).astype(np.float32)
    if greys.dtype == np.uint8:
        looked_up: Any = cv2.LUT(greys, table)
        return np.asarray(looked_up, dtype=np.float32)
    # not every supported OpenCV has tables of 16 bits
    return np.take(table, greys)


def normalise(
    pixels: NDArray[np.float32], mask: NDArray[np.bool_], greys: GreyValues | None = None
) -> NDArray[np.float32]:
    """Normalise intensities to [0, 1] as published, with the 99.9th percentile in place of the maximum.

    Parameters
    ----------
    pixels : (rows, columns) array
        Larger is denser.
    mask : (rows, columns) bool array
        The body.
    greys : (rows, columns) array, optional
        The pixels from `whole_greys`, where they are known.
    """
    pixels = np.asarray(pixels, dtype=np.float32)
    if greys is None:
        lowest, highest, _, _ = cv2.minMaxLoc(pixels)
        greys = whole_greys(pixels, lowest, highest)
    shares = [LOWEST_PERCENTILE, HIGHEST_PERCENTILE]
    if greys is None:
        low, high = np.percentile(pixels[mask], shares).tolist()
    else:
        low, high = percentiles_of_counts(value_counts(greys, mask), shares)
    least, most = 1 / (1 + math.exp(-SIGMOID_SHIFT)), 1 / (1 + math.exp(-SIGMOID_SHIFT - 1))

    def curve(grey: NDArray[np.float64]) -> NDArray[np.float64]:
        stretched = np.clip((grey - low) / max(high - low, 1e-6), 0, 1)
        compressed: NDArray[np.float64] = (1 / (1 + np.exp(-stretched - SIGMOID_SHIFT)) - least) / (most - least)
        return compressed

    return mapped(pixels, greys, curve)
