"""The canvas on a page of PDF, in the colours of print."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas as Sheet

from edge_spine.outputs.drawing.canvas import Box, Colour, Image
from edge_spine.outputs.drawing.palette import PALETTE, PAPER
from edge_spine.outputs.report.vector import Ink, VectorCanvas, cut_out

# Bitstream Vera comes with ReportLab.
FONTS = {False: ("Vera", "Vera.ttf"), True: ("VeraBd", "VeraBd.ttf")}
_FONT_SHARE = 0.9


def register_fonts() -> None:
    """Register the fonts that `PdfCanvas` writes in."""
    for name, file in FONTS.values():
        pdfmetrics.registerFont(TTFont(name, file))


class PdfCanvas(VectorCanvas):
    """A canvas on a page of PDF of `page_size` points, whose width holds `width` pixels of the preview.

    `register_fonts` comes first.
    """

    def __init__(self, sheet: Sheet, width: int, height: int, page_size: tuple[float, float]) -> None:
        super().__init__(width, height)
        self._sheet = sheet
        self._unit = page_size[0] / width
        self._height = page_size[1]

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return x * self._unit, self._height - y * self._unit

    def _in_points(self, box: Box) -> tuple[float, float, float, float]:
        """Return left, bottom, width and height of a box in points."""
        return *self._at(box.x, box.bottom), box.width * self._unit, box.height * self._unit

    @contextmanager
    def _clipped(self, box: Box) -> Iterator[None]:
        self._sheet.saveState()
        around = self._sheet.beginPath()
        around.rect(*self._in_points(box))
        self._sheet.clipPath(around, stroke=0, fill=0)
        yield
        self._sheet.restoreState()

    def _rectangle(self, box: Box, ink: Ink, *, radius: int = 0, opacity: float = 1.0) -> None:
        self._sheet.setFillColorRGB(*_unit_colour(ink), alpha=opacity)
        self._sheet.roundRect(*self._in_points(box), radius * self._unit, stroke=0, fill=1)

    def stroke(self, path: NDArray[np.float64], colour: Colour, width: float, clip: Box) -> None:
        with self._clipped(clip):
            self._sheet.setStrokeColorRGB(*_unit_colour(self._ink(colour, clip)), alpha=1)
            self._sheet.setLineWidth(width * self._unit)
            self._sheet.drawPath(self._path(path), stroke=1, fill=0)

    def area(self, outline: NDArray[np.float64], colour: Colour, opacity: float, clip: Box) -> None:
        with self._clipped(clip):
            self._sheet.setFillColorRGB(*_unit_colour(self._ink(colour, clip)), alpha=opacity)
            shape = self._path(outline)
            shape.close()
            self._sheet.drawPath(shape, stroke=0, fill=1)

    def _disc(self, centre: tuple[float, float], radius: float, ink: Ink) -> None:
        self._sheet.setFillColorRGB(*_unit_colour(ink), alpha=1)
        # With an outline: yellow on white is hard to see.
        self._sheet.setStrokeColorRGB(*_unit_colour(Ink("text")), alpha=1)
        self._sheet.setLineWidth(0.6 * self._unit)
        self._sheet.circle(*self._at(*centre), radius * self._unit, stroke=int(not ink.on_scan), fill=1)

    def _picture(self, box: Box, picture: Image) -> None:
        if picture.ndim == 3:
            cut = cut_out(picture).astype(np.float32)
            share = cut[..., 3:] / 255
            picture = np.rint(cut[..., 2::-1] * share + 255 * (1 - share)).astype(np.uint8)
        self._sheet.drawImage(ImageReader(PillowImage.fromarray(picture)), *self._in_points(box))

    def _write(self, text: str, box: Box, baseline: int, size: int, colour: Colour, bold: bool) -> None:
        name, _ = FONTS[bold]
        known = pdfmetrics.getFont(name).face.charToGlyph
        text = "".join(letter if ord(letter) in known else "?" for letter in text)
        points = size * self._unit * _FONT_SHARE
        writer = self._sheet.beginText(*self._at(box.x, baseline))
        writer.setFont(name, points)
        writer.setFillColorRGB(*_unit_colour(self._ink(colour, box)))
        self._sheet.setFillAlpha(1)
        # The layout was made with the widths of another font.
        writer.setHorizScale(100 * box.width * self._unit / pdfmetrics.stringWidth(text, name, points))
        writer.textOut(text)
        self._sheet.drawText(writer)

    def _path(self, points: NDArray[np.float64]) -> Any:
        path = self._sheet.beginPath()
        for index, (x, y) in enumerate(points.tolist()):
            (path.lineTo if index else path.moveTo)(*self._at(x, y))
        return path


def _unit_colour(ink: Ink) -> list[float]:
    """Return red, green and blue from 0 to 1, in print."""
    return [channel / 255 for channel in (PALETTE if ink.on_scan else PAPER)[ink.name]]
