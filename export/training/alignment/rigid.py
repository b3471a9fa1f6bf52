"""Two-stage rigid alignment of a DXA scan and an MRI in the coronal plane (Bourigault et al., MICCAI 2024).

Three parameters: a sampled rotation, and two translations at the maximum of the cross-correlation (by FFT) for each
rotation. Stage one correlates the DXA image with the MRI's coronal projection.
Stage two does the same with the segmented spines, near the result of stage one. Correlation is normalised over what
both images cover (Padfield, IEEE Trans. Image Process. 2012), so that the MRI's smaller field of view and missing
ends of a mask have no effect.
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
_SPINE_MARGIN_MM = 45.0
# Spine masks do not determine the shift along the spine well, so the image correlation is added. On phantoms weights of
# 4 and 8 are equally good, 2 is slightly worse.
_IMAGE_WEIGHT = 4.0
# Stage two: translations (pixels) and rotations (degrees) around the last result.
_PASSES = ((6, np.arange(-2, 2.1, 0.5)), (3, np.arange(-0.6, 0.61, 0.2)), (3, np.arange(-0.4, 0.41, 0.2)))


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


@dataclass(frozen=True)
class Alignment:
    """Result of both stages.

    Attributes
    ----------
    image, spine : Placement
        After stage one and after stage two.
    image_correlation, spine_correlation : float
        Normalised cross-correlation, -1 to 1, of the images after stage one and of the spines after stage two.
    """

    image: Placement
    spine: Placement
    image_correlation: float
    spine_correlation: float


def align(
    scan: Plane, scan_spine: Plane, projections: tuple[Plane, ...], mri_spine: Plane, pixel_mm: float
) -> Alignment:
    """Find the placement of the MRI in the scan.

    Parameters
    ----------
    scan, scan_spine : Plane
        DXA image, bone bright, 0 outside the body; and its spine mask, 0 or 1.
    projections : tuple of Plane
        Coronal projections of the MRI on one grid; the best fit is used.
    mri_spine : Plane
        Coronal projection of its spine mask, 0 to 1.
    pixel_mm : float
        Size of a canonical pixel.
    """
    rows, columns = np.nonzero(mri_spine.pixels > 0.5)
    pivot = mri_spine.to_mm(np.array([[columns.mean(), (rows.min() + rows.max()) / 2]]))[0]
    images = [(projection, _everywhere(projection)) for projection in projections]
    image = _stage_one((scan, _everywhere(scan, around_mm=1000.0)), images, pivot, pixel_mm)
    both, agreement = _stage_two(_around_spine(scan_spine), _around_spine(mri_spine), pivot, pixel_mm, image)
    first, second = (Placement.about(found.angle_deg, pivot, found.at_mm) for found in (image, both))
    return Alignment(first, second, image.height, agreement)


def _everywhere(plane: Plane, around_mm: float = 0.0) -> Plane:
    """Return the weight of a whole image: all of it, and known air around it."""
    around = [round(around_mm / pitch) for pitch in plane.pixel_mm]
    rows, columns = plane.pixels.shape
    ones = np.ones((rows + 2 * around[0], columns + 2 * around[1]), dtype=np.float32)
    top, left = plane.top_left_mm
    corner = (top + around[0] * plane.pixel_mm[0], left - around[1] * plane.pixel_mm[1])
    return Plane(ones, plane.pixel_mm, corner)


def _around_spine(plane: Plane) -> _Pair:
    """Crop a spine mask, and return its weight: rows with spine, with a margin at both sides."""
    row_mm, column_mm = plane.pixel_mm
    margin = round(_SPINE_MARGIN_MM / column_mm)
    rows, columns = np.nonzero(plane.pixels > 0.5)
    first = (max(0, int(rows.min()) - 2), max(0, int(columns.min()) - margin))
    cut = plane.pixels[first[0] : int(rows.max()) + 3, first[1] : int(columns.max()) + margin + 1]
    near = cv2.dilate((cut > 0.5).astype(np.uint8), np.ones((1, 2 * margin + 1), dtype=np.uint8)).astype(np.float32)
    corner = (plane.top_left_mm[0] - first[0] * row_mm, plane.top_left_mm[1] + first[1] * column_mm)
    return Plane(np.ascontiguousarray(cut), plane.pixel_mm, corner), Plane(near, plane.pixel_mm, corner)


def _trimmed(fixed: _Pair, moving: _Pair, placement: Placement, pixel_mm: float) -> _Pair:
    """Set weights to 0 where aligned masks differ by more than a few mm."""
    top, left = fixed[0].top_left_mm
    rows, columns = (
        int(n * pitch / pixel_mm) for n, pitch in zip(fixed[0].pixels.shape, fixed[0].pixel_mm, strict=True)
    )
    grid = (pixel_mm, (top, left), (rows, columns))
    shown, valid = (moved(plane, STILL, *grid) for plane in fixed)
    other, also = (moved(plane, placement, *grid) for plane in moving)
    apart = ((np.abs(shown - other) > 0.5) & (valid > 0.5) & (also > 0.5)).astype(np.uint8)
    thick = cv2.morphologyEx(apart, cv2.MORPH_OPEN, np.ones((3, 3), dtype=np.uint8))
    wrong = cv2.dilate(thick, np.ones((5, 5), dtype=np.uint8)).astype(np.float32)
    spacing = (pixel_mm, pixel_mm)
    return Plane(shown, spacing, (top, left)), Plane(valid * (1 - wrong), spacing, (top, left))


_Pair = tuple[Plane, Plane]


@dataclass(frozen=True, eq=False)
class Summit:
    """Quadratic model of a correlation near its maximum, of angle (degrees), x and z (mm)."""

    place: Array
    height: float
    bend: Array

    @property
    def angle_deg(self) -> float:
        """Angle of the maximum."""
        return float(self.place[0])

    @property
    def at_mm(self) -> Array:
        """Position (x, z) of the maximum in the scan."""
        return self.place[1:]

    def __call__(self, angle_deg: float, match: Match) -> Image:
        """Return the loss of correlation (0 or less) at an angle and each translation of a match."""
        rows, columns = np.mgrid[: match.shape[0], : match.shape[1]]
        x = match.first_mm[0] + columns * match.pixel_mm - self.place[1]
        z = match.first_mm[1] - rows * match.pixel_mm - self.place[2]
        away = np.stack([np.full(x.shape, angle_deg - self.place[0]), x, z])
        return np.asarray(np.einsum("iab,ij,jab->ab", away, self.bend, away) / 2, dtype=np.float32)


def _stage_one(fixed: _Pair, moving: list[_Pair], pivot: Array, pixel_mm: float) -> Summit:
    corners = fixed[0].corners()
    middle, extent = corners.mean(axis=0), np.ptp(corners, axis=0)
    coarse = 4 * pixel_mm
    reach = (int(extent[1] / 2 / coarse), int(extent[0] / 2 / coarse))
    match = Match(fixed, moving[len(moving) // 2], pivot, coarse, middle, reach)
    angles = np.arange(-MOST_DEG, MOST_DEG + 1, 2.0)
    found = _summit(np.stack([match(a) for a in angles]), angles, match)
    match = Match(fixed, moving[0], pivot, 2 * pixel_mm, found.at_mm, (4, 4))
    match.moving = max(moving, key=lambda pair: float(match(found.angle_deg, pair).max()))
    angles = found.angle_deg + np.arange(-1.5, 1.6, 0.5)
    return _summit(np.stack([match(a) for a in angles]), angles, match)


def _stage_two(fixed: _Pair, moving: _Pair, pivot: Array, pixel_mm: float, image: Summit) -> tuple[Summit, float]:
    found, agreement = image, 0.0
    for reach, angles in _PASSES:
        match = Match(fixed, moving, pivot, pixel_mm, found.at_mm, (reach, reach))
        tried = found.angle_deg + angles
        spines = np.stack([match(a) for a in tried])
        both = spines + _IMAGE_WEIGHT * np.stack([image(a, match) for a in tried])
        agreement = float(spines.flat[int(both.argmax())])
        found = _summit(both, tried, match)
        fixed = _trimmed(fixed, moving, Placement.about(found.angle_deg, pivot, found.at_mm), pixel_mm)
    return found, agreement


def _summit(scores: Image, angles: Array, match: Match) -> Summit:
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
    return Summit(place, float(scores[top]), bend / np.outer(step, step))
