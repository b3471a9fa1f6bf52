"""The ladder of vertebrae beside a view, and the lines between which kyphosis and lordosis are taken."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_spine.measure import KYPHOSIS, LORDOSIS
from edge_spine.outputs.drawing import palette
from edge_spine.outputs.drawing.canvas import Box, Canvas, MillimetreView, text_box
from edge_spine.outputs.drawing.end_lines import side_lines
from edge_spine.outputs.drawing.marks import outlined, place
from edge_spine.quantities import QUANTITIES
from edge_spine.result import SpineResult
from edge_spine.vertebrae import LEVELS

# Width, in pixels, that a ladder takes at the right edge of a view.
LADDER = 40
_SIZE, _RUNG = 13, 5
_SIDE_ANGLES = {"kyphosis_t4_t12_deg": KYPHOSIS, "lordosis_l1_l5_deg": LORDOSIS}


def names(canvas: Canvas, heights: NDArray[np.float64], x: int, align: str, area: Box) -> None:
    """Write the names of the vertebrae at their heights (17,) on the canvas, without those that have no room."""
    for level, height in zip(LEVELS, heights.tolist(), strict=True):
        baseline = round(height + 0.35 * _SIZE)
        box = text_box(level, x, baseline, _SIZE, False, align)
        if box.inside(area) and not any(box.overlaps(other) for _, other in canvas.texts):
            canvas.text(level, x, baseline, _SIZE, palette.TEXT, align=align, backing=palette.BLACK)


def ladder(canvas: Canvas, view: MillimetreView, result: SpineResult, plane: str) -> None:
    """Mark the body centres on a "coronal" or "sagittal" view, and name them at its right edge."""
    curves, box = result.curves, view.box
    across = np.interp(-result.levels.z, -curves.z, getattr(curves, plane)[:, 1])
    centres = view.points(across, result.levels.z)
    left = box.right - LADDER
    rungs = [np.array([[left, y], [left + _RUNG, y]]) for y in centres[:, 1]]
    canvas.hairlines(rungs, palette.TEXT, box)
    for x, y in centres.tolist():
        canvas.dot((x, y), 2.2, palette.BLACK)
    names(canvas, centres[:, 1], left + _RUNG + 7, "left", box)


def side_angles(canvas: Canvas, view: MillimetreView, result: SpineResult) -> None:
    """Draw the lines across T4, T12, L1 and L5, and write the angles between them on the hollow side if it has room."""
    for ends in side_lines(result):
        outlined(canvas, view.points(*ends.T), palette.TEXT, 1.6, view.box, edge=2.0)
    area = Box(view.box.x, view.box.y, view.box.width - LADDER, view.box.height)
    curves = result.curves
    for name, (upper, lower) in _SIDE_ANGLES.items():
        quantity = QUANTITIES[name]
        value, error = quantity.of(result.measurements, name)
        assert value is not None
        z = (result.levels.z[LEVELS.index(upper)] + result.levels.z[LEVELS.index(lower)]) / 2
        text = quantity.text(value, error)
        front, back = (
            view.points(np.interp(-z, -curves.z, curves.sagittal[:, column]), z)[0] + (away, 6)
            for column, away in ((0, -12), (2, 12))
        )
        # kyphosis is hollow to the front, lordosis to the back; the other way round where they are negative
        hollow = (name == "kyphosis_t4_t12_deg") == (value >= 0)
        sides = ((front, "right"), (back, "left")) if hollow else ((back, "left"), (front, "right"))
        boxes = [text_box(text, round(x), round(y), 17, True, align) for (x, y), align in sides]
        (x, y), align = sides[0 if boxes[0].inside(area) or not boxes[1].inside(area) else 1]
        place(canvas, area, text, (x, y), 17, palette.TEXT, align, bold=True)
