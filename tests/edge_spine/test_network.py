"""Places of a crop in its scan."""

from __future__ import annotations

import numpy as np

from edge_spine.network import CropPlacement


def test_columns_and_rows_are_places_in_millimetres_and_back() -> None:
    place = CropPlacement(2.2, (10.0, 5.0), (3.0, 4.0))
    assert place.corner_mm == (30.0, 20.0)
    np.testing.assert_allclose(place.z_mm(np.array([0.0, 10.0])), [-30, -52])
    np.testing.assert_allclose(place.x_mm(np.array([0.0, 10.0])), [20, 42])
    np.testing.assert_allclose(place.columns_px(np.array([20.0, 42.0])), [0, 10])
