"""Augment samples: random crops as the runtime may cut them, with the image quality of other scanners.

Crop error, tilt, mirroring and truncation move the curves with the image. Grey levels, contrast, resolution and noise
vary widely, so that a network learns shapes and not the grey levels of the generator.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_spine.network import CROP_SIZE, CURVE_ROWS
from export.training.dataset import MARGIN, WIDE, target_of

Image = NDArray[np.float32]

# Crop pixels, about 2.1 mm.
MAX_BLUR = 1.6
MAX_SAMPLING = 2.0
# Number of steps of a grey curve's slope, and SD of its natural logarithm.
GREY_STEPS = 5
GREY_SPREAD = 0.35
# Places along a centreline where its disturbance is drawn.
KNOTS = 12
# Nodes per side of the contrast field, and SD of its natural logarithm.
FIELD_NODES = 4
FIELD_SPREAD = 0.12
_CENTRE = (CROP_SIZE - 1) / 2
_NONE = np.empty((0, 2), np.float32)


def augment(
    rng: np.random.Generator,
    crop: NDArray[np.uint8],
    curves: NDArray[np.float32],
    size: int,
    levels: NDArray[np.float32] = _NONE,
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Draw one training sample from a wide crop.

    Parameters
    ----------
    rng : numpy.random.Generator
    crop : (272, 272) uint8 array
    curves : (272, 6) float32 array
        As in `dataset.Sample`.
    size : int
        Side of the image.
    levels : (K, 2) float32 array
        Points to move with the image, (row, column) of the true crop.

    Returns
    -------
    image : (size, size) uint8 array
    target : (209, 6) float32 array
        Crop pixels / 224.
    points : (K, 2) float32 array
        Where the levels are now, (row, column) in pixels of an image of 224 x 224.
    """
    turn = np.radians(np.clip(rng.normal(0, 2.2), -7, 7))
    scale = float(np.clip(rng.normal(1.0, 0.022), 0.93, 1.07))
    shift = np.clip(rng.normal(0, 4.0, 2), -13, 13)
    middle = MARGIN + _CENTRE
    # From pixels of the result, relative to its centre, to pixels of the wide crop.
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) / scale
    step = CROP_SIZE / size
    half = (size - 1) / 2
    linear = matrix * step
    offset = middle + shift - linear @ np.array([half, half])
    to_wide = np.concatenate([linear, offset[:, None]], axis=1)
    smooth = cv2.GaussianBlur(crop, (0, 0), 0.35 * step) if step > 1.3 else crop
    image = cv2.warpAffine(smooth, to_wide, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)

    back = np.linalg.inv(matrix)
    rows = np.arange(WIDE) - middle - shift[1]
    target = np.empty((len(CURVE_ROWS), 6), dtype=np.float32)
    heights = CURVE_ROWS - _CENTRE
    moved = [back @ np.stack([curves[:, column] + MARGIN - middle - shift[0], rows]) for column in range(3)]
    for column, (x, row) in enumerate(moved):
        target[:, column] = np.interp(heights, row, x + _CENTRE)
    for column in range(3, 6):
        target[:, column] = np.interp(heights, moved[1][1], curves[:, column] * scale)
    points = ((levels[:, ::-1] - _CENTRE - shift) @ back.T)[:, ::-1] + _CENTRE
    if rng.random() < 0.5:
        image = image[:, ::-1]
        target[:, :3] = (CROP_SIZE - 1) - target[:, 2::-1]
        points[:, 1] = (CROP_SIZE - 1) - points[:, 1]
    return disturb(rng, np.ascontiguousarray(image)), target_of(target), points.astype(np.float32)


def wandering(rng: np.random.Generator, deviations_px: tuple[float, ...]) -> NDArray[np.float64]:
    """Draw how far, pixels, a disturbed centreline lies from the true one at the 209 rows; its SD is one of those."""
    knots = rng.normal(0, rng.choice(deviations_px), KNOTS)
    return np.interp(CURVE_ROWS, np.linspace(CURVE_ROWS[0], CURVE_ROWS[-1], KNOTS), knots)


def disturb(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Change grey levels, contrast, resolution and noise of an (S, S) image, and sometimes cut off an end."""
    size = image.shape[0]
    shown = cv2.LUT(image, grey_curve(rng))
    if rng.random() < 0.6:
        shown = vary_contrast(rng, shown)
    if rng.random() < 0.45:
        shown = cv2.GaussianBlur(shown, (0, 0), max(rng.uniform(0.3, MAX_BLUR) * size / CROP_SIZE, 0.05))
    if rng.random() < 0.25:
        shown = _resample_coarsely(rng, shown)
    if rng.random() < 0.6:
        shown = shown + rng.standard_normal(shown.shape, dtype=np.float32) * np.float32(rng.uniform(0, 0.06))
    if rng.random() < 0.06:
        cut = int(rng.uniform(0.02, 0.10) * size)
        # Explicit start, since -0 would select everything.
        shown[slice(0, cut) if rng.random() < 0.5 else slice(size - cut, size)] = 0
    return np.round(np.clip(shown, 0, 1) * 255).astype(np.uint8)


def grey_curve(rng: np.random.Generator) -> Image:
    """Draw a monotone smooth curve of grey levels as a table (256,) of values in 0 to 1.

    The logarithm of its slope is smooth and random at `GREY_STEPS` places, on top of a gamma; gain and offset follow.
    Level 0 (air, and outside the scan) stays 0.
    """
    level = np.linspace(0, 1, 256)
    nodes = rng.normal(0, GREY_SPREAD, GREY_STEPS)
    place = np.linspace(0, 1, GREY_STEPS)
    slope = np.exp(np.interp(level, place, nodes))
    # Smooth between the nodes, so that no grey level creates an edge.
    slope = np.convolve(np.pad(slope, 24, mode="edge"), np.hanning(51)[1:-1] / np.hanning(51).sum(), mode="valid")
    curve = np.concatenate([[0.0], np.cumsum((slope[1:] + slope[:-1]) / 2)])
    curve = (curve / curve[-1]) ** np.exp(rng.normal(0, 0.18))
    curve = curve * np.clip(rng.normal(1.0, 0.09), 0.7, 1.3) + rng.normal(0, 0.03)
    curve[0] = 0.0
    return np.clip(curve, 0, 1).astype(np.float32)


def vary_contrast(rng: np.random.Generator, shown: Image) -> Image:
    """Multiply an (S, S) image by a smooth random field, as if thickness varied."""
    nodes = np.exp(rng.normal(0, FIELD_SPREAD, (FIELD_NODES, FIELD_NODES))).astype(np.float32)
    return np.asarray(shown * cv2.resize(nodes, shown.shape[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _resample_coarsely(rng: np.random.Generator, shown: Image) -> Image:
    """Resample to a coarser pitch, separately for rows and columns, and back."""
    height, width = shown.shape
    coarse = (round(width / rng.uniform(1.0, MAX_SAMPLING)), round(height / rng.uniform(1.0, MAX_SAMPLING)))
    small = cv2.resize(shown, coarse, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
