"""Two-stage rigid alignment of a DXA scan and an MRI in the coronal plane (Bourigault et al., MICCAI 2024).

Stage one correlates the DXA image with the MRI's coronal projection: sampled rotations, translations by FFT. Stage two
places the segmented spines: borders of both masks are compared row by row, robustly and with a free factor of width, as
segmentations differ in width. Borders of a straight spine say little about the shift along it, which the ends of both
masks and the images add. Nothing has a fixed weight: what the borders say is weighed by how well they fit, an end
counts only if it may be the same in both masks, and the images count as far as their parts agree with each other. Where
arms, breath or field of view differ between scan and MRI, parts of the outline disagree, and the spines decide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from export.training.alignment.curves import borders_of
from export.training.alignment.rigid import (
    MOST_DEG,
    STILL,
    Array,
    Image,
    Match,
    Placement,
    Plane,
    Summit,
    moved,
    summit,
)

_SPINE_MARGIN_MM = 45.0
# Errors of a border are alike over about a vertebra.
_ALIKE_MM = 25.0
_LEAST_SPREAD_MM = 0.4
# Images that lie further from the spines than this (degrees, mm in x and z) are not aligned.
_FAR = np.array([6.0, 40.0, 80.0])
# Smallest error of what the images say: degrees, and mm in x and z. The trunk may turn and shift around its spine.
_LEAST_IMAGE = np.array([0.15, 2.0, 0.5])
_REACH_MM, _STEP_MM, _LEAST_SHARED = 40.0, 1.0, 0.85
# Error of an end that both masks have, chance that one of them lacks it, and how much then lacks on average.
_END_MM, _LACKS, _LACKING_MM = 3.0, 0.3, 12.0
# Parts of the images whose agreement is judged, mm; their placement is refined so many times.
_PART_MM, _REFINEMENTS = 100.0, 4
_BODY = 0.6
# Outlines that are further apart than their blur pull no harder for it.
_BLUR_MM = 15.0
# Images that correlate better have one outline, whose shift along the spine is known to so many mm at least.
_ONE_OUTLINE, _KNOWN_MM = 0.9, 1.0
# Chance that the images are aligned wrongly, and standard error (mm) below which it falls: parts that agree are right.
_MISPLACED, _AGREE_MM = 0.05, 4.0

_Pair = tuple[Plane, Plane]


@dataclass(frozen=True)
class Alignment:
    """Result of both stages.

    Attributes
    ----------
    image, spine : Placement
        After stage one and after stage two.
    image_correlation, spine_correlation : float
        Normalised cross-correlation, -1 to 1, of the images after stage one and of the spines after stage two.
    image_error_mm : float
        Standard error of the images' shift along the spine, from how far their parts disagree.
    """

    image: Placement
    spine: Placement
    image_correlation: float
    spine_correlation: float
    image_error_mm: float


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
        Thickness of its spine mask, mm.
    pixel_mm : float
        Size of a canonical pixel.
    """
    shadow = Plane((mri_spine.pixels > 0).astype(np.float32), mri_spine.pixel_mm, mri_spine.top_left_mm)
    rows, columns = np.nonzero(shadow.pixels)
    pivot = shadow.to_mm(np.array([[columns.mean(), (rows.min() + rows.max()) / 2]]))[0]
    images = [(projection, _everywhere(projection)) for projection in projections]
    found, chosen = _stage_one((scan, _everywhere(scan, around_mm=1000.0)), images, pivot, pixel_mm)
    first = Placement.about(found.angle_deg, pivot, found.at_mm)
    fixed, moving = _around_spine(scan_spine), _around_spine(shadow)
    spines = _Spines(fixed[0], moving[0], _around_spine(mri_spine)[0], pivot, pixel_mm / 2)
    place = spines.solve(None)
    images_say = _Images(scan, chosen, pivot, 2 * pixel_mm).say(found, place)
    if images_say is not None:
        place = spines.solve(images_say)
    second = Placement.about(float(place[0]), pivot, place[1:])
    match = Match(fixed, moving, pivot, pixel_mm, place[1:], (1, 1))
    error = float("inf") if images_say is None else float(np.sqrt(images_say.covariance[2, 2]))
    return Alignment(first, second, found.height, float(match(second.angle_deg)[1, 1]), error)


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


def _stage_one(fixed: _Pair, moving: list[_Pair], pivot: Array, pixel_mm: float) -> tuple[Summit, Plane]:
    """Return the best placement of the images, and the projection that fits best."""
    corners = fixed[0].corners()
    middle, extent = corners.mean(axis=0), np.ptp(corners, axis=0)
    coarse = 4 * pixel_mm
    reach = (int(extent[1] / 2 / coarse), int(extent[0] / 2 / coarse))
    match = Match(fixed, moving[len(moving) // 2], pivot, coarse, middle, reach)
    angles = np.arange(-MOST_DEG, MOST_DEG + 1, 2.0)
    found = summit(np.stack([match(a) for a in angles]), angles, match)
    match = Match(fixed, moving[0], pivot, 2 * pixel_mm, found.at_mm, (4, 4))
    match.moving = max(moving, key=lambda pair: float(match(found.angle_deg, pair).max()))
    angles = found.angle_deg + np.arange(-1.5, 1.6, 0.5)
    return summit(np.stack([match(a) for a in angles]), angles, match), match.moving[0]


@dataclass(frozen=True, eq=False)
class Guess:
    """Placement (angle in degrees, x and z in mm) that the images give, and its covariance (3, 3)."""

    place: Array
    covariance: Array


class _Images:
    """Outlines of the body in both images, resampled where both are."""

    def __init__(self, scan: Plane, projection: Plane, pivot: Array, pitch: float) -> None:
        scan, projection = (
            replace(plane, pixels=(plane.pixels > _BODY).astype(np.float32)) for plane in (scan, projection)
        )
        self.projection, self.pivot, self.pitch = projection, pivot, pitch
        corners = scan.corners()
        self.top_left = (float(corners[:, 1].max()), float(corners[:, 0].min()))
        self.shape = (int(np.ptp(corners[:, 1]) / pitch), int(np.ptp(corners[:, 0]) / pitch))
        self.fixed = self._blurred(moved(scan, STILL, pitch, self.top_left, self.shape))
        self.whole = _everywhere(projection)

    def _shown(self, place: Array) -> tuple[Image, Image]:
        placement = Placement.about(float(place[0]), self.pivot, place[1:])
        grid = (placement, self.pitch, self.top_left, self.shape)
        # blurred as well, to leave out what the blur mixes with the outside of the field of view
        return self._blurred(moved(self.projection, *grid)), self._blurred(moved(self.whole, *grid))

    def _blurred(self, image: Image) -> Image:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), _BLUR_MM / self.pitch))

    def say(self, image: Summit, spine: Array) -> Guess | None:
        """Return the best placement of the outlines near that of stage one; None far from the spines'.

        The error follows from the gradients of parts of the images, which cancel at the best placement of all: where
        parts disagree, their gradients are large (the sandwich estimate of misspecified models: White, Econometrica
        1982). Images that correlate well, where the outlines do, have one outline: correlation and outlines then err
        independently where it is wider in one image, and are averaged.
        """
        place = image.place.copy()
        for _ in range(_REFINEMENTS):
            step, covariance = self._step(place)
            place = place + np.clip(step, -4, 4)
        agree = (np.abs(place - image.place) < 3 * np.sqrt(np.diag(covariance))).all()
        if image.height > _ONE_OUTLINE and agree:
            place = (place + image.place) / 2
            known = np.minimum(1, _KNOWN_MM / np.sqrt(covariance[2, 2])) ** np.array([0, 0, 1])
            covariance = covariance * np.outer(known, known)
        near = bool((np.abs(place - spine) < _FAR).all())
        return Guess(place, covariance) if near else None

    def _step(self, place: Array) -> tuple[Array, Array]:
        shown, weight = self._shown(place)
        use = weight > 0.99
        design = np.stack([np.ones(int(use.sum())), shown[use]], axis=1)
        (_, gain), *_ = np.linalg.lstsq(design, self.fixed[use], rcond=None)
        apart = self.fixed[use] - design @ np.linalg.lstsq(design, self.fixed[use], rcond=None)[0]
        slopes = []
        for k, delta in enumerate((0.4, self.pitch / 2, self.pitch / 2)):
            ahead, behind = (self._shown(place + sign * delta * np.eye(3)[k])[0] for sign in (1, -1))
            slopes.append(gain * (ahead - behind)[use] / (2 * delta))
        # an outline that is wider all round, as where the skin shows in one image alone, is no shift
        slopes.append(np.hypot(*np.gradient(shown))[use])
        slope = np.stack(slopes, axis=1)
        bend = slope.T @ slope + np.diag([1e-6] * 4)
        rows, columns = np.nonzero(use)
        x = self.top_left[1] + columns * self.pitch
        band = (rows * self.pitch / _PART_MM).astype(int) * 2 + (x > place[1])
        pulls = np.stack([np.bincount(band, apart * slope[:, k]) for k in range(4)], axis=1)
        inverse = np.linalg.inv(bend)
        count = int((np.bincount(band) > 0).sum())
        spread = inverse @ (pulls.T @ pulls) @ inverse * count / max(count - 4, 1)
        return (inverse @ (slope.T @ apart))[:3], spread[:3, :3] + np.diag(_LEAST_IMAGE**2)


class _Spines:
    """Borders and ends of both masks, row by row."""

    def __init__(self, scan_spine: Plane, shadow: Plane, thickness: Plane, pivot: Array, pitch: float) -> None:
        self.shadow, self.thickness, self.pivot, self.pitch = shadow, thickness, pivot, pitch
        corners = scan_spine.corners()
        grid = (
            (float(corners[:, 1].max()), float(corners[:, 0].min())),
            tuple(np.ceil(np.ptp(corners, axis=0) / pitch)),
        )
        shape = (int(grid[1][1]), int(grid[1][0]))
        drawn = moved(scan_spine, STILL, pitch, grid[0], shape)
        self.z = grid[0][0] - np.arange(shape[0]) * pitch
        self.borders = borders_of(drawn) * pitch + grid[0][1]
        self.ends = self.z[0] - _ends(drawn.sum(axis=1), pitch) * pitch
        # A border is known to a pixel of each mask: the stairs of a straight one resemble its taper.
        self.stairs = float(np.hypot(scan_spine.pixel_mm[1], shadow.pixel_mm[1]) / np.sqrt(12))

    def _rotated(self, angle_deg: float) -> tuple[Array, Array, Array]:
        """Return z from the pivot (falling), borders (rows, 2) from it, and both ends of the rotated MRI's mask."""
        arms = np.abs(self.shadow.corners() - self.pivot).max(axis=0)
        half = np.ceil((arms + np.sin(np.radians(MOST_DEG + 8)) * arms[::-1]) / self.pitch).astype(int)
        corner = (float(half[1] * self.pitch), float(-half[0] * self.pitch))
        shape = (2 * int(half[1]) + 1, 2 * int(half[0]) + 1)
        placement = Placement.about(angle_deg, self.pivot, np.zeros(2))
        shadow, thickness = (moved(p, placement, self.pitch, corner, shape) for p in (self.shadow, self.thickness))
        z = corner[0] - np.arange(shape[0]) * self.pitch
        return (
            z,
            borders_of(shadow) * self.pitch + corner[1],
            z[0] - _ends(thickness.sum(axis=1), self.pitch) * self.pitch,
        )

    def solve(self, images: Guess | None) -> Array:
        """Return the placement of the pivot: angle (degrees), x and z (mm)."""
        place = np.zeros(3)
        for turn in range(4):
            z, borders, ends = self._rotated(float(place[0]))
            if turn == 0:
                # the middles of both masks
                place[2] = self.ends.mean() - ends.mean()
                reach = self.ends - ends - place[2]
                span = _REACH_MM + float(np.abs(reach).max())
                shifts = place[2] + np.arange(-span, span + 1e-6, 2 * _STEP_MM)
            else:
                shifts = place[2] + np.arange(-8 * _STEP_MM, 8 * _STEP_MM + 1e-6, _STEP_MM / (1 if turn < 3 else 4))
            # with the images, and without them, as if they were aligned wrongly
            asked = (None,) if images is None else (images, None)
            fits = [self._fits(shifts, float(place[0]), z, borders, guess) for guess in asked]
            all_costs = np.array([fit[0] for fit in fits]) + self._ends_cost(shifts, ends)
            if images is not None:
                height = np.sqrt(2 * np.pi * images.covariance[2, 2]) / (2 * _REACH_MM)
                misplaced = _MISPLACED * min(1.0, images.covariance[2, 2] / _AGREE_MM**2)
                all_costs -= np.log([[1 - misplaced], [misplaced * min(height, 1.0)]])
            which, best = np.unravel_index(int(np.argmin(all_costs)), all_costs.shape)
            costs, (_, turned, x) = all_costs[which], fits[which]
            place = np.array([place[0] + turned[best], x[best], shifts[best]])
        inner = int(np.clip(best, 1, len(shifts) - 2))
        low, middle, high = costs[inner - 1 : inner + 2]
        bend = low - 2 * middle + high
        if bend > 1e-9 and np.isfinite(bend):
            place[2] = shifts[inner] + np.clip(0.5 * (low - high) / bend, -1, 1) * (shifts[1] - shifts[0])
        return place

    def _fits(
        self, shifts: Array, angle_deg: float, z: Array, borders: Array, images: Guess | None
    ) -> tuple[Array, Array, Array]:
        """Fit rotation, x and factor of width for each shift along the spine; return costs, rotations (degrees) and x.

        Iteratively reweighted least squares (Cauchy) on the normal equations of all shifts at once.
        """
        other = np.stack(
            [
                [np.interp(-self.z, -(z + shift), column, np.nan, np.nan) for column in borders.T]
                for shift in shifts.tolist()
            ]
        )
        use = np.isfinite(self.borders.T - other).all(axis=1)
        shorter = min(int(np.isfinite(one[:, 0]).sum()) for one in (self.borders, borders))
        shared = use.sum(axis=1)
        wanted, other = (np.where(use[:, None], one, 0.0) for one in (self.borders.T - other, other))
        half = (other[:, 1] - other[:, 0]) / 2
        turn = np.radians(self.z - shifts[:, None])
        share = self.pitch / _ALIKE_MM
        # the factor of width lies within a tenth of 1
        prior, expected = np.diag([0.0, 0.0, 100.0]), np.zeros((len(shifts), 3))
        away = np.zeros((len(shifts), 3))
        if images is not None:
            # what the images say of rotation and x at this shift, and of the shift itself
            known = np.linalg.inv(images.covariance)
            away = images.place - np.array([angle_deg, 0.0, 0.0]) - shifts[:, None] * [0.0, 0.0, 1.0]
            prior[:2, :2] = known[:2, :2]
            expected[:, :2] = away @ known[:, :2]
        spread, weight = np.full(len(shifts), 2.0), np.repeat(use[:, None], 2, axis=1).astype(np.float64)
        sides = np.array([-1.0, 1.0])[:, None]
        design = np.stack([np.broadcast_to(turn[:, None], wanted.shape), np.ones(wanted.shape), sides * half[:, None]])
        for _ in range(5):
            scaled = design * weight * (share / spread**2)[:, None, None]
            normal = np.einsum("isbn,jsbn->sij", scaled, design) + prior
            answer = np.linalg.solve(normal, (np.einsum("isbn,sbn->si", scaled, wanted) + expected)[:, :, None])[
                :, :, 0
            ]
            off = np.abs(wanted - np.einsum("isbn,si->sbn", design, answer))
            inside = np.sort(np.where(use[:, None], off, np.inf).reshape(len(shifts), -1), axis=1)
            middle = np.take_along_axis(inside, np.maximum(shared, 1)[:, None] + [-1, 0], axis=1).mean(axis=1)
            spread = np.maximum(1.4826 * middle, _LEAST_SPREAD_MM)
            shrunk = 1 / (1 + (off / (2 * spread[:, None, None])) ** 2)
            weight = shrunk**2 * use[:, None]
        # the likelihood of borders whose spread is not known
        squares = (4 * spread**2) * ((1 - shrunk) * use[:, None]).sum(axis=(1, 2)) / np.maximum(2 * shared, 1)
        cost = shorter * share * np.log(squares + self.stairs**2)
        if images is not None:
            gone = away - answer * [1.0, 1.0, 0.0]
            cost += np.einsum("si,ij,sj->s", gone, known, gone) / 2
        return np.where(shared < _LEAST_SHARED * shorter, np.inf, cost), answer[:, 0], answer[:, 1]

    def _ends_cost(self, shifts: Array, ends: Array) -> Array:
        """Return the cost of each shift for both ends: where they coincide it is low, elsewhere one mask lacks some."""
        cost = np.zeros(len(shifts))
        for drawn, other in zip(self.ends, ends, strict=True):
            apart = drawn - other - shifts
            same = (1 - _LACKS) * np.exp(-0.5 * (apart / _END_MM) ** 2) / (_END_MM * np.sqrt(2 * np.pi))
            cost -= np.log(same + _LACKS * np.exp(-np.abs(apart) / _LACKING_MM) / (2 * _LACKING_MM))
        return cost


def _ends(size: NDArray[np.float32], pitch: float) -> Array:
    """Return the rows (first, last) at which a mask has half the size of its sections near that end."""
    held, near = np.flatnonzero(size > 1e-3), max(1, round(36 / pitch))
    rows = []
    for along, sign in ((held, 1), (held[::-1], -1)):
        least = 0.5 * float(np.median(size[along[:near]]))
        row = int(along[np.argmax(size[along] >= least)])
        before = float(size[row - sign]) if 0 <= row - sign < len(size) else 0.0
        rows.append(row - sign * (float(size[row]) - least) / max(float(size[row]) - before, 1e-6))
    return np.array(rows)
