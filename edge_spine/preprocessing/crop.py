"""Resample a scan to the network's crop."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def resample(
    image: NDArray[np.float32],
    spacing_mm: tuple[float, float],
    pixel_mm: float,
    origin_px: tuple[float, float],
    size: int | tuple[int, int],
) -> NDArray[np.float32]:
    """Resample to square pixels of `pixel_mm` from `origin_px` on, cubic, averaging first where the scan is finer.

    Parameters
    ----------
    image : (rows, columns) float32 array
        A scan.
    spacing_mm : (row, column)
        Its pixel spacing.
    pixel_mm : float
        Pixel size wanted.
    origin_px : (row, column)
        Scan pixel at the centre of the result's pixel (0, 0).
    size : int or (rows, columns)
        Size of the result.
    """
    rows, columns = (size, size) if isinstance(size, int) else size
    step = [pixel_mm / spacing_mm[0], pixel_mm / spacing_mm[1]]
    start = list(origin_px)
    fine = [max(1, round(s)) for s in step]
    if max(fine) > 1:
        height, width = image.shape[0] // fine[0], image.shape[1] // fine[1]
        whole = image[: height * fine[0], : width * fine[1]]
        image = np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), dtype=np.float32)
        start = [(s + 0.5) / f - 0.5 for s, f in zip(start, fine, strict=True)]
        step = [s / f for s, f in zip(step, fine, strict=True)]
    to_scan = np.array([[step[1], 0, start[1]], [0, step[0], start[0]]], dtype=np.float64)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    resampled = cv2.warpAffine(image, to_scan, (columns, rows), flags=flags, borderMode=cv2.BORDER_CONSTANT)
    return np.clip(resampled, 0, 1, out=np.asarray(resampled, dtype=np.float32))


def as_tensor(crop: NDArray[np.float32]) -> NDArray[np.float32]:
    """Repeat a (224, 224) crop over three channels: (1, 3, 224, 224)."""
    return np.repeat(crop[np.newaxis, np.newaxis], 3, axis=1)
