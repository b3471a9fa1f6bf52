"""A small canvas on OpenCV: soft text in any version's font, smooth lines, cards, views true to mm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]  # red, green, blue
Image = NDArray[np.uint8]

_SHIFT = 4  # OpenCV takes coordinates in sixteenths of a pixel
_HERSHEY_OVERSAMPLING = 4
_HERSHEY_CONDENSING = 0.84
_PLATE_OPACITY = 0.7
_CAP_HEIGHT = 0.7  # of the font size, as in most sans-serif fonts


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels: left, top, width, height."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """First column to the right of it."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """First row below it."""
        return self.y + self.height

    def overlaps(self, other: Box) -> bool:
        """Tell whether two rectangles share a pixel."""
        return self.x < other.right and other.x < self.right and self.y < other.bottom and other.y < self.bottom

    def inside(self, other: Box) -> bool:
        """Tell whether it lies wholly in another."""
        return other.x <= self.x and other.y <= self.y and self.right <= other.right and self.bottom <= other.bottom


@dataclass(frozen=True)
class MillimetreView:
    """A rectangle of pixels that shows a rectangle of millimetres, both axes to the same scale.

    Attributes
    ----------
    box : Box
        Where on the canvas.
    left_mm, top_mm : float
        The horizontal coordinate and z at the box's upper left corner; z falls downwards.
    px_per_mm : float
        The scale.
    """

    box: Box
    left_mm: float
    top_mm: float
    px_per_mm: float

    def points(self, across: Any, z: Any) -> NDArray[np.float64]:
        """Return canvas coordinates (N, 2) of points in mm."""
        column = self.box.x + (np.atleast_1d(across) - self.left_mm) * self.px_per_mm
        row = self.box.y + (self.top_mm - np.atleast_1d(z)) * self.px_per_mm
        return np.column_stack([column, row])


class Canvas:
    """An image to draw on; it remembers where text stands.

    Parameters
    ----------
    width, height : int
        Pixels.
    background : Colour
        What it is filled with.
    """

    def __init__(self, width: int, height: int, background: Colour) -> None:
        self.image: Image = np.empty((height, width, 3), np.uint8)
        self.box = Box(0, 0, width, height)
        self.fill(self.box, background)
        self.texts: list[tuple[str, Box]] = []

    def fill(self, box: Box, colour: Colour) -> None:
        """Fill a rectangle."""
        cv2.rectangle(self.image, (box.x, box.y), (box.right - 1, box.bottom - 1), colour[::-1], -1)

    def card(self, box: Box, fill: Colour, radius: int = 10) -> None:
        """Draw a filled rectangle with round corners."""
        x, y, right, bottom = box.x, box.y, box.right - 1, box.bottom - 1
        cv2.rectangle(self.image, (x + radius, y), (right - radius, bottom), fill[::-1], -1)
        cv2.rectangle(self.image, (x, y + radius), (right, bottom - radius), fill[::-1], -1)
        for centre in (
            (x + radius, y + radius),
            (right - radius, y + radius),
            (x + radius, bottom - radius),
            (right - radius, bottom - radius),
        ):
            cv2.circle(self.image, centre, radius, fill[::-1], -1, cv2.LINE_AA)

    def rule(self, x: int, y: int, width: int, colour: Colour) -> None:
        """Draw a horizontal hairline."""
        self.image[y, x : x + width] = colour[::-1]

    def paste(self, box: Box, picture: Image) -> None:
        """Put a grey (H, W) or BGR (H, W, 3) picture into a box of its size."""
        self._part(box)[:] = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR) if picture.ndim == 2 else picture

    def hairlines(self, paths: Sequence[NDArray[np.float64]], colour: Colour, clip: Box | None = None) -> None:
        """Draw open lines of one pixel through points (N, 2), cut at a box."""
        box = clip or self.box
        fixed = [_fixed_point(path, box) for path in paths]
        cv2.polylines(self._part(box), fixed, False, colour[::-1], 1, cv2.LINE_AA, _SHIFT)

    def stroke(self, path: NDArray[np.float64], colour: Colour, width: float, clip: Box) -> None:
        """Draw an open line of any width through points (N, 2), cut at a box.

        As one filled outline, since OpenCV's thick lines show a bead at every point of a fine curve.
        """
        along = np.gradient(path, axis=0)
        across = np.column_stack([-along[:, 1], along[:, 0]]) / np.hypot(*along.T)[:, np.newaxis]
        outline = np.concatenate([path + across * width / 2, (path - across * width / 2)[::-1]])
        fixed = _fixed_point(outline, clip)
        cv2.fillPoly(self._part(clip), [fixed], colour[::-1], cv2.LINE_AA, _SHIFT)

    def area(self, outline: NDArray[np.float64], colour: Colour, opacity: float, clip: Box) -> None:
        """Fill an outline (N, 2), partly transparent, cut at a box."""
        target = self._part(clip)
        mask = np.zeros(target.shape[:2], np.uint8)
        cv2.fillPoly(mask, [_fixed_point(outline, clip)], (round(255 * opacity),), cv2.LINE_AA, _SHIFT)
        blend(target, mask, colour)

    def dot(self, centre: tuple[float, float], radius: float, colour: Colour) -> None:
        """Draw a filled disc."""
        fixed = (round(centre[0] * 2**_SHIFT), round(centre[1] * 2**_SHIFT))
        cv2.circle(self.image, fixed, round(radius * 2**_SHIFT), colour[::-1], -1, cv2.LINE_AA, _SHIFT)

    def text_box(self, text: str, x: int, baseline: int, size: int, bold: bool, align: str) -> Box:
        """Return the pixels that a text takes."""
        mask, ascent = text_mask(text, size, bold)
        width = mask.shape[1]
        left = {"left": x, "centre": x - width // 2, "right": x - width}[align]
        return Box(left, baseline - ascent, width, mask.shape[0])

    def text(
        self,
        text: str,
        x: int,
        baseline: int,
        size: int,
        colour: Colour,
        *,
        bold: bool = False,
        align: str = "left",
        max_width: int | None = None,
        backing: Colour | None = None,
    ) -> Box:
        """Write one line.

        Parameters
        ----------
        text : str
            Shortened in its middle where it is wider than `max_width`.
        x, baseline : int
            Where it starts, is centred or ends (see `align`), and the row it stands on.
        size : int
            Font size in pixels.
        colour : Colour
            Of the letters.
        bold : bool
            Heavier letters.
        align : {"left", "centre", "right"}
            What `x` means.
        max_width : int, optional
            Pixels.
        backing : Colour, optional
            A soft plate under the text, for text on images.

        Returns
        -------
        Box
            The pixels it took.
        """
        if max_width is not None:
            text = shorten(text, max_width, size, bold)
        box = self.text_box(text, x, baseline, size, bold, align)
        if backing is not None:
            plate = self._part(Box(max(0, box.x - 5), max(0, box.y - 2), box.width + 10, box.height + 3))
            blend(plate, np.full(plate.shape[:2], round(255 * _PLATE_OPACITY), np.uint8), backing)
        mask, _ = text_mask(text, size, bold)
        top, left = max(0, box.y), max(0, box.x)
        target = self.image[top : max(top, box.bottom), left : max(left, box.right)]
        blend(target, mask[top - box.y :, left - box.x :][: target.shape[0], : target.shape[1]], colour)
        self.texts.append((text, box))
        return box

    def _part(self, box: Box) -> Image:
        return self.image[box.y : box.bottom, box.x : box.right]


def blend(target: Image, mask: NDArray[np.uint8], colour: Colour) -> None:
    """Mix a colour into pixels (H, W, 3), in place, by a mask (H, W) of 0 to 255."""
    weight = mask[..., np.newaxis].astype(np.uint16)
    mixed = target * (255 - weight) + np.array(colour[::-1], np.uint16) * weight
    target[:] = (mixed + 127) // 255


def shorten(text: str, max_width: int, size: int, bold: bool = False) -> str:
    """Return a text that is no wider than `max_width` pixels, with "..." for what was left out."""
    if text_mask(text, size, bold)[0].shape[1] <= max_width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        candidate = text[: (kept + 1) // 2] + "..." + text[len(text) - kept // 2 :]
        if text_mask(candidate, size, bold)[0].shape[1] <= max_width:
            return candidate
    return "..."


@lru_cache(maxsize=512)
def text_mask(text: str, size: int, bold: bool) -> tuple[NDArray[np.uint8], int]:
    """Return how much of each pixel a text covers, (H, W) of 0 to 255, and the baseline's row.

    OpenCV 5 brings a real font. OpenCV 4 has stroke fonts only, which look even when they are drawn
    large and averaged down, and know no degree sign, which is drawn.
    """
    ascent, descent = round(0.8 * size), round(0.25 * size)
    if hasattr(cv2, "FontFace"):
        mask = _line(text, size, bold, ascent, descent, 1)
    else:
        fine = _HERSHEY_OVERSAMPLING
        parts = []
        for index, piece in enumerate(text.split("°")):
            if index:
                parts.append(_degree_sign(size * fine, (ascent + descent) * fine, ascent * fine))
            if piece:
                parts.append(_line(piece, size * fine, bold, ascent * fine, descent * fine, fine))
        large = np.hstack(parts) if parts else np.zeros((fine, fine), np.uint8)
        width = max(1, round(large.shape[1] / fine * _HERSHEY_CONDENSING))
        mask = cv2.resize(large, (width, ascent + descent), interpolation=cv2.INTER_AREA).astype(np.uint8)
    mask.setflags(write=False)
    return mask, ascent


def _line(text: str, size: int, bold: bool, ascent: int, descent: int, fine: int) -> NDArray[np.uint8]:
    font = cv2.FONT_HERSHEY_DUPLEX if bold else cv2.FONT_HERSHEY_SIMPLEX
    scale = _CAP_HEIGHT * size / _cap_height()
    stroke = 1 if fine == 1 else max(1, round(size * (0.11 if bold else 0.075)))
    (width, _), _ = cv2.getTextSize(text, font, scale, stroke)
    mask = np.zeros((ascent + descent, width + 2 * fine), np.uint8)
    cv2.putText(mask, text, (fine, ascent), font, scale, (255,), stroke, cv2.LINE_AA)
    return mask


@lru_cache(maxsize=1)
def _cap_height() -> float:
    """Height in pixels of a capital letter at scale 1, measured: it differs between OpenCV 4 and 5."""
    probe = np.zeros((400, 400), np.uint8)
    cv2.putText(probe, "H", (50, 300), cv2.FONT_HERSHEY_SIMPLEX, 8.0, (255,), 1, cv2.LINE_AA)
    return float(np.count_nonzero(probe.any(axis=1))) / 8.0


def _degree_sign(size: int, height: int, ascent: int) -> NDArray[np.uint8]:
    radius = round(0.13 * size)
    sign = np.zeros((height, round(0.42 * size)), np.uint8)
    centre = (sign.shape[1] // 2, ascent - round(_CAP_HEIGHT * size) + radius)
    cv2.circle(sign, centre, radius, (255,), max(1, round(0.07 * size)), cv2.LINE_AA)
    return sign


def _fixed_point(points: NDArray[np.float64], box: Box) -> NDArray[np.int32]:
    fixed: NDArray[np.int32] = np.rint((points - (box.x, box.y)) * 2**_SHIFT).astype(np.int32)
    return fixed
