"""A scan becomes the network's input: find the body and the spine, resample, normalise.

Intensities and the canonical size follow the published preprocessing (Bourigault et al., MICCAI 2024): clamp below
the 9.5th percentile of the body, stretch, compress with a sigmoid, resample crown to toe to 832 rows. The published
crop needs the true curve; here `localise` finds it, so that a scan nobody has annotated will do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_spine.errors import Refusal
from edge_spine.grey_levels import Levels, level_counts, mapped, percentiles_of_counts, whole_levels
from edge_spine.layout import CANONICAL_ROWS, CROP_SIZE
from edge_spine.localise import Landmarks, Localiser

if TYPE_CHECKING:
    from edge_spine.scan import Scan

LOWEST_PERCENTILE, HIGHEST_PERCENTILE = 9.5, 99.9
_BRIGHT_PERCENTILE = 99.5
SIGMOID_SHIFT = 2.5
# share of the crown-to-toe extent, mean of adults: T1 top to L5 bottom, and crown to L5 bottom
_TRUNK_SHARE, _CROWN_TO_L5_SHARE = 0.2510, 0.4105
_SOFT_TISSUE_RATIO = 1.3
_MIN_CONFIDENCE = 0.35
# T1 top to L5 bottom of adults, mm, and crown to T1 top as a share of it
_TRUNK_MM, _HEAD_TO_TRUNK = (300.0, 620.0), (0.35, 1.0)
# scanners' tables are at most about 700 mm wide, necks 150 mm; what of a body comes loose from it is small
_MAX_WIDTH_MM, _MAX_NECK_MM, _MAX_SECOND_SHARE = 800.0, 220.0, 0.4
# share of the trunk by which the crop's centre may miss the middle between T1 and L5
_MAX_OFF_CENTRE = 0.15

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Prepared:
    """The network's input and the way back to scanned millimetres.

    Attributes
    ----------
    tensor : (1, 3, 224, 224) float32 array
        The crop in [0, 1], three equal channels.
    model_pixel_mm : float
        Side of a crop pixel.
    crop_origin_px : (row, column)
        Place of the centre of crop pixel (0, 0), in pixels of the scan.
    pixel_spacing_mm : (row, column)
        Of the scan.
    flags : tuple of str
        What was unusual: "inverted", "feet-outside", "head-outside", "extent-estimated".
    localiser_confidence : float
        0 to 1, how sharply the spine was found.
    """

    tensor: Image
    model_pixel_mm: float
    crop_origin_px: tuple[float, float]
    pixel_spacing_mm: tuple[float, float]
    flags: tuple[str, ...]
    localiser_confidence: float


@dataclass(frozen=True)
class Body:
    """The body in a scan, larger values denser.

    Attributes
    ----------
    pixels : (rows, columns) float32 array
        The scan with bone bright.
    mask : (rows, columns) bool array
        The body.
    crown, toe : float
        Rows of the top and bottom edges of the body.
    bright : float
        Level that all but the brightest half per cent of the image stay below.
    second_share : float
        Area of the second largest thing in the image as a share of the body's.
    flags : tuple of str
        "inverted", "head-outside", "feet-outside".
    levels : (rows, columns) uint8 or uint16 array, optional
        The pixels again, where they are whole numbers of 8 or 16 bits.
    """

    pixels: Image
    mask: Mask
    crown: float
    toe: float
    bright: float
    second_share: float
    flags: tuple[str, ...]
    levels: Levels | None = None


def prepare(scan: Scan, localiser: Localiser) -> Prepared:
    """Turn a scan into the network's input.

    Raises
    ------
    Refusal
        "soft-tissue-image", "not-whole-body" or "no-spine".
    """
    body = find_body(scan.pixels, scan.source)
    _check_body(scan, body)
    shown = normalise(body.pixels, body.mask, body.levels)
    found = localiser(shown, scan.pixel_spacing_mm)
    _check_landmarks(scan, body, found)
    extent_mm, flags = _extent(body, found, scan.pixel_spacing_mm)
    model_pixel = extent_mm / CANONICAL_ROWS
    origin = crop_origin(found.centre_px, model_pixel, scan.pixel_spacing_mm)
    crop = resample(shown, scan.pixel_spacing_mm, model_pixel, origin, CROP_SIZE)
    return Prepared(
        tensor=as_tensor(crop),
        model_pixel_mm=model_pixel,
        crop_origin_px=origin,
        pixel_spacing_mm=scan.pixel_spacing_mm,
        flags=flags,
        localiser_confidence=found.confidence,
    )


def find_body(pixels: NDArray[np.float32], source: str) -> Body:
    """Set the polarity right (background dark) and find the largest thing that is not background.

    Parameters
    ----------
    pixels : (rows, columns) array
        A scan, bone bright or dark.
    source : str
        Its name, for messages.

    Raises
    ------
    Refusal
        "no-spine" where the image is empty or has no body.
    """
    pixels = np.ascontiguousarray(pixels, dtype=np.float32)
    frame = np.concatenate([pixels[:2].ravel(), pixels[:, :2].ravel(), pixels[:, -2:].ravel()])
    flags: list[str] = []
    lowest, highest, _, _ = cv2.minMaxLoc(pixels)
    levels = whole_levels(pixels, lowest, highest)
    background = float(np.median(frame))
    if highest > lowest and background > (lowest + highest) / 2:
        pixels, frame = np.float32(highest) - pixels, np.float32(highest) - frame
        levels = None if levels is None else levels.dtype.type(highest) - levels
        background = float(np.median(frame))
        flags.append("inverted")
    # a quarter of the pixels is enough for a level of display and a threshold
    if levels is None:
        bright = float(np.percentile(pixels[::2, ::2], _BRIGHT_PERCENTILE))
    else:
        bright = percentiles_of_counts(level_counts(levels[::2, ::2]), [_BRIGHT_PERCENTILE])[0]
    noise = 1.4826 * float(np.median(np.abs(frame - background)))
    threshold = background + max(0.04 * (bright - background), 5 * noise)
    above = (cv2.GaussianBlur(pixels, (3, 3), 0) > threshold).view(np.uint8)
    # without OpenCV's statistics, which take seven times as long as the labels
    count, labels = cv2.connectedComponents(above, connectivity=8)
    if highest <= lowest or count < 2:
        raise Refusal("no-spine", f"{source}: the image shows no body; a whole-body DXA bone image is needed")
    areas = _areas(np.asarray(labels, dtype=np.int32), count)
    largest = 1 + int(np.argmax(areas))
    mask = labels == largest
    widths = cv2.reduce(mask.view(np.uint8), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)
    rows = np.flatnonzero(widths >= 2)
    if len(rows) == 0 or areas[largest - 1] < 0.05 * mask.size:
        raise Refusal("no-spine", f"{source}: the image shows no body; a whole-body DXA bone image is needed")
    if rows[0] <= 1:
        flags.append("head-outside")
    if rows[-1] >= pixels.shape[0] - 2:
        flags.append("feet-outside")
    second, first = np.partition(areas, -2)[-2:] if len(areas) > 1 else (0, 1)
    return Body(
        pixels=pixels,
        mask=mask,
        crown=float(rows[0]) - 0.5,
        toe=float(rows[-1]) + 0.5,
        bright=bright,
        second_share=float(second / first),
        flags=tuple(flags),
        levels=levels,
    )


def _areas(labels: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Pixels of each label but 0, the background."""
    if count == 2:
        return np.array([cv2.countNonZero(labels)])
    if count <= 256:
        return level_counts(labels.astype(np.uint8))[1:count]
    return np.bincount(labels.ravel(), minlength=count)[1:].astype(np.int64)


def skull_to_abdomen(body: Body) -> float:
    """Ratio of mean grey in the skull to that in the abdomen: about 2 on a bone image, 1 on a soft-tissue image."""
    extent_px = body.toe - body.crown

    def mean(first: float, last: float) -> float:
        rows = slice(int(body.crown + first * extent_px), int(body.crown + last * extent_px) + 1)
        inside = body.pixels[rows][body.mask[rows]]
        return float(np.mean(inside)) if inside.size else 0.0

    floor = float(body.pixels.min())
    return (mean(0.015, 0.085) - floor) / max(mean(0.33, 0.39) - floor, 1e-6)


def normalise(pixels: Image, mask: Mask, levels: Levels | None = None) -> Image:
    """Normalise intensities to [0, 1] as published, with the 99.9th percentile in place of the maximum.

    Parameters
    ----------
    pixels : (rows, columns) array
        Larger is denser.
    mask : (rows, columns) bool array
        The body.
    levels : (rows, columns) array, optional
        As in `Body`: saves looking for it.
    """
    pixels = np.asarray(pixels, dtype=np.float32)
    if levels is None:
        lowest, highest, _, _ = cv2.minMaxLoc(pixels)
        levels = whole_levels(pixels, lowest, highest)
    shares = [LOWEST_PERCENTILE, HIGHEST_PERCENTILE]
    if levels is None:
        low, high = np.percentile(pixels[mask], shares).tolist()
    else:
        low, high = percentiles_of_counts(level_counts(levels, mask), shares)
    least, most = 1 / (1 + math.exp(-SIGMOID_SHIFT)), 1 / (1 + math.exp(-SIGMOID_SHIFT - 1))

    def curve(grey: NDArray[np.float64]) -> NDArray[np.float64]:
        stretched = np.clip((grey - low) / max(high - low, 1e-6), 0, 1)
        compressed: NDArray[np.float64] = (1 / (1 + np.exp(-stretched - SIGMOID_SHIFT)) - least) / (most - least)
        return compressed

    return mapped(pixels, levels, curve)


def crop_origin(
    centre_px: tuple[float, float], model_pixel_mm: float, spacing_mm: tuple[float, float]
) -> tuple[float, float]:
    """Place of crop pixel (0, 0), scan pixels (row, column), for a crop centred on `centre_px` (row, column)."""
    half = (CROP_SIZE - 1) / 2 * model_pixel_mm
    return centre_px[0] - half / spacing_mm[0], centre_px[1] - half / spacing_mm[1]


def resample(
    image: Image,
    spacing_mm: tuple[float, float],
    pixel_mm: float,
    origin_px: tuple[float, float],
    size: int | tuple[int, int],
) -> Image:
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


def as_tensor(crop: Image) -> Image:
    """Repeat a (224, 224) crop over three channels: (1, 3, 224, 224)."""
    return np.ascontiguousarray(np.broadcast_to(crop, (1, 3, *crop.shape)), dtype=np.float32)


def has_head_and_shoulders(body: Body) -> bool:
    """Tell whether the outline narrows to a neck below its top and widens to twice that, as an upright person's does.

    Distances from the first to the last column of the body: seen upside down, two ankles are no neck.
    """
    height = body.toe - body.crown
    first, last = body.mask.argmax(axis=1), body.mask.shape[1] - 1 - body.mask[:, ::-1].argmax(axis=1)
    span = np.asarray(last - first + 1)

    def part(begin: float, end: float) -> NDArray[np.int64]:
        rows = slice(int(body.crown + begin * height) + 1, int(body.crown + end * height) + 2)
        return span[rows]

    # wide enough for a scan that ends above the knees
    head, neck, shoulders = part(0.03, 0.13), part(0.09, 0.21), part(0.15, 0.4)
    return bool(neck.min() < 0.95 * head.max() and shoulders.max() > 2 * neck.min())


def _check_body(scan: Scan, body: Body) -> None:
    """Refuse what is no upright, single person, by outline and levels alone."""
    columns = np.flatnonzero(body.mask.any(axis=0))
    width = float(columns[-1] - columns[0] + 1) * scan.pixel_spacing_mm[1]
    if width > _MAX_WIDTH_MM:
        raise _not_whole_body(scan, f"what it shows is {width:.0f} mm wide, and a body at most {_MAX_WIDTH_MM:.0f}")
    if body.second_share > _MAX_SECOND_SHARE:
        raise _not_whole_body(scan, f"a second thing is {100 * body.second_share:.0f} % as large as the first")
    if "head-outside" in body.flags:
        # two rows below the edge, where cubic or lossy exports have settled
        top = float(body.mask[int(body.crown + 0.5) + 2].sum()) * scan.pixel_spacing_mm[1]
        if top > _MAX_NECK_MM:
            raise _not_whole_body(
                scan, f"at its upper edge the body is {top:.0f} mm wide, and a head or neck at most {_MAX_NECK_MM:.0f}"
            )
    elif (ratio := skull_to_abdomen(body)) < _SOFT_TISSUE_RATIO:
        if not has_head_and_shoulders(body):
            raise _not_whole_body(scan, "its outline has no head, neck and shoulders at the top")
        raise Refusal(
            "soft-tissue-image",
            f"{scan.source}: the skull is only {ratio:.2f} times as bright as the abdomen (a bone image: over "
            f"{_SOFT_TISSUE_RATIO:g}), as on a scan's soft-tissue image, which hardly shows the spine; "
            "give its bone image",
        )


def _check_landmarks(scan: Scan, body: Body, found: Landmarks) -> None:
    """Refuse landmarks that are unsure, or that no adult's could be."""
    if found.confidence < _MIN_CONFIDENCE:
        raise Refusal(
            "no-spine",
            f"{scan.source}: no spine was found (confidence {found.confidence:.2f}, expected {_MIN_CONFIDENCE:g} "
            "or more); give a whole-body, antero-posterior DXA bone image",
        )
    length = found.trunk_mm(scan.pixel_spacing_mm)
    if not _TRUNK_MM[0] < length < _TRUNK_MM[1]:
        raise _not_whole_body(
            scan,
            f"T1 to L5 would measure {length:.0f} mm, and an adult's {_TRUNK_MM[0]:.0f} to {_TRUNK_MM[1]:.0f} "
            "(is the pixel spacing right?)",
        )
    head = (found.t1_top_px[0] - body.crown) * scan.pixel_spacing_mm[0] / length
    if "head-outside" not in body.flags and not _HEAD_TO_TRUNK[0] < head < _HEAD_TO_TRUNK[1]:
        raise _not_whole_body(
            scan,
            f"crown to T1 would be {head:.2f} of the length from T1 to L5, and is {_HEAD_TO_TRUNK[0]:g} to "
            f"{_HEAD_TO_TRUNK[1]:g} of it",
        )
    middle = [(t1 + l5) / 2 for t1, l5 in zip(found.t1_top_px, found.l5_bottom_px, strict=True)]
    off_mm = [(c - m) * mm for c, m, mm in zip(found.centre_px, middle, scan.pixel_spacing_mm, strict=True)]
    off = math.hypot(*off_mm)
    if off > _MAX_OFF_CENTRE * length:
        raise Refusal(
            "no-spine",
            f"{scan.source}: no spine was found (its centre would lie {off:.0f} mm from the middle of T1 and L5, "
            f"expected at most {_MAX_OFF_CENTRE * length:.0f}); give a whole-body, antero-posterior DXA bone image",
        )


def _not_whole_body(scan: Scan, found: str) -> Refusal:
    return Refusal(
        "not-whole-body",
        f"{scan.source}: this is no whole body ({found}); give the DXA bone image of one whole person, head up",
    )


def _extent(body: Body, found: Landmarks, spacing_mm: tuple[float, float]) -> tuple[float, tuple[str, ...]]:
    """Crown-to-toe extent, mm: measured where the whole body shows, else from the trunk's share of it."""
    flags = list(body.flags)
    measured = (body.toe - body.crown) * spacing_mm[0]
    if "head-outside" in flags:
        estimate = found.trunk_mm(spacing_mm) / _TRUNK_SHARE
    else:
        estimate = (found.l5_bottom_px[0] - body.crown) * spacing_mm[0] / _CROWN_TO_L5_SHARE
    whole = "head-outside" not in flags and "feet-outside" not in flags
    if whole and 0.88 < measured / max(estimate, 1.0) < 1.14:
        return measured, tuple(flags)
    return float(estimate), (*flags, "extent-estimated")
