"""Interface of the canvases that the panels draw on, and the geometry of their drawings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_spine.outputs.drawing.text import shorten, text_mask

Colour = tuple[int, int, int]  # red, green, blue
Image = NDArray[np.uint8]
PLATE_OPACITY = 0.7


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels: left, top, width, height."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """Return the first column to the right of the box."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """Return the first row below the box."""
        return self.y + self.height

    def overlaps(self, other: Box) -> bool:
        """Return whether two rectangles share a pixel."""
        return (
            other.x - self.width < self.x < other.x + other.width
            and other.y - self.height < self.y < other.y + other.height
        )

    def inside(self, other: Box) -> bool:
        """Return whether the box lies wholly in another."""
        return other.x <= self.x and other.y <= self.y and self.right <= other.right and self.bottom <= other.bottom


@dataclass(frozen=True)
class MillimetreView:
    """A rectangle of pixels that shows a rectangle of millimetres, both axes to the same scale.

    Attributes
    ----------
    box : Box
        Its place on the canvas.
    left_mm, top_mm : float
        Horizontal coordinate (x or y) and z, mm, at the box's upper left corner; z decreases downwards.
    px_per_mm : float
        Scale of both axes.
    """

    box: Box
    left_mm: float
    top_mm: float
    px_per_mm: float

    @classmethod
    def centred(cls, box: Box, across: ArrayLike, z: ArrayLike, px_per_mm: float) -> MillimetreView:
        """Return the view with the middle of the ranges of `across` and `z` (mm) at its centre."""
        middle, height = (float(np.min(values) + np.max(values)) / 2 for values in (across, z))
        return cls(box, middle - box.width / px_per_mm / 2, height + box.height / px_per_mm / 2, px_per_mm)

    @property
    def right_mm(self) -> float:
        """Return the horizontal coordinate at the right edge."""
        return self.left_mm + self.box.width / self.px_per_mm

    @property
    def bottom_mm(self) -> float:
        """Return z at the lower edge."""
        return self.top_mm - self.box.height / self.px_per_mm

    def points(self, across: ArrayLike, z: ArrayLike) -> NDArray[np.float64]:
        """Return canvas coordinates (N, 2) of points in mm."""
        column = self.box.x + (np.atleast_1d(across) - self.left_mm) * self.px_per_mm
        row = self.box.y + (self.top_mm - np.atleast_1d(z)) * self.px_per_mm
        return np.column_stack([column, row])

    def between(
        self, one: NDArray[np.float64], other: NDArray[np.float64], z: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the outline (2 N, 2), on the canvas, of the area between two curves: down one and up the other."""
        return np.concatenate([self.points(one, z), self.points(other[::-1], z[::-1])])


def text_box(text: str, x: int, baseline: int, size: int, bold: bool, align: str) -> Box:
    """Return the pixels that a text takes; for the parameters see `Canvas.text`."""
    mask, ascent = text_mask(text, size, bold)
    height, width = mask.shape
    left = {"left": x, "centre": x - width // 2, "right": x - width}[align]
    return Box(left, baseline - ascent, width, height)


class Canvas(ABC):
    """Interface of a canvas: pixels, an SVG element or a PDF page, all in the pixels of the preview.

    `texts` are those that were written, and their places.
    """

    def __init__(self, width: int, height: int) -> None:
        self.box = Box(0, 0, width, height)
        self.texts: list[tuple[str, Box]] = []

    @abstractmethod
    def fill(self, box: Box, colour: Colour, radius: int = 0) -> None:
        """Fill a rectangle, whose corners may be round."""

    @abstractmethod
    def rule(self, x: int, y: int, width: int, colour: Colour) -> None:
        """Draw a horizontal line of one pixel."""

    @abstractmethod
    def paste(self, box: Box, picture: Image) -> None:
        """Draw a picture of the size of a box: a scan in grey (H, W), or BGR (H, W, 3) on black."""

    @abstractmethod
    def hairlines(self, paths: Sequence[NDArray[np.float64]], colour: Colour, clip: Box) -> None:
        """Draw open lines of one pixel through points (N, 2), clipped to a box."""

    @abstractmethod
    def stroke(self, path: NDArray[np.float64], colour: Colour, width: float, clip: Box) -> None:
        """Draw an open line of any width through points (N, 2), clipped to a box."""

    @abstractmethod
    def area(self, outline: NDArray[np.float64], colour: Colour, opacity: float, clip: Box) -> None:
        """Fill an outline (N, 2) with an opacity from 0 to 1, clipped to a box."""

    @abstractmethod
    def dot(self, centre: tuple[float, float], radius: float, colour: Colour) -> None:
        """Draw a filled disc."""

    @abstractmethod
    def _plate(self, plate: Box, colour: Colour, box: Box) -> None:
        """Fill a rectangle, under the text that takes a box, with `PLATE_OPACITY`."""

    @abstractmethod
    def _write(self, text: str, box: Box, baseline: int, size: int, colour: Colour, bold: bool) -> None:
        """Write a text that takes a box."""

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
        """Write one line of text, and return the pixels that it takes.

        Parameters
        ----------
        text : str
            Shortened in its middle where it is wider than `max_width` pixels.
        x, baseline : int
            Where it starts, is centred or ends (see `align`), and the row of its baseline.
        size : int
            Font size in pixels.
        align : {"left", "centre", "right"}
            Which part of the text is at `x`.
        backing : Colour, optional
            Colour of a translucent plate under the text, for text on images.
        """
        if max_width is not None:
            text = shorten(text, max_width, size, bold)
        box = text_box(text, x, baseline, size, bold, align)
        if backing is not None:
            self._plate(Box(box.x - 5, box.y - 2, box.width + 10, box.height + 3), backing, box)
        self._write(text, box, baseline, size, colour, bold)
        self.texts.append((text, box))
        return box
