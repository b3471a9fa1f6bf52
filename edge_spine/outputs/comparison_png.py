"""comparison.png: both coronal views, both inferred side views and the changes between two scans of one person."""

from __future__ import annotations

import cv2
import numpy as np

from edge_spine.comparison import Change, Comparison
from edge_spine.outputs.drawing import marks, palette, panels
from edge_spine.outputs.drawing.canvas import Box, Canvas, MillimetreView
from edge_spine.outputs.drawing.page import Page
from edge_spine.outputs.drawing.raster import RasterCanvas, encode, signed
from edge_spine.outputs.wording import model_line
from edge_spine.quantities import QUANTITIES, rounded

PAGE = Page(1600, 1000, 24, 14, 90, 946, (352, 352, 210, 210), head=48, foot=979)
BEFORE, AFTER = palette.SKY, palette.ORANGE
_ROWS = 13
_PERSONS = {
    "same": "Both scans name the same person.",
    "different": "The two scans name different persons!",
    "unknown": "Whose scans these are is not known.",
}


def render(comparison: Comparison) -> bytes:
    """Return the comparison as PNG, 1600 x 1000 pixels."""
    return signed(encode(draw(comparison).image, ".png", [cv2.IMWRITE_PNG_COMPRESSION, 3]))


def draw(comparison: Comparison) -> RasterCanvas:
    """Draw the page."""
    canvas, cards = RasterCanvas(PAGE.width, PAGE.height, palette.BACKGROUND), PAGE.cards()
    PAGE.draw_head(canvas, "change between two scans")
    PAGE.draw_foot(canvas, model_line(comparison.after.model))
    for card in cards:
        panels.draw_card(canvas, card)
    both = comparison.before, comparison.after
    # One scale for both: otherwise a change of scale would look like a change of the spine.
    scale = min(panels.shared_view(result, [cards[0], cards[0], cards[2]]).px_per_mm for result in both)
    for card, result, colour, title in zip(cards, both, (BEFORE, AFTER), ("Before", "After"), strict=False):
        view = MillimetreView.centred(panels.picture_box(card), result.curves.coronal, result.curves.z, scale)
        panels.coronal_panel(canvas, card, result, view)
        canvas.fill(Box(card.x, card.y, card.width, 4), colour)
        box = canvas.text(title, card.x + panels.PAD, card.y - 8, 15, colour, bold=True)
        canvas.text(
            result.scan.source, box.right + 10, card.y - 8, 15, palette.QUIET, max_width=card.right - box.right - 12
        )
    _overlay(canvas, cards[2], comparison, scale, "coronal", ("R", "L"))
    _overlay(canvas, cards[3], comparison, scale, "sagittal", ("A", "P"))
    _changes(canvas, cards[4], comparison)
    return canvas


def _overlay(
    canvas: Canvas, card: Box, comparison: Comparison, px_per_mm: float, plane: str, sides: tuple[str, str]
) -> None:
    """Draw both centrelines with their lower ends, the bottom of L5, at one point."""
    panels.title(canvas, card, plane.capitalize(), "inferred" if plane == "sagittal" else "")
    box = panels.picture_box(card)
    canvas.fill(box, palette.BLACK)
    lines = []
    for result in (comparison.before, comparison.after):
        across = getattr(result.curves, plane)[:, 1]
        lines.append(np.stack([across - across[-1], result.curves.z - result.curves.z[-1]]))
    across, z = np.concatenate(lines, axis=1)
    view = MillimetreView.centred(box, across, z, px_per_mm)
    for line, colour, width in zip(lines, (BEFORE, AFTER), (5.0, 2.4), strict=True):
        marks.outlined(canvas, view.points(*line), colour, width, box)
    marks.corner_letters(canvas, box, *sides)
    marks.scale_bar(canvas, view, 50)
    panels.legend(canvas, card, card.bottom - 20, ("before", "after"), (BEFORE, AFTER))


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
    shown = comparison.changes if len(comparison.changes) <= _ROWS else comparison.changes[: _ROWS - 1]
    for change in shown:
        _row(canvas, change, left, columns, y)
        y += 50
    if more := len(comparison.changes) - len(shown):
        canvas.text(f"and {more} more, see comparison.json", left, y, 15, palette.QUIET)
    notes = ["Within the error, nothing may have changed.", "Lying down, curves measure less."]
    for index, note in enumerate(notes):
        canvas.text(note, left, card.bottom - 57 + 20 * index, 14, palette.QUIET, max_width=right - left)
    flagged = [
        f"{when}: {', '.join(result.quality.flags)}"
        for when, result in (("Before", comparison.before), ("After", comparison.after))
        if result.quality.flags
    ]
    for index, flags in enumerate(reversed(flagged)):
        canvas.text(flags, left, card.bottom - 79 - 20 * index, 14, palette.ORANGE, max_width=right - left)
    colour = palette.QUIET if comparison.person == "same" else palette.ORANGE
    canvas.text(_PERSONS[comparison.person], left, card.bottom - 17, 14, colour, bold=True, max_width=right - left)


def _row(canvas: Canvas, change: Change, left: int, columns: tuple[int, int, int], y: int) -> None:
    if (quantity := QUANTITIES.get(change.name)) is None:
        name = change.name.replace("cobb_deg ", "Curve to the ").replace(" apex", ", apex")
    else:
        name = quantity.label if quantity.unit == "deg" else f"{quantity.label}, {quantity.unit}"
    beyond = bool(change.beyond_error)
    canvas.text(name, left, y, 15, palette.TEXT if beyond else palette.QUIET)
    verdict = "error not known" if change.error is None else change.verdict.replace(" deg", "°")
    canvas.text(verdict, left, y + 19, 13, palette.QUIET)
    for value, x in zip((change.before, change.after), columns[:2], strict=True):
        canvas.text(_figure(change, value), x, y + 19, 14, palette.TEXT, align="right")
    colour = palette.ORANGE if beyond else palette.TEXT
    canvas.text(_figure(change, change.change, "+"), columns[2], y + 19, 15, colour, bold=beyond, align="right")


def _figure(change: Change, value: float, sign: str = "-") -> str:
    return f"{rounded(value, 1):{sign}.1f}" + ("°" if change.unit == "deg" else "")
