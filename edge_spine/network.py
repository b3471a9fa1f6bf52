"""Names and shapes of the network's input and output, for preprocessing, engines and export."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# rows of the canonical image, from the crown to the toes
CANONICAL_ROWS = 832
CROP_SIZE = 224
ROWS = 209
# crop rows of the curves, top to bottom, 7.5 to 215.5: centred on the crop
CURVE_ROWS: NDArray[np.float64] = 7.5 + np.arange(float(ROWS))
INPUT_NAME = "image"
OUTPUT_NAME = "curves"
INPUT_SHAPE = (1, 3, 224, 224)
OUTPUT_SHAPE = (1, 1254)


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
        (row, column), (row_mm, column_mm) = self.crop_origin_px, self.pixel_spacing_mm
        return row * row_mm, column * column_mm

    def z_mm(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the heights of crop rows, mm."""
        return -(self.corner_mm[0] + rows * self.model_pixel_mm)

    def x_mm(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the places of crop columns, mm."""
        return self.corner_mm[1] + columns * self.model_pixel_mm

    def rows_px(self, z_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the crop rows of heights `z_mm`."""
        return (-z_mm - self.corner_mm[0]) / self.model_pixel_mm

    def columns_px(self, x_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the crop columns of places `x_mm`."""
        return (x_mm - self.corner_mm[1]) / self.model_pixel_mm
