"""Measure contrast of spine, adjacent strip and ribs on the network's input.

The input is straightened along the centreline at 1 mm. Level of a part of the spine: mean brightness inside 0.8 of
its half width less the mean of 18 to 32 mm outside its borders (the background). Modulation of a strip: spread along
the spine after subtraction of a Gaussian mean of 18 mm, divided by the level. The border on either side is at the
steepest edge.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, map_coordinates

from edge_spine.vertebrae import average_levels

Array = NDArray[np.float64]

PARTS = {"T1-T5": ("T1", "T5"), "T6-T12": ("T6", "T12"), "L1-L5": ("L1", "L5")}
ROWS = ("in-spine modulation", "strip over level", "rib modulation")
_REACH_MM = 90
_DETREND_MM = 18.0
_EDGE_SPAN = (0.75, 1.3)


def straighten(image: NDArray[np.float32], centre: Array, pixel_mm: float) -> Array:
    """Resample an image along a line and across it, at 1 mm.

    Parameters
    ----------
    image : (rows, columns) float32 array
        Square pixels of `pixel_mm`.
    centre : (K, 2) array
        Line from top to bottom, (row, column) in pixels.
    pixel_mm : float
        Pixel pitch, mm.

    Returns
    -------
    (N, 181) array
        One row for each millimetre along the line, columns from -90 to 90 mm across it, growing with the image's.
    """
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(centre, axis=0), axis=1))]) * pixel_mm
    along = np.arange(0.0, arc[-1])
    line = np.stack([np.interp(along, arc, gaussian_filter1d(centre[:, k], 3.0)) for k in (0, 1)], axis=1)
    step = np.gradient(line, axis=0)
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    across = np.stack([-step[:, 1], step[:, 0]], axis=1)
    offset = np.arange(-_REACH_MM, _REACH_MM + 1) / pixel_mm
    places = line[:, None] + offset[None, :, None] * across[:, None]
    return np.asarray(map_coordinates(image, places.transpose(2, 0, 1), order=1, mode="nearest"), dtype=np.float64)


def steepest_edges(straight: Array, half_mm: Array) -> Array:
    """Find the border on either side, as its distance from the centre, mm.

    Parameters
    ----------
    straight : (N, 181) array
        Straightened image.
    half_mm : (N,) array
        Expected half width; a border is sought between 0.75 and 1.3 of it.

    Returns
    -------
    (N, 2) array
        Distance of the right (low columns) and of the left border.
    """
    calm = cv2.GaussianBlur(straight, (0, 0), sigmaX=1.5, sigmaY=9.0)
    fall = -np.gradient(calm, axis=1)
    found = np.empty((len(straight), 2))
    distance = np.arange(_REACH_MM + 1)
    for side, half in enumerate((-fall[:, _REACH_MM::-1], fall[:, _REACH_MM:])):
        near = distance / half_mm[:, None]
        allowed = (near >= _EDGE_SPAN[0]) & (near <= _EDGE_SPAN[1])
        found[:, side] = np.where(allowed, half, -np.inf).argmax(axis=1)
    return np.asarray(gaussian_filter1d(found, 12.0, axis=0))


def contrast(straight: Array, edges: Array, share: Array) -> dict[str, float]:
    """Measure the contrast of each part of the spine.

    Parameters
    ----------
    straight : (N, 181) array
        Straightened image.
    edges : (N, 2) array
        Distance of the right and the left border from the centre, mm.
    share : (N,) array
        Fraction of the arc from the top of T1 (0) to the bottom of L5 (1).

    Returns
    -------
    dict
        Figures keyed "row, part" for `ROWS` and `PARTS`; ribs have none beside L1-L5.
    """
    offset = np.arange(-_REACH_MM, _REACH_MM + 1)
    border = np.where(offset[None, :] < 0, edges[:, :1], edges[:, 1:])
    away = np.abs(offset)[None, :]
    inside, beyond = away <= 0.8 * border, away - border
    outside = (beyond >= 18) & (beyond <= 32)
    strip = (beyond >= 4) & (beyond <= 12)
    smooth = straight - gaussian_filter1d(straight, _DETREND_MM, axis=0)
    # The bounds of a strip include half a millimetre at both ends.
    inner = [_strip(smooth, first, 3) for first in range(-8, 7, 3)]
    ribs = [_strip(smooth, side * first - (3 if side < 0 else 0), 4) for side in (-1, 1) for first in range(36, 56, 4)]
    levels = average_levels(-share, share)
    figures = {}
    for part, (first, last) in PARTS.items():
        rows = (share >= -levels.edges(first)[0]) & (share <= -levels.edges(last)[1])
        background = float(straight[rows][outside[rows]].mean())
        level = float(straight[rows][inside[rows]].mean()) - background
        figures[f"{ROWS[0]}, {part}"] = float(np.mean([column[rows].std() for column in inner])) / level
        figures[f"{ROWS[1]}, {part}"] = (float(straight[rows][strip[rows]].mean()) - background) / level
        if part != "L1-L5":
            figures[f"{ROWS[2]}, {part}"] = float(np.mean([column[rows].std() for column in ribs])) / level
    return figures


def _strip(image: Array, first_mm: int, wide_mm: int) -> Array:
    left = _REACH_MM + first_mm
    return np.asarray(image[:, left : left + wide_mm].mean(axis=1))
