"""The layout of pages."""

from __future__ import annotations

from edge_spine.outputs.drawing.canvas import Box
from edge_spine.outputs.drawing.page import Page
from edge_spine.outputs.drawing.raster import RasterCanvas

PAGE = Page(800, 300, 20, 10, 60, 250, (100, 200), head=40, foot=280, inset=5)


def test_cards_fill_the_width_between_the_margins() -> None:
    assert PAGE.cards() == [Box(20, 60, 100, 190), Box(130, 60, 200, 190), Box(340, 60, 440, 190)]


def test_head_and_foot_leave_the_cards_free_and_shorten_what_is_too_long() -> None:
    canvas = RasterCanvas(PAGE.width, PAGE.height, (0, 0, 0))
    PAGE.draw_head(canvas, "a subtitle", "name " * 60)
    PAGE.draw_foot(canvas, "origin " * 60)
    assert len(canvas.texts) == 5
    for index, (text, box) in enumerate(canvas.texts):
        assert box.inside(Box(25, 0, 750, 300)) and (box.bottom <= PAGE.top or box.y >= PAGE.bottom), text
        assert not any(box.overlaps(other) for _, other in canvas.texts[:index])
    assert [text for text, _ in canvas.texts if "..." in text] == [canvas.texts[2][0], canvas.texts[4][0]]
