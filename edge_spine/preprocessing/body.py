"""Find the body in a scan, and measure what distinguishes an upright bone image from other pictures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_spine.errors import Refusal
from edge_spine.preprocessing.intensity import GreyValues, percentile, percentiles_of_counts, value_counts, whole_greys

_BRIGHT_PERCENTILE = 99.5


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
    floor : float
        Least grey value.
    bright : float
        Grey value below which 99.5 % of the image lies.
    second_share : float
        Area of the second largest connected part of the image as a share of the body's.
    flags : tuple of str
        "inverted", "head-outside", "feet-outside".
    greys : (rows, columns) uint8 or uint16 array, optional
        The pixels as integers, where all are whole numbers of 8 or 16 bits.
    """

    pixels: NDArray[np.float32]
    mask: NDArray[np.bool_]
    crown: float
    toe: float
    floor: float
    bright: float
    second_share: float
    flags: tuple[str, ...]
    greys: GreyValues | None = None


def find_body(pixels: NDArray[np.float32]) -> Body:
    """Invert a scan whose background is bright, and find its largest connected part that is not background.

    `pixels` (rows, columns) show bone bright or dark. Refuse them as 'no-spine' where they are empty or show no body.
    """
    pixels = np.ascontiguousarray(pixels, dtype=np.float32)
    frame = np.concatenate([pixels[:2].ravel(), pixels[:, :2].ravel(), pixels[:, -2:].ravel()])
    flags: list[str] = []
    lowest, highest, _, _ = cv2.minMaxLoc(pixels)
    greys = whole_greys(pixels, lowest, highest)
    background, floor = percentile(frame, 50), lowest
    if highest > lowest and background > (lowest + highest) / 2:
        pixels, frame = np.float32(highest) - pixels, np.float32(highest) - frame
        greys = None if greys is None else greys.dtype.type(highest) - greys
        background, floor = percentile(frame, 50), 0.0
        flags.append("inverted")
    # a quarter of the pixels is enough for a percentile
    if greys is None:
        bright = float(np.percentile(pixels[::2, ::2], _BRIGHT_PERCENTILE))
    else:
        bright = percentiles_of_counts(value_counts(greys[::2, ::2]), [_BRIGHT_PERCENTILE])[0]
    noise = 1.4826 * percentile(np.abs(frame - np.float32(background)), 50)
    threshold = background + max(0.04 * (bright - background), 5 * noise)
    above = (cv2.GaussianBlur(pixels, (3, 3), 0) > threshold).view(np.uint8)
    # OpenCV's own statistics would take seven times as long as the labels
    count, labels = cv2.connectedComponents(above, connectivity=8)
    if highest <= lowest or count < 2:
        raise Refusal("no-spine", "the image shows no body; a whole-body DXA bone image is needed")
    areas = _areas(np.asarray(labels, dtype=np.int32), count)
    largest = 1 + int(np.argmax(areas))
    mask = labels == largest
    widths = cv2.reduce(mask.view(np.uint8), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)
    rows = np.flatnonzero(widths >= 2)
    if len(rows) == 0 or areas[largest - 1] < 0.05 * mask.size:
        raise Refusal("no-spine", "the image shows no body; a whole-body DXA bone image is needed")
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
        floor=floor,
        bright=bright,
        second_share=float(second / first),
        flags=tuple(flags),
        greys=greys,
    )


def _areas(labels: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Count the pixels of each label but 0, the background."""
    if count == 2:
        return np.array([cv2.countNonZero(labels)])
    if count <= 256:
        return value_counts(labels.astype(np.uint8))[1:count]
    return np.bincount(labels.ravel(), minlength=count)[1:].astype(np.int64)


def skull_to_abdomen(body: Body) -> float:
    """Return mean grey of the skull over that of the abdomen: about 2 on a bone image, 1 on a soft-tissue image."""
    extent_px = body.toe - body.crown

    def mean(first: float, last: float) -> float:
        rows = slice(int(body.crown + first * extent_px), int(body.crown + last * extent_px) + 1)
        inside = body.pixels[rows][body.mask[rows]]
        return float(np.mean(inside)) if inside.size else 0.0

    return (mean(0.015, 0.085) - body.floor) / max(mean(0.33, 0.39) - body.floor, 1e-6)


def clipped_share(body: Body) -> float:
    """Return the share of the body that has its largest grey value."""
    inside = body.pixels[body.mask]
    return float(np.mean(inside >= inside.max()))


def has_head_and_shoulders(body: Body) -> bool:
    """Return whether the outline has a neck below its top and widens to twice that, as an upright person's does.

    Widths run from the first to the last column of the body, so that two ankles of a body upside down are no neck.
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
