"""Check an aligned pair against anatomy: directions of the MRI's axes, and what its spine mask holds.

Labels of directions are often wrong, and masks often hold a neighbour of the spine. A pair that contradicts anatomy is
skipped; what cannot be told, passes. Limits are the range of phantoms and people whose outline, contrast and masks
were made independently (`other_mri`), widened by half.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from scipy import ndimage

from edge_spine.vertebrae import AVERAGE_SHARES, LEVELS
from export.training.alignment.curves import Track
from export.training.alignment.rigid import Array, Plane
from export.training.alignment.volume import PairSkipped, Volume
from export.training.phantoms.shape import DEPTH_MM, WIDTH_MM

# Shares of the spine's length (0 top of T1, 1 bottom of L5) beside heart and lungs, and beside liver and stomach.
_HEART, _STOMACH, _ABDOMEN = (0.20, 0.44), (0.52, 0.78), (0.6, 1.0)
_BESIDE_MM = (22.0, 130.0)
_LEAST_AIR_ML = 10.0
# Bent so far to the front, a spine is mirrored; people who lie have 30 mm to the back, the least here was 19 mm.
_BENT_MM = 10.0
# A mirrored centreline fits better by so much, or worse by so much.
_MISFIT_SHARE, _MISFIT_MM = 0.7, 0.5
# Centrelines of one person were at most 1.5 mm apart, of two persons more than 3 mm in 77 of 100.
_ONE_PERSON_MM = 3.0
_HEART_SIDE, _STOMACH_SIDE = 0.05, 0.7
# One mask may end so far before or behind the other; C7 is 19 mm high.
_MOST_APART_MM = 12.0
# Smallest and largest size over an average adult's, of the middle over all levels and of a level over that.
_SIZE, _LEVEL, _DEPTH_OVER_WIDTH, _OVER_SCAN = (0.65, 1.5), (0.75, 1.28), (0.7, 1.42), (0.75, 1.33)
# T1, T2 and L5 are left out, where sections of a tilted spine are incomplete.
_JUDGED = slice(2, 16)


def check_sides(mri: Volume, mask: Volume, scan_spine: Plane, tracked: Track) -> dict[str, Any]:
    """Check front and back, left and right; return what was found, for the report.

    Raises
    ------
    PairSkipped
        "front-and-back" if the spine is bent the wrong way, clearly or while it lies before the middle of the trunk;
        "left-and-right" if the scan's coronal curve fits the mirrored MRI's, or heart and stomach lie right.
    """
    behind, bent = front_to_back(mri, mask), kyphosis_mm(tracked)
    if bent < -_BENT_MM or (behind < 0 and bent < 0):
        raise PairSkipped(
            "front-and-back",
            f"the spine lies {behind:+.2f} of half the trunk's depth behind its middle and is bent {bent:+.0f} mm to "
            "the back at T7: front and back are exchanged",
        )
    straight, mirrored = coronal_misfits(scan_spine, tracked)
    heart, stomach = air_to_sides(mri, mask)
    if mirrored < _MISFIT_SHARE * straight and straight - mirrored > _MISFIT_MM:
        raise PairSkipped(
            "left-and-right",
            f"the scan's coronal curve is {straight:.1f} mm off the MRI's and {mirrored:.1f} mm off the mirrored one: "
            "left and right are exchanged in one of them",
        )
    sure = straight < _MISFIT_SHARE * mirrored and mirrored - straight > _MISFIT_MM
    if not sure and heart < -_HEART_SIDE and stomach < -_STOMACH_SIDE:
        raise PairSkipped(
            "left-and-right", "the MRI shows heart and stomach at the right: its left and right are exchanged"
        )
    return {
        "spine_behind_middle": round(behind, 2),
        "kyphosis_mm": round(bent, 1),
        "misfit_mm": [round(straight, 2), round(mirrored, 2)],
        "air_right_of_heart": round(heart, 2),
        "air_left_at_stomach": round(stomach, 2),
    }


def check_mask(scan_spine: Plane, tracked: Track) -> None:
    """Check that both masks end at the same levels, width and depth of the MRI's, and that both have one curve.

    Raises
    ------
    PairSkipped
        "spine-ends", "spine-size" or "other-curve".
    """
    top, bottom = scan_ends(scan_spine)
    for end, level, further in (("top", "T1", tracked.top_mm - top), ("bottom", "L5", bottom - tracked.bottom_mm)):
        if abs(further) > _MOST_APART_MM:
            way = "behind" if further > 0 else "before"
            raise PairSkipped(
                "spine-ends",
                f"at its {end} the MRI's spine mask ends {abs(further):.0f} mm {way} the scan's: one of them does not "
                f"end with {level}",
            )
    sizes = relative_sizes(tracked, scan_spine)[_JUDGED]
    middle = np.median(sizes, axis=0)
    found: list[tuple[str, float, tuple[float, float]]] = [
        ("width of the MRI's mask over an average adult's", middle[0], _SIZE),
        ("depth of the MRI's mask over an average adult's", middle[1], _SIZE),
        ("depth over width, over an average adult's,", middle[1] / middle[0], _DEPTH_OVER_WIDTH),
        ("width of the MRI's mask over that of the scan's", middle[2], _OVER_SCAN),
    ]
    for kind, column in (("width", 0), ("depth", 1)):
        over = sizes[:, column] / middle[column]
        worst = int(np.argmax(np.abs(np.log(np.maximum(over, 1e-3)))))
        found.append((f"{kind} at {LEVELS[_JUDGED][worst]} over that of the other levels", over[worst], _LEVEL))
    for name, value, (least, most) in found:
        if not least <= value <= most:
            raise PairSkipped(
                "spine-size", f"the {name} is {value:.2f}; {least} to {most} is a column of bodies and discs"
            )
    apart, _ = coronal_misfits(scan_spine, tracked)
    if apart > _ONE_PERSON_MM:
        raise PairSkipped(
            "other-curve",
            f"the scan's coronal curve is {apart:.1f} mm off the MRI's; at most {_ONE_PERSON_MM:.0f} is one person "
            "lying alike",
        )


def front_to_back(mri: Volume, mask: Volume) -> float:
    """Return how far the spine lies behind the middle of the trunk, as a share of half its depth; the median."""
    edge = _body_level(mri)
    shares = []
    for z in _slices(mask, 0.1, 0.95, 12):
        x, y = np.argwhere(mask.values[:, :, z]).mean(axis=0)
        near = mri.values[max(0, round(x) - 5) : round(x) + 6, :, max(0, z - 1) : z + 2].mean(axis=(0, 2))
        inside = np.flatnonzero(near > edge)
        if len(inside):
            shares.append(2 * (y - inside[0]) / max(int(inside[-1] - inside[0]), 1) - 1)
    return float(np.median(shares)) if shares else 0.0


def kyphosis_mm(tracked: Track) -> float:
    """Return how far the spine lies behind the line from T1 to L3 at T7, mm: some 30 in people who lie."""
    first, middle, last = tracked.curves_at(_heights(tracked)[[0, 6, 14]])[:, 4]
    t1, t7, l3 = (AVERAGE_SHARES[LEVELS.index(level)] for level in ("T1", "T7", "L3"))
    share = (t7 - t1) / (l3 - t1)
    return float(middle - first - share * (last - first))


def coronal_misfits(scan_spine: Plane, tracked: Track) -> tuple[float, float]:
    """Return the RMS distance (mm) of the scan's centreline from the MRI's, and from the MRI's mirrored left to right.

    Each is fitted with a shift in both directions and a small rotation.
    """
    inside = scan_spine.pixels > 0.5
    rows = np.flatnonzero(inside.any(axis=1))
    x = (inside[rows] @ np.arange(inside.shape[1])) / inside[rows].sum(axis=1) * scan_spine.pixel_mm[1]
    z = scan_spine.top_left_mm[0] - rows * scan_spine.pixel_mm[0]
    misfits = {1: np.inf, -1: np.inf}
    for shift in np.arange(-24.0, 24.1, 3.0):
        use = (z + shift < tracked.first_mm) & (z + shift > tracked.last_mm)
        if use.sum() < max(0.7 * len(z), 3):
            continue
        centre = tracked.curves_at(z[use] + shift)[:, 1]
        for sign in misfits:
            apart = x[use] - sign * centre
            apart = apart - np.polyval(np.polyfit(z[use] - z.mean(), apart, 1), z[use] - z.mean())
            misfits[sign] = min(misfits[sign], float(np.sqrt(np.mean(apart**2))))
    return misfits[1], misfits[-1]


def air_to_sides(mri: Volume, mask: Volume) -> tuple[float, float]:
    """Return how much more air lies right than left at the heart, and left than right at the stomach: -1 to 1 each.

    The heart takes the left lung's place, and gas of the stomach lies left. 0 where there is next to no air.
    """
    edge = _body_level(mri)
    abdomen = [mri.values[:, :, z] for z in _slices(mask, *_ABDOMEN, 8)]
    dark = 0.4 * float(np.percentile(np.concatenate([image[image > edge] for image in abdomen]), 25))
    rim = np.ones((2 * round(12 / mri.voxel_mm[0]) + 1, 2 * round(12 / mri.voxel_mm[1]) + 1), dtype=np.uint8)
    found = []
    for first, last in (_HEART, _STOMACH):
        sides = np.zeros(2)
        slices = _slices(mask, first, last, 14)
        for z in slices:
            image = cv2.blur(mri.values[:, :, z], (3, 3))
            x = (np.arange(len(image)) - np.argwhere(mask.values[:, :, z])[:, 0].mean()) * mri.voxel_mm[0]
            trunk = cv2.erode(ndimage.binary_fill_holes(image > edge).astype(np.uint8), rim) > 0
            air = ((image < dark) & trunk).sum(axis=1)
            near = (np.abs(x) > _BESIDE_MM[0]) & (np.abs(x) < _BESIDE_MM[1])
            sides += air[near & (x < 0)].sum(), air[near & (x > 0)].sum()
        height = (slices[-1] - slices[0]) / max(len(slices) - 1, 1) * mri.voxel_mm[2]
        millilitres = sides.sum() * mri.voxel_mm[0] * mri.voxel_mm[1] * height * 1e-3
        found.append(float((sides[0] - sides[1]) / sides.sum()) if millilitres > _LEAST_AIR_ML else 0.0)
    return found[0], -found[1]


def relative_sizes(tracked: Track, scan_spine: Plane) -> Array:
    """Return (17, 3) by level: width and depth over an average adult's, and the width over that in the scan.

    Width and depth are those perpendicular to the spine.
    """
    centres = _heights(tracked)
    curves, lower = tracked.curves_at(centres), tracked.curves_at(centres - 5.0)
    tilt = np.cos(np.arctan((lower - curves)[:, [1, 4]] / 5.0))
    wide, deep = curves[:, 2] - curves[:, 0], curves[:, 5] - curves[:, 3]
    rows = np.clip((scan_spine.top_left_mm[0] - centres) / scan_spine.pixel_mm[0], 0, len(scan_spine.pixels) - 1)
    drawn = (scan_spine.pixels > 0.5).sum(axis=1) * scan_spine.pixel_mm[1]
    scan = np.array([np.median(drawn[max(0, round(row) - 1) : round(row) + 2]) for row in rows])
    return np.stack([wide * tilt[:, 0] / WIDTH_MM, deep * tilt[:, 1] / DEPTH_MM, wide / np.maximum(scan, 1)], axis=1)


def scan_ends(scan_spine: Plane) -> tuple[float, float]:
    """Return z (mm) of both ends of the largest part of a scan's mask, where it has half its width."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats((scan_spine.pixels > 0.5).astype(np.uint8))
    width = (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).sum(axis=1)
    held, near = np.flatnonzero(width), round(40 / scan_spine.pixel_mm[0])
    rows = []
    for along in (held, held[::-1]):
        least = 0.5 * float(np.median(width[along[:near]]))
        rows.append(int(along[np.argmax(width[along] >= least)]))
    top, bottom = rows[0] - 0.5, rows[1] + 0.5
    return (
        scan_spine.top_left_mm[0] - top * scan_spine.pixel_mm[0],
        scan_spine.top_left_mm[0] - bottom * scan_spine.pixel_mm[0],
    )


def _heights(tracked: Track) -> Array:
    """Return z (17,) of the middles of T1 to L5 in a spine of average proportions."""
    heights: Array = tracked.top_mm - (tracked.top_mm - tracked.bottom_mm) * AVERAGE_SHARES
    return heights


def _body_level(mri: Volume) -> float:
    """Return the intensity that separates body from air around it."""
    low, high = np.percentile(mri.values[::4, ::4, ::4], [2, 99])
    return float(low + 0.08 * (high - low))


def _slices(mask: Volume, first: float, last: float, count: int) -> list[int]:
    """Return slices with spine between two shares of its length, counted from its top."""
    z = np.flatnonzero(mask.values.any(axis=(0, 1)))
    places = np.interp(np.linspace(first, last, count), np.linspace(0, 1, len(z)), z[::-1])
    return sorted({int(z[np.argmin(np.abs(z - place))]) for place in places})
