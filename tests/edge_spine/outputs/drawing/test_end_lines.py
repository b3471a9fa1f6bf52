"""Lines at the ends of a curve."""

from __future__ import annotations

import pytest

from edge_spine.outputs.drawing.end_lines import end_lines
from tests.edge_spine.fake_result import fake_result


def test_end_lines_differ_by_the_cobb_angle() -> None:
    result = fake_result()
    for curve in result.measurements.scoliosis_curves:
        upper, lower = end_lines(result.spine.centreline, curve)
        assert abs(upper.tilt_deg - lower.tilt_deg) == pytest.approx(curve.cobb_deg)
        # At the upper end of a curve convex to the patient's right (image left) the spine descends to the
        # image's left, so its perpendicular rises to the right; and the other way round.
        assert (upper.tilt_deg < lower.tilt_deg) == (curve.side == "right")
