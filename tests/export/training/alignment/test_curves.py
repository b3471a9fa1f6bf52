"""Which lengths of a mask are T1 to L5."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import BSpline

from export.training.alignment.curves import Track
from export.training.alignment.volume import PairSkipped

PIXEL_MM = 2.0


def _straight(rows: float) -> Track:
    half = rows * PIXEL_MM / 2
    knots = np.array([-half] * 4 + [half] * 4)
    borders = BSpline(knots, np.tile([-20.0, 20.0, -15.0, 15.0], (4, 1)), 3)
    return Track(half, -half, half - 5, 5 - half, borders)


@pytest.mark.parametrize("rows", [180, 209, 231])
def test_short_and_long_spines_of_people_are_taken(rows: int) -> None:
    """Spines of phantoms are 180 to 231 rows long, those with large curves the shortest."""
    spine = _straight(rows).in_scan(PIXEL_MM, (2.0, 2.0))
    np.testing.assert_allclose(spine.curves_at(np.zeros(1)), [[-20, 0, 20, -15, 0, 15]], atol=1e-9)


@pytest.mark.parametrize(("rows", "code"), [(170, "spine-not-whole"), (245, "spine-too-long")])
def test_a_length_that_no_spine_has_is_skipped(rows: int, code: str) -> None:
    with pytest.raises(PairSkipped) as skipped:
        _straight(rows).in_scan(PIXEL_MM, (2.0, 2.0))
    assert skipped.value.code == code
