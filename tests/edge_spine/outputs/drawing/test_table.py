"""Rows of a table follow each other and stay between its edges."""

from __future__ import annotations

from edge_spine.outputs.drawing.palette import TEXT
from edge_spine.outputs.drawing.raster import RasterCanvas
from edge_spine.outputs.drawing.table import Table


def test_rows_stay_between_the_edges_and_below_each_other() -> None:
    canvas = RasterCanvas(400, 400, (0, 0, 0))
    table = Table(canvas, 40, 340, 60)
    table.heading("HEADING")
    table.figure("12.3", TEXT)
    table.line("a line that is far too long for the width between the two edges of this table")
    table.row("a name that is too long to stand beside its value without being shortened", "45.6")
    table.gap()
    table.row("name", "7")
    assert [text for text, _ in canvas.texts][:2] == ["HEADING", "12.3"]
    # a figure begins where its first digit is drawn, which is 3 pixels to the right of its box
    assert all(box.x >= 40 - 3 and box.right <= 340 for _, box in canvas.texts)
    for (_, above), (_, below) in zip(canvas.texts, canvas.texts[1:], strict=False):
        assert not above.overlaps(below) and below.y >= above.y
    value, name = canvas.texts[-2:]
    assert value[1].right == 340 and name[1].x == 40


def test_a_figure_that_is_too_wide_is_smaller() -> None:
    canvas = RasterCanvas(400, 400, (0, 0, 0))
    table = Table(canvas, 40, 240, 60)
    table.figure("8 ± 3°", TEXT)
    table.figure("108 ± 13°", TEXT)
    (_, usual), (text, wide) = canvas.texts
    assert text == "108 ± 13°" and wide.right <= 240 and wide.height < usual.height
