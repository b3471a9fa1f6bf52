"""Marks on a view."""

from __future__ import annotations

import numpy as np

from edge_spine.outputs.drawing.canvas import Box, MillimetreView
from edge_spine.outputs.drawing.marks import corner_letters, place, scale_bar
from edge_spine.outputs.drawing.raster import RasterCanvas

WHITE = (255, 255, 255)


def test_a_scale_bar_is_as_long_as_it_says() -> None:
    canvas = RasterCanvas(300, 100, (0, 0, 0))
    scale_bar(canvas, MillimetreView(canvas.box, 0.0, 0.0, 2.0), 50)
    drawn = np.flatnonzero(canvas.image[84].max(axis=1) > 200)
    assert abs(drawn[-1] - drawn[0] - 100) <= 2
    assert [text for text, _ in canvas.texts] == ["50 mm"]


def test_letters_are_in_the_corners() -> None:
    canvas = RasterCanvas(300, 100, (0, 0, 0))
    corner_letters(canvas, canvas.box, "R", "L")
    (left, at_left), (right, at_right) = canvas.texts
    assert (left, right) == ("R", "L") and at_left.right < 40 and at_right.x > 260


def test_labels_avoid_each_other_and_stay_in_their_area() -> None:
    canvas, area = RasterCanvas(200, 200, (0, 0, 0)), Box(20, 20, 100, 80)
    for _ in range(9):
        place(canvas, area, "12.3°", (400.0, 50.0), 17, WHITE, "left")
    boxes = [box for _, box in canvas.texts]
    assert 2 <= len(boxes) < 9
    assert all(box.inside(area) for box in boxes)
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
