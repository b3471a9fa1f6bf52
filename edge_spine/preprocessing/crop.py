"""Resample a scan to the network's crop, and map between crop pixels and millimetres."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_spine.network import CROP_SIZE


@dataclass(frozen=True, eq=False)
class CropPlacement:
    """Map between the pixels of a crop and millimetres of its scan.

    The origin of the millimetres is the centre of the scan's first pixel; x grows to the patient's left, z to the
    head, so that z is negative within the scan.

    Attributes
    ----------
    model_pixel_mm : float
        Side of a crop pixel.
    crop_origin_px : (row, column)
        Centre of crop pixel (0, 0), in pixels of the scan.
    pixel_spacing_mm : (row, column)
        Of the scan.
    """

    model_pixel_mm: float
    crop_origin_px: tuple[float, float]
    pixel_spacing_mm: tuple[float, float]

    @classmethod
    def centred(
        cls, centre_px: tuple[float, float], model_pixel_mm: float, pixel_spacing_mm: tuple[float, float]
    ) -> CropPlacement:
        """Return the placement of a crop whose centre lies at (row, column) of the scan, pixels."""
        half = (CROP_SIZE - 1) / 2 * model_pixel_mm
        origin = (centre_px[0] - half / pixel_spacing_mm[0], centre_px[1] - half / pixel_spacing_mm[1])
        return CropPlacement(model_pixel_mm, origin, pixel_spacing_mm)

    @property
    def corner_mm(self) -> tuple[float, float]:
        """Distance of crop pixel (0, 0) below and beside the scan's first pixel, mm."""
        return (
            self.crop_origin_px[0] * self.pixel_spacing_mm[0],
            self.crop_origin_px[1] * self.pixel_spacing_mm[1],
        )

    def z_mm(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the heights of crop rows, mm."""
        return -(self.corner_mm[0] + rows * self.model_pixel_mm)

    def x_mm(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the places of crop columns, mm."""
        return self.corner_mm[1] + columns * self.model_pixel_mm

    def columns_px(self, x_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the crop columns of places `x_mm`."""
        return (x_mm - self.corner_mm[1]) / self.model_pixel_mm


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
    return np.ascontiguousarray(np.broadcast_to(crop, (1, 3, *crop.shape)), dtype=np.float32)
