"""Two scans of one person on a page: both coronal views, both inferred side views, and what has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_spine.outputs.drawing import palette, panels
from edge_spine.outputs.drawing.canvas import Box, Canvas, Colour, MillimetreView

if TYPE_CHECKING:
    from edge_spine.comparison import Change, Comparison
    from edge_spine.result import SpineResult

WIDTH, HEIGHT = 1600, 1000
_MARGIN, _GAP, _TOP, _BOTTOM = 24, 14, 76, 946
_VIEW, _OVERLAY = 352, 210
BEFORE, AFTER = palette.SKY, palette.ORANGE
_NAMES = {
    "max_cobb_deg": "Largest Cobb angle",
    "kyphosis_t4_t12_deg": "Kyphosis T4 to T12",
    "lordosis_l1_l5_deg": "Lordosis L1 to L5",
    "max_lateral_deviation_mm": "Lateral deviation, mm",
    "centreline_length_mm": "Length T1 to L5, mm",
    "volume_ml": "Volume, ml",
}
_ROWS = 13
_PERSONS = {
    "same": "Both scans name the same person.",
    "different": "The two scans name different persons!",
    "unknown": "Whose scans these are is not known.",
}


def render(comparison: Comparison) -> bytes:
    """Return the page as PNG, 1600 x 1000 pixels.

    Raises
    ------
    RuntimeError
        OpenCV cannot encode the picture.
    """
    done, encoded = cv2.imencode(".png", draw(comparison).image, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise RuntimeError("OpenCV could not encode the comparison as PNG")
    return encoded.tobytes()


def draw(comparison: Comparison) -> Canvas:
    """Return the page as a canvas, which knows where each text stands."""
    canvas = Canvas(WIDTH, HEIGHT, palette.BACKGROUND)
    name = canvas.text("edge-spine", _MARGIN, 48, 30, palette.TEXT, bold=True)
    canvas.text("change between two scans", name.right + 16, 48, 19, palette.QUIET)
    canvas.text("Research use only. Not for diagnosis.", _MARGIN, 979, 19, palette.ORANGE, bold=True)
    model = comparison.after.model
    about = (
        f"{model['name']} {model['version']},  {model['engine']} {model['precision']},  model {model['sha256'][:12]}"
    )
    canvas.text(about, WIDTH - _MARGIN, 979, 16, palette.QUIET, align="right")

    cards = _cards(canvas)
    views = [panels.shared_view(result, [cards[0], cards[0], cards[2]]) for result in _both(comparison)]
    # One scale for both, or a change of the picture's scale would look like one of the spine.
    scale = min(view.px_per_mm for view in views)
    for card, result, colour, title in zip(
        cards, _both(comparison), (BEFORE, AFTER), ("Before", "After"), strict=False
    ):
        view = _centred(panels.picture_box(card), result.curves.coronal, result.curves.z, scale)
        panels.coronal_panel(canvas, card, result, result.prepared.body, view)
        canvas.fill(Box(card.x, card.y, card.width, 4), colour)
        box = canvas.text(title, card.x + panels.PAD, card.y - 8, 15, colour, bold=True)
        canvas.text(
            result.scan.source, box.right + 10, card.y - 8, 15, palette.QUIET, max_width=card.right - box.right - 12
        )
    _overlay(canvas, cards[2], comparison, scale, "coronal", "Coronal", ("R", "L"))
    _overlay(canvas, cards[3], comparison, scale, "sagittal", "Sagittal", ("A", "P"))
    _changes(canvas, cards[4], comparison)
    return canvas


def _both(comparison: Comparison) -> tuple[SpineResult, SpineResult]:
    return comparison.before, comparison.after


def _cards(canvas: Canvas) -> list[Box]:
    widths = [_VIEW, _VIEW, _OVERLAY, _OVERLAY]
    widths.append(WIDTH - 2 * _MARGIN - sum(widths) - len(widths) * _GAP)
    left, boxes = _MARGIN, []
    for width in widths:
        boxes.append(Box(left, _TOP + 14, width, _BOTTOM - _TOP - 14))
        canvas.card(boxes[-1], palette.CARD)
        left += width + _GAP
    return boxes


def _centred(box: Box, across: NDArray[np.float64], z: NDArray[np.float64], px_per_mm: float) -> MillimetreView:
    left, right, top, bottom = across.min(), across.max(), z.max(), z.min()
    return MillimetreView(
        box,
        float(left + right) / 2 - box.width / px_per_mm / 2,
        float(top + bottom) / 2 + box.height / px_per_mm / 2,
        px_per_mm,
    )


def _overlay(
    canvas: Canvas, card: Box, comparison: Comparison, px_per_mm: float, plane: str, title: str, sides: tuple[str, str]
) -> None:
    """Draw both centrelines from one point: the lower end, where L5 stands on the pelvis."""
    panels.title(canvas, card, title, "inferred" if plane == "sagittal" else "")
    box = panels.picture_box(card)
    canvas.fill(box, palette.BLACK)
    lines = []
    for result in _both(comparison):
        across = getattr(result.curves, plane)[:, 1]
        lines.append((across - across[-1], result.curves.z - result.curves.z[-1]))
    view = _centred(
        box, np.concatenate([line[0] for line in lines]), np.concatenate([line[1] for line in lines]), px_per_mm
    )
    for (across, z), colour, width in zip(lines, (BEFORE, AFTER), (5.0, 2.4), strict=True):
        path = view.points(across, z)
        canvas.stroke(path, palette.BLACK, width + 1.6, box)
        canvas.stroke(path, colour, width, box)
    panels.corner_letters(canvas, box, *sides)
    panels.scale_bar(canvas, view, 50)
    panels.legend(canvas, card, card.bottom - 20, [("before", BEFORE), ("after", AFTER)])


def _changes(canvas: Canvas, card: Box, comparison: Comparison) -> None:
    days = comparison.interval_days
    panels.title(canvas, card, "Changes", "" if days is None else f"{days} days")
    left, right = card.x + panels.PAD + 2, card.right - panels.PAD - 2
    columns = (right - 136, right - 68, right)
    y = card.y + 70
    for text, x in zip(("before", "after", "change"), columns, strict=True):
        canvas.text(text, x, y, 14, palette.QUIET, align="right")
    canvas.rule(left, y + 8, right - left, palette.RULE)
    y += 34
    for change in comparison.changes[:_ROWS]:
        y = _row(canvas, change, left, columns, y)
    notes = ["Two readings of one spine differ by the error.", "Lying down, curves measure less."]
    for index, note in enumerate(notes):
        canvas.text(note, left, card.bottom - 57 + 20 * index, 14, palette.QUIET, max_width=right - left)
    colour: Colour = palette.QUIET if comparison.person == "same" else palette.ORANGE
    canvas.text(_PERSONS[comparison.person], left, card.bottom - 17, 14, colour, bold=True, max_width=right - left)


def _row(canvas: Canvas, change: Change, left: int, columns: tuple[int, int, int], y: int) -> int:
    name = _NAMES.get(change.name, change.name.replace("cobb_deg ", "Curve to the ").replace(" apex", ", apex"))
    beyond = bool(change.beyond_error)
    canvas.text(name, left, y, 15, palette.TEXT if beyond else palette.QUIET)
    canvas.text(
        change.verdict.replace(" deg", "°") if change.error is not None else "error not known",
        left,
        y + 19,
        13,
        palette.QUIET,
    )
    for value, x in zip((change.before, change.after), columns[:2], strict=True):
        canvas.text("none" if value is None else _figure(change, value), x, y + 19, 14, palette.TEXT, align="right")
    canvas.text(
        f"{'+' if change.change >= 0 else ''}{_figure(change, change.change)}",
        columns[2],
        y + 19,
        15,
        palette.ORANGE if beyond else palette.TEXT,
        bold=beyond,
        align="right",
    )
    return y + 50


def _figure(change: Change, value: float) -> str:
    return f"{value:.1f}" + ("°" if change.unit == "deg" else "")
