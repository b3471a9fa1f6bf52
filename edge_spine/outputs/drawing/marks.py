"""Marks on a view: lines that stand out, scale bars, letters of sides, and labels that avoid each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_spine.outputs.drawing import palette
from edge_spine.outputs.drawing.canvas import Box, Canvas, Colour, MillimetreView, text_box


def outlined(
    canvas: Canvas, path: NDArray[np.float64], colour: Colour, width: float, clip: Box, *, edge: float = 1.6
) -> None:
    """Draw an open line that black, `edge` pixels wider, sets off from any background."""
    canvas.stroke(path, palette.BLACK, width + edge, clip)
    canvas.stroke(path, colour, width, clip)


def scale_bar(canvas: Canvas, view: MillimetreView, length_mm: float = 100) -> None:
    """Draw a bar in the lower left corner of a view."""
    left, row = view.box.x + 12.0, view.box.bottom - 16.0
    right = left + length_mm * view.px_per_mm
    bar = np.array([[left, row - 4], [left, row + 4], [left, row], [right, row], [right, row - 4], [right, row + 4]])
    for colour, width in ((palette.BLACK, 3.6), (palette.TEXT, 1.6)):
        for start in range(0, len(bar), 2):
            canvas.stroke(bar[start : start + 2], colour, width, view.box)
    canvas.text(f"{length_mm:g} mm", round(left) + 1, round(row) - 10, 15, palette.TEXT, backing=palette.BLACK)


def corner_letters(canvas: Canvas, box: Box, left: str, right: str) -> None:
    """Write the letters of the patient's sides into the upper corners of a view."""
    canvas.text(left, box.x + 12, box.y + 26, 20, palette.TEXT, bold=True, backing=palette.BLACK)
    canvas.text(right, box.right - 12, box.y + 26, 20, palette.TEXT, bold=True, align="right", backing=palette.BLACK)


def place(
    canvas: Canvas,
    area: Box,
    text: str,
    at: tuple[float, float],
    size: int,
    colour: Colour,
    align: str,
    *,
    bold: bool = False,
) -> None:
    """Write a label in an area, at the nearest height where it overlaps no other text; omit it if there is none."""
    x, wanted = round(float(at[0])), round(float(at[1]))
    box = text_box(text, x, wanted, size, bold, align)
    x += max(0, area.x + 6 - box.x) - max(0, box.right - (area.right - 6))
    for step in sorted(range(-120, 121, 4), key=abs):
        box = text_box(text, x, wanted + step, size, bold, align)
        padded = Box(box.x - 4, box.y - 3, box.width + 8, box.height + 6)
        if box.inside(area) and not any(padded.overlaps(other) for _, other in canvas.texts):
            canvas.text(text, x, wanted + step, size, colour, bold=bold, align=align, backing=palette.BLACK)
            return
