"""Colour becomes grey."""

from __future__ import annotations

import numpy as np
import pytest

from edge_spine.reading.grey import grey_from_rgb
from tests.edge_spine.reading.samples import BODY


def test_three_equal_channels_are_the_channel_itself() -> None:
    grey = grey_from_rgb(np.repeat(BODY[..., None], 3, axis=2))
    assert grey.dtype == BODY.dtype
    np.testing.assert_array_equal(grey, BODY)


@pytest.mark.parametrize(("channel", "weight"), [(0, 0.299), (1, 0.587), (2, 0.114)])
def test_each_channel_has_its_weight(channel: int, weight: float) -> None:
    colour = np.zeros((2, 3, 3), np.uint8)
    colour[..., channel] = 200
    grey = grey_from_rgb(colour)
    assert grey.dtype == np.float32
    np.testing.assert_allclose(grey, 200 * weight, rtol=1e-6)
