"""The canvas of vector graphics, which SVG and PDF share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_spine.outputs.drawing.canvas import Box, Colour, Image
from edge_spine.outputs.drawing.palette import PALETTE, PAPER
from edge_spine.outputs.drawing.text import shorten, text_box

_NAMES = {colour: name for name, colour in PALETTE.items() if name != "ground"}


@dataclass(frozen=True)
class Ink:
    """A colour of the palette, and whether it is on a scan, which stays dark on paper."""

    name: str
    on_film: bool = False

    def on_paper(self) -> Colour:
        """Return the colour in print."""
        return (PALETTE if self.on_film else PAPER)[self.name]


def hexadecimal(colour: Colour) -> str:
    """Return a colour as "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


class VectorCanvas(ABC):
    """A `Canvas` that turns every call into one of six shapes, which a subclass writes.

    Parameters
    ----------
    width, height : int
        Size in pixels of the preview.
    """

    def __init__(self, width: int, height: int) -> None:
        self.box = Box(0, 0, width, height)
        self.texts: list[tuple[str, Box]] = []
        self._films: list[Box] = []

    @abstractmethod
    def _rectangle(self, box: Box, ink: Ink, *, radius: int = 0, opacity: float = 1.0) -> None: ...

    @abstractmethod
    def _line(self, path: NDArray[np.float64], ink: Ink, width: float, clip: Box) -> None: ...

    @abstractmethod
    def _polygon(self, outline: NDArray[np.float64], ink: Ink, opacity: float, clip: Box) -> None: ...

    @abstractmethod
    def _disc(self, centre: tuple[float, float], radius: float, ink: Ink) -> None: ...

    @abstractmethod
    def _picture(self, box: Box, picture: Image) -> None: ...

    @abstractmethod
    def _write(self, text: str, box: Box, baseline: int, size: int, ink: Ink, bold: bool) -> None: ...

    def fill(self, box: Box, colour: Colour) -> None:
        # Black is the background of a view, which is white on paper.
        self._rectangle(box, self._ground(box) if colour == PALETTE["black"] else self._ink(colour, box))

    def card(self, box: Box, fill: Colour, radius: int = 10) -> None:
        self._rectangle(box, self._ink(fill, box), radius=radius)

    def rule(self, x: int, y: int, width: int, colour: Colour) -> None:
        path = np.array([[x, y + 0.5], [x + width, y + 0.5]])
        self._line(path, self._ink(colour, self.box), 1.0, self.box)

    def paste(self, box: Box, picture: Image) -> None:
        if picture.ndim == 2:
            self._films.append(box)
        self._picture(box, picture)

    def hairlines(self, paths: Sequence[NDArray[np.float64]], colour: Colour, clip: Box | None = None) -> None:
        box = clip or self.box
        for path in paths:
            self._line(path, self._ink(colour, box), 1.0, box)

    def stroke(self, path: NDArray[np.float64], colour: Colour, width: float, clip: Box) -> None:
        self._line(path, self._ink(colour, clip), width, clip)

    def area(self, outline: NDArray[np.float64], colour: Colour, opacity: float, clip: Box) -> None:
        self._polygon(outline, self._ink(colour, clip), opacity, clip)

    def dot(self, centre: tuple[float, float], radius: float, colour: Colour) -> None:
        around = Box(round(centre[0]), round(centre[1]), 1, 1)
        self._disc(centre, radius, self._ink(colour, around))

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
        if max_width is not None:
            text = shorten(text, max_width, size, bold)
        box = text_box(text, x, baseline, size, bold, align)
        if backing is not None:
            plate = Box(box.x - 5, box.y - 2, box.width + 10, box.height + 3)
            self._rectangle(plate, self._ground(box), opacity=0.7)
        self._write(text, box, baseline, size, self._ink(colour, box), bold)
        self.texts.append((text, box))
        return box

    def _ink(self, colour: Colour, place: Box) -> Ink:
        return Ink(_NAMES[colour], any(place.inside(film) for film in self._films))

    def _ground(self, place: Box) -> Ink:
        return Ink("ground", self._ink(PALETTE["black"], place).on_film)


def cut_out(picture: Image) -> Image:
    """Make the black background of a bright picture (H, W, 3) transparent.

    A pixel on the edge is darker in proportion to the part of it that is covered. The ratio to its brightest
    neighbour estimates this part.

    Returns
    -------
    (H, W, 4) uint8 array
        Colours, and opacity from 0 to 255.
    """
    brightness = picture.max(axis=2).astype(np.float32)
    seen = (brightness > 0).astype(np.uint8)
    inside = cv2.erode(seen, np.ones((3, 3), np.uint8)) > 0
    share = np.where(inside, 1.0, brightness / np.maximum(cv2.dilate(brightness, np.ones((3, 3), np.uint8)), 1.0))
    colour = np.minimum(picture / np.maximum(share, 1e-3)[..., np.newaxis], 255.0)
    freed: Image = np.rint(np.dstack([colour, 255 * share])).astype(np.uint8)
    return freed
