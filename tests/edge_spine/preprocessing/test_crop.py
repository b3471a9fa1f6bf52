"""Crops keep places in millimetres."""

from __future__ import annotations

import numpy as np
import pytest

from edge_spine.network import CROP_SIZE, CropPlacement
from edge_spine.preprocessing.crop import as_tensor, resample


@pytest.mark.parametrize("spacing", [(2.4, 2.4), (1.0, 2.0), (0.5, 0.5), (6.0, 2.0)])
def test_resampling_keeps_places_in_millimetres(spacing: tuple[float, float]) -> None:
    # a smooth blob at a known place (mm) must appear at the same place in the crop, whatever the spacing
    rows, columns = int(1200 / spacing[0]), int(600 / spacing[1])
    y, x = np.mgrid[:rows, :columns]
    blob = np.exp(-(((y * spacing[0] - 640) ** 2 + (x * spacing[1] - 290) ** 2) / (2 * 18.0**2)))
    place = CropPlacement.centred((600 / spacing[0], 300 / spacing[1]), 2.2, spacing)
    crop = resample(blob.astype(np.float32), spacing, 2.2, place.crop_origin_px, CROP_SIZE)
    rows_px, columns_px = np.mgrid[:CROP_SIZE, :CROP_SIZE]
    weight = crop / crop.sum()
    found = float((weight * rows_px).sum()), float((weight * columns_px).sum())
    middle = (CROP_SIZE - 1) / 2
    assert found == pytest.approx((middle + 40 / 2.2, middle - 10 / 2.2), abs=0.12)


def test_tensor_has_three_equal_channels() -> None:
    crop = np.random.default_rng(0).random((224, 224), dtype=np.float32)
    tensor = as_tensor(crop)
    assert tensor.shape == (1, 3, 224, 224) and tensor.dtype == np.float32
    for channel in range(3):
        np.testing.assert_array_equal(tensor[0, channel], crop)
