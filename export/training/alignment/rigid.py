"""Images in a coronal plane, rigid placements of one in another, and their correlation.

Correlation of all translations is computed by FFT for each rotation, and is normalised over what both images cover
(Padfield, IEEE Trans. Image Process. 2012), so that the MRI's smaller field of view has no effect.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

Image = NDArray[np.float32]
Array = NDArray[np.float64]

MOST_DEG = 12.0
# Smallest fraction of the moving image that must overlap the fixed one.
_LEAST_OVERLAP = 0.6


@dataclass(frozen=True, eq=False)
class Plane:
    """Image in a coronal plane, patient right at image left, head up.

    Attributes
    ----------
    pixels : (rows, columns) float32 array
    pixel_mm : (row, column)
        Pixel pitch.
    top_left_mm : (z, x)
        Centre of the top-left pixel.
    """

    pixels: Image
    pixel_mm: tuple[float, float]
    top_left_mm: tuple[float, float]

    def to_pixels(self, points: Array) -> Array:
        """Convert (N, 2) points (x, z), mm, to (column, row)."""
        column = (points[:, 0] - self.top_left_mm[1]) / self.pixel_mm[1]
        return np.stack([column, (self.top_left_mm[0] - points[:, 1]) / self.pixel_mm[0]], axis=1)

    def to_mm(self, pixels: Array) -> Array:
        """Convert (N, 2) points (column, row) to (x, z), mm."""
        x = self.top_left_mm[1] + pixels[:, 0] * self.pixel_mm[1]
        return np.stack([x, self.top_left_mm[0] - pixels[:, 1] * self.pixel_mm[0]], axis=1)

    def corners(self) -> Array:
        """Return the (4, 2) outer corners (x, z), mm."""
        rows, columns = self.pixels.shape
        return self.to_mm(np.array([(c, r) for c in (-0.5, columns - 0.5) for r in (-0.5, rows - 0.5)]))


@dataclass(frozen=True)
class Placement:
    """Transform from MRI to scan: a rotation in the coronal plane, then a shift.

    Attributes
    ----------
    angle_deg : float
        Positive turns the head to the patient's left.
    offset_mm : (x, z)
        Origin of the MRI's coordinates in the scan's.
    """

    angle_deg: float
    offset_mm: tuple[float, float]

    @staticmethod
    def about(angle_deg: float, pivot_mm: Array, onto_mm: Array) -> Placement:
        """Return the rotation about `pivot_mm` (x, z) in the MRI that maps it to `onto_mm` in the scan."""
        offset = onto_mm - Placement(angle_deg, (0.0, 0.0)).matrix @ pivot_mm
        return Placement(float(angle_deg), (float(offset[0]), float(offset[1])))

    @property
    def matrix(self) -> Array:
        """Rotation matrix (2, 2) for columns (x, z)."""
        cosine, sine = np.cos(np.radians(self.angle_deg)), np.sin(np.radians(self.angle_deg))
        return np.array([[cosine, sine], [-sine, cosine]])

    def to_scan(self, points: Array) -> Array:
        """Transform (N, 2) points (x, z), mm, from the MRI to the scan."""
        return points @ self.matrix.T + np.array(self.offset_mm)

    def to_mri(self, points: Array) -> Array:
        """Transform (N, 2) points (x, z), mm, from the scan to the MRI."""
        return (points - np.array(self.offset_mm)) @ self.matrix


STILL = Placement(0.0, (0.0, 0.0))


def moved(
    plane: Plane,
    placement: Placement,
    pixel_mm: float,
    top_left_mm: tuple[float, float],
    shape: tuple[int, int],
) -> Image:
    """Resample a plane after a placement on square pixels, linearly, with averaging before downsampling; 0 outside."""
    target = Plane(np.empty((0, 0), dtype=np.float32), (pixel_mm, pixel_mm), top_left_mm)
    base = np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
    source = plane.to_pixels(placement.to_mri(target.to_mm(base)))
    to_source = np.stack([source[1] - source[0], source[2] - source[0], source[0]], axis=1)
    spread = [0.45 * max(pixel_mm / pitch - 1, 0) for pitch in plane.pixel_mm]
    pixels = plane.pixels
    if max(spread) > 0.2:
        pixels = cv2.GaussianBlur(
            pixels, (0, 0), max(spread[1], 1e-3), sigmaY=max(spread[0], 1e-3), borderType=cv2.BORDER_REPLICATE
        )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(pixels, to_source, shape[::-1], flags=flags), dtype=np.float32)


class Match:
    """Normalised cross-correlation of a moving plane with a fixed one, for one grid of translations.

    Parameters
    ----------
    fixed, fixed_valid : Plane
        Image in the scan, and its weight (1 valid, 0 not).
    moving, moving_valid : Plane
        Image in the MRI and its weight, on one grid.
    pivot_mm : (2,) array
        Point (x, z) of the MRI to be located in the scan.
    pixel_mm : float
        Pixel size of the correlation and its translations.
    centre_mm : (2,) array
        Position (x, z) in the scan at the centre of the translations.
    reach : (rows, columns)
        Number of translations on each side.
    """

    def __init__(
        self,
        fixed: tuple[Plane, Plane],
        moving: tuple[Plane, Plane],
        pivot_mm: Array,
        pixel_mm: float,
        centre_mm: Array,
        reach: tuple[int, int],
    ) -> None:
        self.moving, self.pivot_mm, self.pixel_mm = moving, pivot_mm, pixel_mm
        self.shape = (2 * reach[0] + 1, 2 * reach[1] + 1)
        self.first_mm = np.array([centre_mm[0] - reach[1] * pixel_mm, centre_mm[1] + reach[0] * pixel_mm])
        arms = moving[0].corners() - pivot_mm
        most = np.max(
            [np.abs(Placement(a, (0.0, 0.0)).to_scan(arms)).max(axis=0) for a in (-MOST_DEG - 3, 0, MOST_DEG + 3)],
            axis=0,
        )
        self.half = np.ceil(most / pixel_mm).astype(int)
        whole = (self.shape[0] + 2 * int(self.half[1]), self.shape[1] + 2 * int(self.half[0]))
        corner = (
            float(self.first_mm[1] + self.half[1] * pixel_mm),
            float(self.first_mm[0] - self.half[0] * pixel_mm),
        )
        self.size = tuple(fft.next_fast_len(n, real=True) for n in whole)
        shown, valid = (moved(plane, STILL, pixel_mm, corner, whole) for plane in fixed)
        shown = (shown - np.float32((shown * valid).sum() / max(float(valid.sum()), 1e-6))) * valid
        self.fixed = fft.rfft2(np.stack([valid, shown, shown * shown]), self.size)

    def __call__(self, angle_deg: float, moving: tuple[Plane, Plane] | None = None) -> Image:
        """Return the correlation of all translations, (decreasing z, increasing x); -1 without enough overlap.

        Another `moving` on the same grid may replace the match's own.
        """
        placement = Placement.about(angle_deg, self.pivot_mm, np.zeros(2))
        corner = (float(self.half[1] * self.pixel_mm), float(-self.half[0] * self.pixel_mm))
        shape = (2 * int(self.half[1]) + 1, 2 * int(self.half[0]) + 1)
        shown, valid = (moved(plane, placement, self.pixel_mm, corner, shape) for plane in moving or self.moving)
        shown = (shown - np.float32((shown * valid).sum() / max(float(valid.sum()), 1e-6))) * valid
        turning = np.conj(fft.rfft2(np.stack([valid, shown, shown * shown]), self.size))
        pairs = ((0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (1, 1))
        products = np.stack([turning[m] * self.fixed[f] for m, f in pairs])
        count, f, ff, m, mm, fm = fft.irfft2(products, self.size)[:, : self.shape[0], : self.shape[1]]
        count = np.maximum(count, 1e-3)
        spread = np.maximum(ff - f * f / count, 1e-6) * np.maximum(mm - m * m / count, 1e-6)
        score = (fm - f * m / count) / np.sqrt(spread)
        enough = count > _LEAST_OVERLAP * min(float(valid.sum()), float(self.fixed[0, 0, 0].real))
        return np.where(enough, score, -1).astype(np.float32)

    def place(self, row: float, column: float) -> Array:
        """Return the position (x, z) in the scan of one translation."""
        return self.first_mm + np.array([column, -row]) * self.pixel_mm


@dataclass(frozen=True, eq=False)
class Summit:
    """Maximum of a correlation: its place in angle (degrees), x and z (mm), and its height."""

    place: Array
    height: float

    @property
    def angle_deg(self) -> float:
        """Angle of the maximum."""
        return float(self.place[0])

    @property
    def at_mm(self) -> Array:
        """Position (x, z) of the maximum in the scan."""
        return self.place[1:]


def summit(scores: Image, angles: Array, match: Match) -> Summit:
    """Fit a quadratic to the 27 values about the maximum of scores (angles, rows, columns).

    All three are fitted together, since an error of the angle shifts the best position.
    """
    top = np.unravel_index(int(scores.argmax()), scores.shape)
    middle = [int(np.clip(index, 1, size - 2)) for index, size in zip(top, scores.shape, strict=True)]
    near = scores[tuple(slice(index - 1, index + 2) for index in middle)].astype(np.float64)
    step = np.array([angles[1] - angles[0], match.pixel_mm, match.pixel_mm])
    angle, row, column = (grid.ravel() for grid in np.meshgrid(*[np.arange(-1.0, 2.0)] * 3, indexing="ij"))
    offset = np.stack([angle, column, -row])
    first, second = np.triu_indices(3)
    terms = np.concatenate([np.ones((1, 27)), offset, offset[first] * offset[second]])
    fit = np.linalg.lstsq(terms.T, near.ravel(), rcond=None)[0]
    bend = np.zeros((3, 3))
    bend[first, second] = fit[4:]
    size, axes = np.linalg.eigh(bend + bend.T)
    size = np.minimum(size, -1e-6)
    bend = axes @ np.diag(size) @ axes.T
    shift = np.clip(-np.linalg.solve(bend, fit[1:4]), -1, 1)
    x, z = match.place(middle[1], middle[2])
    place = np.array([angles[middle[0]], x, z]) + shift * step
    return Summit(place, float(scores[top]))
