"""The localiser's geometry, and the real network on phantoms and on the real scan."""

from __future__ import annotations

import numpy as np
import pytest

from edge_spine.errors import BundleError
from edge_spine.preprocessing.locator import INPUT_SHAPE, STRIDE, Localiser, read_heat_maps, thumbnail


@pytest.mark.parametrize("spacing", [(2.4, 2.4), (0.9, 1.3), (9.0, 2.0), (13.0, 2.05)])
def test_thumbnail_places_map_back_to_the_scan(spacing: tuple[float, float]) -> None:
    rows, columns = int(1900 / spacing[0]), int(650 / spacing[1])
    y, x = np.mgrid[:rows, :columns]
    blob = np.exp(-(((y * spacing[0] - 700) ** 2 + (x * spacing[1] - 300) ** 2) / (2 * 30.0**2)))
    small, origin, step = thumbnail(blob.astype(np.float32), spacing)
    assert small.shape == INPUT_SHAPE
    weight = small / small.sum()
    rows_px, columns_px = np.mgrid[: INPUT_SHAPE[0], : INPUT_SHAPE[1]]
    row = origin[0] + float((weight * rows_px).sum()) * step[0]
    column = origin[1] + float((weight * columns_px).sum()) * step[1]
    assert (row * spacing[0], column * spacing[1]) == pytest.approx((700, 300), abs=1.5)


def test_a_scan_larger_than_the_thumbnail_is_cut_around_its_centre() -> None:
    image = np.zeros((400, 300), dtype=np.float32)
    image[199:201, 149:151] = 1
    small, _, _ = thumbnail(image, (7.0, 7.0))
    row, column = np.unravel_index(int(small.argmax()), small.shape)
    assert abs(row - INPUT_SHAPE[0] // 2) <= 1 and abs(column - INPUT_SHAPE[1] // 2) <= 1


def test_heat_maps_are_read_between_cells_and_spread_means_doubt() -> None:
    rows, columns = np.mgrid[: INPUT_SHAPE[0] // STRIDE, : INPUT_SHAPE[1] // STRIDE]
    sharp = -((rows - 30.3) ** 2 + (columns - 11.6) ** 2) / 2.0
    points, confidence = read_heat_maps(np.stack([sharp] * 3).astype(np.float32))
    assert points[0] == pytest.approx((30.3 * STRIDE + 1.5, 11.6 * STRIDE + 1.5), abs=0.5)
    assert confidence > 0.9
    _, doubt = read_heat_maps(np.stack([sharp, sharp, np.zeros_like(sharp)]).astype(np.float32))
    assert doubt < 0.05


def test_damaged_network_is_a_bundle_error() -> None:
    with pytest.raises(BundleError):
        Localiser(b"not a network")
