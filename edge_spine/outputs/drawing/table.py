"""A table of text and numbers on a card."""

from __future__ import annotations

from edge_spine.outputs.drawing import palette
from edge_spine.outputs.drawing.canvas import Canvas, Colour
from edge_spine.outputs.drawing.text import text_mask


class Table:
    """Rows of text between two edges (pixels), from the baseline `y` down."""

    def __init__(self, canvas: Canvas, left: int, right: int, y: int) -> None:
        self.canvas = canvas
        self.left, self.right, self.y = left, right, y

    def heading(self, text: str) -> None:
        """Write a heading above a rule."""
        self.canvas.text(text, self.left, self.y, 13, palette.QUIET, bold=True, max_width=self.right - self.left)
        self.canvas.rule(self.left, self.y + 9, self.right - self.left, palette.RULE)
        self.y += 34

    def figure(self, text: str, colour: Colour) -> None:
        """Write one large number, smaller where it is too wide."""
        room = self.right - self.left + 3
        size = min(64, 64 * room // text_mask(text, 64, True)[0].shape[1])
        self.canvas.text(text, self.left - 3, self.y + 36, size, colour, bold=True, max_width=room)
        self.y += 72

    def line(self, text: str, *, colour: Colour = palette.TEXT, size: int = 18, indent: int = 0) -> None:
        """Write a line of text."""
        width = self.right - self.left - indent
        self.canvas.text(text, self.left + indent, self.y, size, colour, max_width=width)
        self.y += size + 9

    def row(self, name: str, value: str) -> None:
        """Write a name at the left edge and its value at the right."""
        box = self.canvas.text(value, self.right, self.y, 18, palette.TEXT, bold=True, align="right")
        self.canvas.text(name, self.left, self.y, 16, palette.QUIET, max_width=box.x - self.left - 8)
        self.y += 28

    def gap(self) -> None:
        """Leave space before the next row."""
        self.y += 20
