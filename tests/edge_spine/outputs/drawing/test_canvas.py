"""Boxes of pixels, and views of millimetres."""

from __future__ import annotations

import numpy as np
import pytest

from edge_spine.outputs.drawing.canvas import Box, MillimetreView

BOX = Box(10, 20, 30, 40)


@pytest.mark.parametrize(
    ("other", "overlaps", "inside"),
    [
        (Box(10, 20, 30, 40), True, True),
        (Box(12, 25, 5, 5), True, True),
        (Box(39, 59, 1, 1), True, True),
        (Box(39, 59, 2, 2), True, False),
        (Box(0, 0, 100, 100), True, False),
        (Box(40, 20, 5, 5), False, False),
        (Box(10, 60, 5, 5), False, False),
        (Box(0, 20, 10, 40), False, False),
    ],
)
def test_boxes_that_touch_share_no_pixel(other: Box, overlaps: bool, inside: bool) -> None:
    assert (BOX.right, BOX.bottom) == (40, 60)
    assert BOX.overlaps(other) is other.overlaps(BOX) is overlaps
    assert other.inside(BOX) is inside


def test_a_view_grows_to_the_left_side_of_the_patient_and_down_from_the_head() -> None:
    view = MillimetreView(BOX, left_mm=200.0, top_mm=-300.0, px_per_mm=0.5)
    np.testing.assert_allclose(view.points(200.0, -300.0), [[10, 20]])
    np.testing.assert_allclose(view.points(np.array([210.0, 260.0]), np.array([-320.0, -380.0])), [[15, 30], [40, 60]])
