"""The report as one A4 page of PDF, in the colours of print: the preview's panels with vector lines and real text."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas as Page

from edge_spine.outputs.drawing import palette, panels
from edge_spine.outputs.drawing.canvas import Box, Colour, Image
from edge_spine.outputs.report.vector import Ink, VectorCanvas, cut_out
from edge_spine.outputs.wording import SUBTITLE, TITLE, origin

if TYPE_CHECKING:
    from edge_spine.result import SpineResult

# The proportions of A4: larger letters than the preview's, and the panels a little narrower.
_WIDTH, _HEIGHT = 1560, 1103
_MARGIN, _GAP, _TOP, _BOTTOM = 36, 8, 96, 1034
_PANEL_WIDTHS = (260, 360, 256, 276)
# Bitstream Vera comes with ReportLab.
_FONTS = {False: ("Vera", "Vera.ttf"), True: ("VeraBd", "VeraBd.ttf")}
_FONT_SHARE = 0.9


def render(result: SpineResult) -> bytes:
    """Return the report as PDF, one A4 page in landscape; the same scan and model give the same bytes.

    Fonts are embedded and text can be selected. It names no patient: only the scan's file name, in which
    letters that the font lacks become "?".
    """
    from edge_spine.result import NOTICE

    for name, file in _FONTS.values():
        pdfmetrics.registerFont(TTFont(name, file))
    stream = BytesIO()
    page = Page(stream, pagesize=landscape(A4), invariant=1, pageCompression=1, lang="en", initialFontName="Vera")
    page.setTitle(f"{TITLE}: {SUBTITLE}")
    page.setSubject(NOTICE)
    page.setAuthor(TITLE)
    page.setCreator(TITLE)
    canvas = _PdfCanvas(page)
    _head_and_foot(canvas, result, NOTICE)
    panels.draw_panels(canvas, _cards(), result)
    page.showPage()
    page.save()
    return stream.getvalue()


def _cards() -> list[Box]:
    last = _WIDTH - 2 * _MARGIN - sum(_PANEL_WIDTHS) - len(_PANEL_WIDTHS) * _GAP
    left, boxes = _MARGIN, []
    for width in (*_PANEL_WIDTHS, last):
        boxes.append(Box(left, _TOP, width, _BOTTOM - _TOP))
        left += width + _GAP
    return boxes


def _head_and_foot(canvas: _PdfCanvas, result: SpineResult, notice: str) -> None:
    left, right = _MARGIN + panels.PAD, _WIDTH - _MARGIN - panels.PAD
    name = canvas.text(TITLE, left, 66, 30, palette.TEXT, bold=True)
    words = canvas.text(SUBTITLE, name.right + 16, 66, 19, palette.QUIET)
    room = right - words.right - 24
    canvas.text(result.scan.source, right, 66, 19, palette.TEXT, align="right", max_width=room)
    canvas.rule(left, 84, right - left, palette.RULE)
    warning = canvas.text(notice, left, 1066, 19, palette.ORANGE, bold=True)
    room = right - warning.right - 24
    canvas.text(origin(result), right, 1066, 15, palette.QUIET, align="right", max_width=room)


class _PdfCanvas(VectorCanvas):
    """A canvas on a page: units of the preview's pixels, from the upper left corner."""

    def __init__(self, page: Page) -> None:
        super().__init__(_WIDTH, _HEIGHT)
        self._page = page
        self._unit = landscape(A4)[0] / _WIDTH
        self._height = landscape(A4)[1]

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return x * self._unit, self._height - y * self._unit

    def _rectangle(self, box: Box, ink: Ink, *, radius: int = 0, opacity: float = 1.0) -> None:
        self._page.setFillColorRGB(*_unit_colour(ink.on_paper()), alpha=opacity)
        x, y = self._at(box.x, box.bottom)
        size = box.width * self._unit, box.height * self._unit
        self._page.roundRect(x, y, *size, radius * self._unit, stroke=0, fill=1)

    def _line(self, path: NDArray[np.float64], ink: Ink, width: float, clip: Box) -> None:
        self._page.saveState()
        self._clip(clip)
        self._page.setStrokeColorRGB(*_unit_colour(ink.on_paper()), alpha=1)
        self._page.setLineWidth(width * self._unit)
        self._page.drawPath(self._path(path), stroke=1, fill=0)
        self._page.restoreState()

    def _polygon(self, outline: NDArray[np.float64], ink: Ink, opacity: float, clip: Box) -> None:
        self._page.saveState()
        self._clip(clip)
        self._page.setFillColorRGB(*_unit_colour(ink.on_paper()), alpha=opacity)
        shape = self._path(outline)
        shape.close()
        self._page.drawPath(shape, stroke=0, fill=1)
        self._page.restoreState()

    def _disc(self, centre: tuple[float, float], radius: float, ink: Ink) -> None:
        self._page.setFillColorRGB(*_unit_colour(ink.on_paper()), alpha=1)
        # An outline, since yellow on white would vanish.
        self._page.setStrokeColorRGB(*_unit_colour(Ink("text").on_paper()), alpha=1)
        self._page.setLineWidth(0.6 * self._unit)
        self._page.circle(*self._at(*centre), radius * self._unit, stroke=int(not ink.on_film), fill=1)

    def _picture(self, box: Box, picture: Image) -> None:
        if picture.ndim == 3:
            cut = cut_out(picture).astype(np.float32)
            share = cut[..., 3:] / 255
            picture = np.rint(cut[..., 2::-1] * share + 255 * (1 - share)).astype(np.uint8)
        x, y = self._at(box.x, box.bottom)
        size = box.width * self._unit, box.height * self._unit
        self._page.drawImage(ImageReader(PillowImage.fromarray(picture)), x, y, *size)

    def _write(self, text: str, box: Box, baseline: int, size: int, ink: Ink, bold: bool) -> None:
        name, _ = _FONTS[bold]
        known = pdfmetrics.getFont(name).face.charToGlyph
        text = "".join(letter if ord(letter) in known else "?" for letter in text)
        points = size * self._unit * _FONT_SHARE
        writer = self._page.beginText(*self._at(box.x, baseline))
        writer.setFont(name, points)
        writer.setFillColorRGB(*_unit_colour(ink.on_paper()))
        self._page.setFillAlpha(1)
        # The width that the layout was made for.
        writer.setHorizScale(100 * box.width * self._unit / pdfmetrics.stringWidth(text, name, points))
        writer.textOut(text)
        self._page.drawText(writer)

    def _clip(self, box: Box) -> None:
        around = self._page.beginPath()
        x, y = self._at(box.x, box.bottom)
        around.rect(x, y, box.width * self._unit, box.height * self._unit)
        self._page.clipPath(around, stroke=0, fill=0)

    def _path(self, points: NDArray[np.float64]) -> Any:
        path = self._page.beginPath()
        for index, (x, y) in enumerate(points.tolist()):
            (path.lineTo if index else path.moveTo)(*self._at(x, y))
        return path


def _unit_colour(colour: Colour) -> tuple[float, float, float]:
    red, green, blue = (channel / 255 for channel in colour)
    return red, green, blue
