"""The canvas of inline SVG: its colours are classes, which the style sheet of the page defines for screen and print."""

from __future__ import annotations

import base64
from html import escape

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_spine.outputs.drawing.canvas import Box, Colour, Image
from edge_spine.outputs.drawing.palette import PALETTE
from edge_spine.outputs.drawing.raster import encode
from edge_spine.outputs.report.vector import Ink, VectorCanvas, cut_out, hexadecimal

_JPEG_QUALITY = 92


class SvgCanvas(VectorCanvas):
    """A `Canvas` that becomes one SVG element; `name`, unique in the page, begins the identifiers inside it."""

    def __init__(self, width: int, height: int, name: str) -> None:
        super().__init__(width, height)
        self._name = name
        self._clips: dict[Box, str] = {}
        self._parts: list[str] = []

    def element(self, label: str) -> str:
        """Return the SVG element; the label describes it to screen readers."""
        clips = "".join(
            f'<clipPath id="{name}"><rect {_rectangle(box)}/></clipPath>' for box, name in self._clips.items()
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.box.width} {self.box.height}" role="img" '
            f'aria-label="{escape(label)}"><defs>{clips}</defs>{"".join(self._parts)}</svg>'
        )

    def _rectangle(self, box: Box, ink: Ink, *, radius: int = 0, opacity: float = 1.0) -> None:
        corner = f' rx="{radius}"' if radius else ""
        self._parts.append(f"<rect {_rectangle(box)}{corner}{_paint('fill', ink)}{_opacity(opacity)}/>")

    def stroke(self, path: NDArray[np.float64], colour: Colour, width: float, clip: Box) -> None:
        stroke = _paint("stroke", self._ink(colour, clip))
        self._parts.append(
            f'<polyline points="{_points(path)}" fill="none"{stroke} stroke-width="{width:g}"{self._clip(clip)}/>'
        )

    def area(self, outline: NDArray[np.float64], colour: Colour, opacity: float, clip: Box) -> None:
        fill = _paint("fill", self._ink(colour, clip))
        self._parts.append(f'<polygon points="{_points(outline)}"{fill}{_opacity(opacity)}{self._clip(clip)}/>')

    def _disc(self, centre: tuple[float, float], radius: float, ink: Ink) -> None:
        self._parts.append(f'<circle cx="{centre[0]:.2f}" cy="{centre[1]:.2f}" r="{radius:g}"{_paint("fill", ink)}/>')

    def _picture(self, box: Box, picture: Image) -> None:
        # Stretched by less than a pixel where the panel rounded its box.
        self._parts.append(f'<image {_rectangle(box)} preserveAspectRatio="none" href="{data_uri(picture)}"/>')

    def _write(self, text: str, box: Box, baseline: int, size: int, colour: Colour, bold: bool) -> None:
        fill = _paint("fill", self._ink(colour, box))
        weight = ' font-weight="700"' if bold else ""
        # textLength makes any font of the browser fit the width of the layout.
        self._parts.append(
            f'<text x="{box.x}" y="{baseline}" font-size="{size}"{weight}{fill} textLength="{box.width}" '
            f'lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'
        )

    def _clip(self, box: Box) -> str:
        name = self._clips.setdefault(box, f"{self._name}-{len(self._clips)}")
        return f' clip-path="url(#{name})"'


def data_uri(picture: Image) -> str:
    """Return a picture as a data URI.

    Grey (H, W) becomes JPEG, BGR (H, W, 3) on black becomes PNG with a transparent background.
    """
    if picture.ndim == 2:
        kind, content = "jpeg", encode(picture, ".jpeg", [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    else:
        kind, content = "png", encode(cut_out(picture), ".png")
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _rectangle(box: Box) -> str:
    return f'x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}"'


def _points(points: NDArray[np.float64]) -> str:
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in points.tolist())


def _paint(attribute: str, ink: Ink) -> str:
    """Return the colour of a "fill" or a "stroke": fixed on a scan, elsewhere a class."""
    if ink.on_scan:
        return f' {attribute}="{hexadecimal(PALETTE[ink.name])}"'
    return f' class="{attribute}-{ink.name}"'


def _opacity(opacity: float) -> str:
    return "" if opacity == 1 else f' fill-opacity="{opacity:g}"'
