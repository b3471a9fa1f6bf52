"""The canvas of vector graphics, which SVG and PDF share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_spine.outputs.drawing.canvas import PLATE_OPACITY, Box, Canvas, Colour, Image
from edge_spine.outputs.drawing.palette import PALETTE

_NAMES = {colour: name for name, colour in PALETTE.items() if name != "ground"}


@dataclass(frozen=True)
class Ink:
    """A colour of the palette, and whether it is on a scan, which stays dark on paper."""

    name: str
    on_scan: bool = False


def hexadecimal(colour: Colour) -> str:
    """Return a colour as "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


class VectorCanvas(Canvas):
    """A canvas that keeps the names of colours, since screen and print show them differently."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(width, height)
        self._scans: list[Box] = []

    @abstractmethod
    def _rectangle(self, box: Box, ink: Ink, *, radius: int = 0, opacity: float = 1.0) -> None: ...

    @abstractmethod
    def _disc(self, centre: tuple[float, float], radius: float, ink: Ink) -> None: ...

    @abstractmethod
    def _picture(self, box: Box, picture: Image) -> None: ...

    def fill(self, box: Box, colour: Colour, radius: int = 0) -> None:
        # Black is the background of a view, which is white on paper.
        ink = self._ground(box) if colour == PALETTE["black"] else self._ink(colour, box)
        self._rectangle(box, ink, radius=radius)

    def rule(self, x: int, y: int, width: int, colour: Colour) -> None:
        self.stroke(np.array([[x, y + 0.5], [x + width, y + 0.5]]), colour, 1.0, self.box)

    def paste(self, box: Box, picture: Image) -> None:
        if picture.ndim == 2:
            self._scans.append(box)
        self._picture(box, picture)

    def hairlines(self, paths: Sequence[NDArray[np.float64]], colour: Colour, clip: Box) -> None:
        for path in paths:
            self.stroke(path, colour, 1.0, clip)

    def dot(self, centre: tuple[float, float], radius: float, colour: Colour) -> None:
        around = Box(round(centre[0]), round(centre[1]), 1, 1)
        self._disc(centre, radius, self._ink(colour, around))

    def _plate(self, plate: Box, colour: Colour, box: Box) -> None:
        self._rectangle(plate, self._ground(box), opacity=PLATE_OPACITY)

    def _ink(self, colour: Colour, place: Box) -> Ink:
        return Ink(_NAMES[colour], any(place.inside(scan) for scan in self._scans))

    def _ground(self, place: Box) -> Ink:
        return Ink("ground", self._ink(PALETTE["black"], place).on_scan)


def cut_out(picture: Image) -> Image:
    """Make the black background of a bright picture (H, W, 3) transparent.

    A pixel on the edge is darker in proportion to the part of it that is covered, which the ratio to its brightest
    neighbour estimates. Colours and opacity, from 0 to 255, are returned as uint8 (H, W, 4).
    """
    brightness = picture.max(axis=2).astype(np.float32)
    seen = (brightness > 0).astype(np.uint8)
    inside = cv2.erode(seen, np.ones((3, 3), np.uint8)) > 0
    share = np.where(inside, 1.0, brightness / np.maximum(cv2.dilate(brightness, np.ones((3, 3), np.uint8)), 1.0))
    colour = np.minimum(picture / np.maximum(share, 1e-3)[..., np.newaxis], 255.0)
    freed: Image = np.rint(np.dstack([colour, 255 * share])).astype(np.uint8)
    return freed
