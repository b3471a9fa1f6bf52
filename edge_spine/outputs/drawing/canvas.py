"""What the panels draw on, and the geometry of their drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]  # red, green, blue
Image = NDArray[np.uint8]


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
        return self.x < other.right and other.x < self.right and self.y < other.bottom and other.y < self.bottom

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

    def points(self, across: Any, z: Any) -> NDArray[np.float64]:
        """Return canvas coordinates (N, 2) of points in mm."""
        column = self.box.x + (np.atleast_1d(across) - self.left_mm) * self.px_per_mm
        row = self.box.y + (self.top_mm - np.atleast_1d(z)) * self.px_per_mm
        return np.column_stack([column, row])


class Canvas(Protocol):
    """What the panels draw on: pixels, an SVG element or a PDF page, all in the pixels of the preview.

    Attributes
    ----------
    box : Box
        The whole canvas.
    texts : list of (str, Box)
        The texts that were written, and their places.
    """

    box: Box
    texts: list[tuple[str, Box]]

    def fill(self, box: Box, colour: Colour) -> None:
        """Fill a rectangle."""

    def card(self, box: Box, fill: Colour, radius: int = 10) -> None:
        """Draw a filled rectangle with round corners."""

    def rule(self, x: int, y: int, width: int, colour: Colour) -> None:
        """Draw a horizontal line of one pixel."""

    def paste(self, box: Box, picture: Image) -> None:
        """Draw a picture of the size of a box: a scan in grey (H, W), or BGR (H, W, 3) on black."""

    def hairlines(self, paths: Sequence[NDArray[np.float64]], colour: Colour, clip: Box | None = None) -> None:
        """Draw open lines of one pixel through points (N, 2), clipped to a box."""

    def stroke(self, path: NDArray[np.float64], colour: Colour, width: float, clip: Box) -> None:
        """Draw an open line of any width through points (N, 2), clipped to a box."""

    def area(self, outline: NDArray[np.float64], colour: Colour, opacity: float, clip: Box) -> None:
        """Fill an outline (N, 2) with an opacity from 0 to 1, clipped to a box."""

    def dot(self, centre: tuple[float, float], radius: float, colour: Colour) -> None:
        """Draw a filled disc."""

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
        """Write one line of text.

        Parameters
        ----------
        text : str
            Shortened in its middle where it is wider than `max_width`.
        x, baseline : int
            Where it starts, is centred or ends (see `align`), and the row of its baseline.
        size : int
            Font size in pixels.
        colour : Colour
            Colour of the letters.
        bold : bool
            Whether the letters are heavier.
        align : {"left", "centre", "right"}
            Which part of the text is at `x`.
        max_width : int, optional
            Pixels.
        backing : Colour, optional
            Colour of a translucent plate under the text, for text on images.

        Returns
        -------
        Box
            The pixels that the text takes.
        """
