"""Lines at the ends of a curve."""

from __future__ import annotations

import numpy as np
import pytest

from edge_spine.measure import KYPHOSIS, LORDOSIS
from edge_spine.outputs.drawing.end_lines import end_lines, side_lines
from edge_spine.vertebrae import LEVELS
from tests.edge_spine.fake_result import fake_result


def test_end_lines_differ_by_the_cobb_angle() -> None:
    result = fake_result()
    for curve in result.measurements.scoliosis_curves:
        upper, lower = end_lines(result, curve)
        assert abs(upper.tilt_deg - lower.tilt_deg) == pytest.approx(curve.cobb_deg)
        # At the upper end of a curve convex to the patient's right (image left) the spine descends to the
        # image's left, so its perpendicular rises to the right; and the other way round.
        assert (upper.tilt_deg < lower.tilt_deg) == (curve.side == "right")


def test_lines_of_the_side_view_open_by_its_angles_and_cross_their_vertebrae() -> None:
    result = fake_result()
    lines = side_lines(result)
    tilts = [np.degrees(np.arctan2(*(line[1] - line[0])[::-1])) for line in lines]
    measured = result.measurements
    assert tilts[0] - tilts[1] == pytest.approx(measured.kyphosis_t4_t12_deg)
    assert tilts[3] - tilts[2] == pytest.approx(measured.lordosis_l1_l5_deg)
    for level, line in zip((*KYPHOSIS, *LORDOSIS), lines, strict=True):
        assert line[:, 1].mean() == pytest.approx(result.levels.z[LEVELS.index(level)])
