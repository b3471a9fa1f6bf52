"""A stored image is turned head up, and points are found again in what is stored."""

from __future__ import annotations

from datetime import date
from itertools import product

import numpy as np
import pytest
from pydicom.dataset import Dataset

from edge_spine.scan import Turn, study_date

IMAGE = np.arange(15).reshape(3, 5)


@pytest.mark.hazard("image-turned")
@pytest.mark.parametrize(("transpose", "flip_columns", "flip_rows"), list(product([False, True], repeat=3)))
def test_each_turn_is_undone_for_points(transpose: bool, flip_columns: bool, flip_rows: bool) -> None:
    turn = Turn(transpose, flip_columns, flip_rows)
    turned = turn.apply(IMAGE)
    assert turned.shape == turn.shape(IMAGE.shape) and np.shares_memory(turned, IMAGE)
    rows, columns = np.indices(turned.shape)
    points = np.column_stack([columns.ravel(), rows.ravel()])
    stored_columns, stored_rows = turn.stored_points(points, turned.shape).astype(int).T
    np.testing.assert_array_equal(IMAGE[stored_rows, stored_columns], turned.ravel())


@pytest.mark.hazard("image-turned")
def test_a_turn_exchanges_first_and_flips_then() -> None:
    np.testing.assert_array_equal(Turn(transpose=True, flip_columns=True).apply(IMAGE), np.rot90(IMAGE, -1))
    assert Turn().shape((2.4, 1.2)) == (2.4, 1.2) and Turn(transpose=True).shape((2.4, 1.2)) == (1.2, 2.4)


@pytest.mark.parametrize(("transpose", "flip_columns", "flip_rows"), list(product([False, True], repeat=3)))
def test_the_note_says_how_the_stored_image_was_turned(transpose: bool, flip_columns: bool, flip_rows: bool) -> None:
    turn = Turn(transpose, flip_columns, flip_rows)
    said, image = " ".join(turn.notes), IMAGE
    steps = {"rows and columns exchanged": np.transpose, "left and right": np.fliplr, "up and down": np.flipud}
    for words, step in steps.items():
        image = step(image) if words in said else image
    np.testing.assert_array_equal(image, turn.apply(IMAGE))
    assert bool(said) == (turn != Turn()) and "with then" not in said


@pytest.mark.parametrize("text", ["20230228", "2023022", "20231328", "", "unknown"])
def test_the_date_of_a_study_is_read_or_unknown(text: str) -> None:
    header = Dataset()
    header.StudyDate = text
    assert study_date(header) == (date(2023, 2, 28) if text == "20230228" else None)
    assert study_date(Dataset()) is None and study_date(None) is None
