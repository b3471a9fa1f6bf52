"""The shaded surface."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_spine.outputs.drawing.shading import shade
from edge_spine.reconstruct import Spine


@pytest.mark.parametrize(("azimuth", "width_mm"), [(0.0, 40.0), (90.0, 20.0), (-45.0, math.hypot(40, 20) / 2**0.5)])
def test_the_outline_is_that_of_the_ellipses(azimuth: float, width_mm: float) -> None:
    z = np.linspace(0.0, -100.0, 50)
    spine = Spine(np.column_stack([0 * z, 0 * z, z]), np.full(50, 20.0), np.full(50, 10.0))
    across = np.arange(-40, 40, 0.5)
    brightness, coverage = shade(spine, azimuth, np.linspace(10.0, -110.0, 121), across)
    assert coverage[60].sum() * 0.5 == pytest.approx(width_mm, abs=0.6)
    assert not coverage[:9].any()
    assert not coverage[-9:].any()
    lit = brightness[60][coverage[60] == 1]
    assert lit[len(lit) // 3] > lit[-2]  # the light stands to the viewer's left
    assert np.isfinite(brightness).all()


def test_the_side_that_faces_the_light_from_above_is_brighter() -> None:
    z = np.linspace(0.0, -100.0, 101)
    leaning = np.column_stack([0 * z, 0.5 * z, z])
    spine = Spine(leaning, np.full(101, 15.0), np.full(101, 15.0))
    across = np.arange(-20.0, 20.0)
    towards_viewer, _ = shade(spine, 0.0, np.array([-49.0, -50.0, -51.0]), across)
    away, _ = shade(spine, 180.0, np.array([-49.0, -50.0, -51.0]), across)
    # It comes towards a viewer in front as it descends, so what is seen from the front faces upwards.
    assert towards_viewer[1].max() > away[1].max() + 0.1
