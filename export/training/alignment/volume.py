"""Volumes in the patient frame, and their projections onto the coronal plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from export.training.alignment.rigid import Image, Plane

# Thresholds of body, as fractions of the thickest part. The skin's visibility in scan and MRI is unknown, so the
# alignment uses the outline that fits best.
_BODY_SHARES = (0.03, 0.05, 0.08, 0.12, 0.17, 0.23)
_SHADE = 0.25
_AIR_PERCENTILE = 2.0
_LINE = 0.9


class PairSkipped(Exception):
    """A pair that cannot be used.

    Parameters
    ----------
    code : str
        Stable code of the reason.
    message : str
        One line with no content of the files except numbers.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code, self.message = code, message


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels in the patient frame (LPS); coordinates increase with the index.

    Attributes
    ----------
    values : (x, y, z) array
    voxel_mm : (x, y, z)
        Pitch.
    first_mm : (x, y, z)
        Centre of the first voxel.
    """

    values: NDArray[Any]
    voxel_mm: tuple[float, float, float]
    first_mm: tuple[float, float, float]

    def coronal(self, flat: NDArray[Any]) -> Plane:
        """Return an (x, z) image on the volume's grid as a plane: rows from the head down, columns to the left."""
        top = self.first_mm[2] + (self.values.shape[2] - 1) * self.voxel_mm[2]
        pixels = np.ascontiguousarray(flat[:, ::-1].T, dtype=np.float32)
        return Plane(pixels, (self.voxel_mm[2], self.voxel_mm[0]), (top, self.first_mm[0]))

    def projections(self) -> tuple[Plane, ...]:
        """Return coronal projections for correlation: 1 inside the body, and slightly more where it is thick.

        They differ in the threshold of body thickness, from the widest outline to the narrowest.
        """
        brightest = np.percentile(self.values[::4, ::4, ::4], 99.5)
        mean = np.minimum(self.values, brightest).mean(axis=1, dtype=np.float32)
        mean = mean - np.percentile(mean, _AIR_PERCENTILE)
        depth = np.clip(mean / max(float(np.percentile(mean, 99)), 1e-6), 0, 1).astype(np.float32)
        smooth = cv2.GaussianBlur(depth, (0, 0), 1)
        return tuple(self.coronal((smooth > share) + _SHADE * np.sqrt(depth)) for share in _BODY_SHARES)

    def thickness(self) -> Plane:
        """Return the thickness (mm) of a mask along the beam."""
        return self.coronal((self.values > 0).sum(axis=1) * self.voxel_mm[1])


def scan_features(shown: Image, mask: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> Plane:
    """Return a scan like `Volume.projections` of an MRI: the body with a small share of the normalised intensity."""
    # The runtime finds the body on a smoothed image, which widens it by one pixel.
    body = cv2.erode(mask.astype(np.float32), np.ones((3, 3), dtype=np.uint8))
    # A row across the whole image is a line of the scanner's display: body there is what is above and below.
    across = body.mean(axis=1) > _LINE
    for row in np.flatnonzero(across[1:-1] & ~across[:-2] & ~across[2:]) + 1:
        body[row] = np.minimum(body[row - 1], body[row + 1])
    return Plane((body * (1 + _SHADE * shown)).astype(np.float32), spacing_mm, (0.0, 0.0))
