"""A scan becomes the network's input: find the body and the spine, resample, normalise.

Intensities and the canonical size follow the published preprocessing (Bourigault et al., MICCAI 2024): clamp below
the 9.5th percentile of the body, stretch, compress with a sigmoid, resample crown to toe to 832 rows. The published
crop needs the true curve; here `localise` finds it, so that a scan nobody has annotated will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_spine.errors import Refusal
from edge_spine.layout import CANONICAL_ROWS, CROP_SIZE
from edge_spine.localise import Landmarks, Localiser

if TYPE_CHECKING:
    from edge_spine.scan import Scan

LOWEST_PERCENTILE, HIGHEST_PERCENTILE = 9.5, 99.9
SIGMOID_SHIFT = 2.5
# share of the crown-to-toe extent, mean of adults: T1 top to L5 bottom, and crown to L5 bottom
_TRUNK_SHARE, _CROWN_TO_L5_SHARE = 0.2510, 0.4105
_SOFT_TISSUE_RATIO = 1.35
_MIN_CONFIDENCE = 0.35

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
    flags : tuple of str
        "inverted", "head-outside", "feet-outside".
    """

    pixels: Image
    mask: Mask
    crown: float
    toe: float
    bright: float
    flags: tuple[str, ...]


def prepare(scan: Scan, localiser: Localiser) -> Prepared:
    """Turn a scan into the network's input.

    Raises
    ------
    Refusal
        "soft-tissue-image" or "no-spine".
    """
    body = find_body(scan.pixels, scan.source)
    if "head-outside" not in body.flags and skull_to_abdomen(body) < _SOFT_TISSUE_RATIO:
        raise Refusal(
            "soft-tissue-image",
            f"{scan.source}: this is the soft-tissue image of the scan, which hardly shows the spine; "
            "give its bone image",
        )
    shown = normalise(body.pixels, body.mask)
    found = localiser(shown, scan.pixel_spacing_mm)
    _check_landmarks(scan, found)
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
    lowest, highest = float(pixels.min()), float(pixels.max())
    if highest > lowest and np.median(frame) > (lowest + highest) / 2:
        pixels, frame = highest - pixels, highest - frame
        flags.append("inverted")
    # a quarter of the pixels is enough for a level of display and a threshold
    bright = float(np.percentile(pixels[::2, ::2], 99.5))
    background = float(np.median(frame))
    noise = 1.4826 * float(np.median(np.abs(frame - background)))
    threshold = background + max(0.04 * (bright - background), 5 * noise)
    smooth = cv2.GaussianBlur(pixels, (3, 3), 0)
    above = (smooth > threshold).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    if highest <= lowest or count < 2:
        raise Refusal("no-spine", f"{source}: the image shows no body; a whole-body DXA bone image is needed")
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    mask = labels == largest
    rows = np.flatnonzero(mask.sum(axis=1) >= 2)
    if len(rows) == 0 or stats[largest, cv2.CC_STAT_AREA] < 0.05 * mask.size:
        raise Refusal("no-spine", f"{source}: the image shows no body; a whole-body DXA bone image is needed")
    if rows[0] <= 1:
        flags.append("head-outside")
    if rows[-1] >= pixels.shape[0] - 2:
        flags.append("feet-outside")
    return Body(pixels, mask, float(rows[0]) - 0.5, float(rows[-1]) + 0.5, bright, tuple(flags))


def skull_to_abdomen(body: Body) -> float:
    """Ratio of mean grey in the skull to that in the abdomen: about 2 on a bone image, 1 on a soft-tissue image."""
    extent_px = body.toe - body.crown

    def mean(first: float, last: float) -> float:
        rows = slice(int(body.crown + first * extent_px), int(body.crown + last * extent_px) + 1)
        inside = body.pixels[rows][body.mask[rows]]
        return float(np.mean(inside)) if inside.size else 0.0

    floor = float(body.pixels.min())
    return (mean(0.015, 0.085) - floor) / max(mean(0.33, 0.39) - floor, 1e-6)


def normalise(pixels: Image, mask: Mask) -> Image:
    """Normalise intensities to [0, 1] as published, with the 99.9th percentile in place of the maximum.

    Parameters
    ----------
    pixels : (rows, columns) array
        Larger is denser.
    mask : (rows, columns) bool array
        The body.
    """
    low, high = np.percentile(pixels[mask], [LOWEST_PERCENTILE, HIGHEST_PERCENTILE])
    stretched = np.clip((pixels - low) / max(float(high - low), 1e-6), 0, 1)
    least, most = 1 / (1 + np.exp(-SIGMOID_SHIFT)), 1 / (1 + np.exp(-SIGMOID_SHIFT - 1))
    shown = (1 / (1 + np.exp(-stretched - SIGMOID_SHIFT)) - least) / (most - least)
    return np.asarray(shown, dtype=np.float32)


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
        image = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
        start = [(s + 0.5) / f - 0.5 for s, f in zip(start, fine, strict=True)]
        step = [s / f for s, f in zip(step, fine, strict=True)]
    to_scan = np.array([[step[1], 0, start[1]], [0, step[0], start[0]]], dtype=np.float64)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    resampled = cv2.warpAffine(image, to_scan, (columns, rows), flags=flags, borderMode=cv2.BORDER_CONSTANT)
    return np.clip(resampled, 0, 1).astype(np.float32)


def as_tensor(crop: Image) -> Image:
    """Repeat a (224, 224) crop over three channels: (1, 3, 224, 224)."""
    return np.ascontiguousarray(np.broadcast_to(crop, (1, 3, *crop.shape)), dtype=np.float32)


def _check_landmarks(scan: Scan, found: Landmarks) -> None:
    length = found.trunk_mm(scan.pixel_spacing_mm)
    if found.confidence < _MIN_CONFIDENCE or not 250 < length < 640:
        raise Refusal(
            "no-spine",
            f"{scan.source}: no spine was found (confidence {found.confidence:.2f}); "
            "a whole-body, antero-posterior DXA bone image is needed",
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
