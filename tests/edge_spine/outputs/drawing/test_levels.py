"""The ladder of vertebrae and the lines of the side view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_spine.outputs import preview_png
from edge_spine.outputs.drawing import panels
from edge_spine.outputs.drawing.canvas import Box
from edge_spine.outputs.drawing.levels import LADDER, names
from edge_spine.outputs.drawing.raster import RasterCanvas
from edge_spine.vertebrae import LEVELS, Levels
from tests.edge_spine.fake_result import fake_result


@pytest.mark.parametrize("card", [1, 2], ids=["coronal", "sagittal"])
def test_every_vertebra_is_named_at_the_height_where_it_was_found(card: int) -> None:
    result = fake_result()
    moved = Levels(result.levels.z - 6.0, result.levels.top, result.levels.bottom - 8.0)
    for levels in (result.levels, moved):
        shown = replace(result, levels=levels)
        cards = preview_png.PAGE.cards()
        box, view = panels.picture_box(cards[card]), panels.shared_view(shown, cards)
        rows = view.points(np.zeros(17), levels.z)[:, 1]
        strip = Box(box.right - LADDER, box.y, LADDER, box.height)
        found = {text: place for text, place in preview_png.draw(shown).texts if place.inside(strip)}
        for level, row in zip(LEVELS, rows, strict=True):
            assert abs(found[level].y + found[level].height / 2 - row) < 3, level


def test_the_surface_has_names_letters_and_a_scale() -> None:
    box = panels.picture_box(preview_png.PAGE.cards()[3])
    texts = [text for text, place in preview_png.draw(fake_result()).texts if place.inside(box)]
    assert sorted(texts) == sorted([*LEVELS, "R", "L", "R", "L", "100 mm"])


def test_the_angles_of_the_side_view_are_written_beside_it() -> None:
    result = fake_result()
    box = panels.picture_box(preview_png.PAGE.cards()[2])
    texts = [text for text, place in preview_png.draw(result).texts if place.inside(box)]
    measured = result.measurements
    assert f"{measured.kyphosis_t4_t12_deg:.1f}°" in texts and f"{measured.lordosis_l1_l5_deg:.1f}°" in texts


def test_names_that_have_no_room_are_left_out() -> None:
    canvas = RasterCanvas(100, 100, (0, 0, 0))
    names(canvas, np.linspace(-20.0, 180.0, 17), 50, "centre", canvas.box)
    boxes = [box for _, box in canvas.texts]
    assert 3 < len(boxes) < 10
    assert all(box.inside(canvas.box) for box in boxes)
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
