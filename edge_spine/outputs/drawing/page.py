"""The layout of a page: its cards side by side, and its head and foot."""

from __future__ import annotations

from dataclasses import dataclass

from edge_spine.outputs.drawing import palette
from edge_spine.outputs.drawing.canvas import Box, Canvas
from edge_spine.outputs.wording import TITLE
from edge_spine.result import NOTICE

_SPACE = 24


@dataclass(frozen=True)
class Page:
    """The layout of a page, in pixels.

    The cards, `margin` from the edges of the page and `gap` apart, reach from row `top` to row `bottom`; `widths` are
    those of all but the last, which takes what is left. `head` and `foot` are the baselines of the texts above and
    below them, which begin `inset` within their edges; `small` is the font size at the right of the foot.
    """

    width: int
    height: int
    margin: int
    gap: int
    top: int
    bottom: int
    widths: tuple[int, ...]
    head: int
    foot: int
    inset: int = 0
    small: int = 16

    def cards(self) -> list[Box]:
        """Return the places of the cards, from the left."""
        last = self.width - 2 * self.margin - sum(self.widths) - len(self.widths) * self.gap
        left, boxes = self.margin, []
        for width in (*self.widths, last):
            boxes.append(Box(left, self.top, width, self.bottom - self.top))
            left += width + self.gap
        return boxes

    def draw_head(self, canvas: Canvas, subtitle: str, source: str = "") -> None:
        """Write title and subtitle at the left of the head, and the name of the scan at its right."""
        right = self.width - self.margin - self.inset
        title = canvas.text(TITLE, self.margin + self.inset, self.head, 30, palette.TEXT, bold=True)
        box = canvas.text(subtitle, title.right + 16, self.head, 19, palette.QUIET)
        if source:
            room = right - box.right - _SPACE
            canvas.text(source, right, self.head, 19, palette.TEXT, align="right", max_width=room)

    def draw_foot(self, canvas: Canvas, origin: str) -> None:
        """Write the notice at the left of the foot, and what made the result at its right."""
        right = self.width - self.margin - self.inset
        box = canvas.text(NOTICE, self.margin + self.inset, self.foot, 19, palette.ORANGE, bold=True)
        room = right - box.right - _SPACE
        canvas.text(origin, right, self.foot, self.small, palette.QUIET, align="right", max_width=room)
