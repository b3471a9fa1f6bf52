"""Counts and tables give the very numbers that sorting and arithmetic give."""

from __future__ import annotations

import numpy as np
import pytest

from edge_spine.preprocessing import intensity as grey_levels
from edge_spine.preprocessing.intensity import mapped, percentile, percentiles_of_counts, value_counts, whole_greys


def _image(kind: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    image = rng.gamma(2.0, 30.0, (310, 127)).astype(np.float32)
    if kind == "8 bit":
        return np.clip(np.round(image), 0, 255)
    return np.round(image * 70).clip(0, 65535) if kind == "16 bit" else image


def _levels(image: np.ndarray) -> np.ndarray | None:
    return whole_greys(image, float(image.min()), float(image.max()))


@pytest.mark.parametrize(("kind", "dtype"), [("8 bit", np.uint8), ("16 bit", np.uint16)])
def test_whole_numbers_are_levels(kind: str, dtype: type) -> None:
    image = _image(kind)
    greys = _levels(image)
    assert greys is not None and greys.dtype == dtype
    np.testing.assert_array_equal(greys, image)


def test_other_numbers_are_no_levels() -> None:
    whole = _image("8 bit")
    for row in (0, 155, 309):  # the first, the one that is looked at first, the last
        image = whole.copy()
        image[row, 5] += 0.5
        assert _levels(image) is None
    assert _levels(_image("neither")) is None
    assert _levels(whole - 1) is None
    assert _levels(whole + 65_500) is None
    assert whole_greys(whole, float("nan"), 3.0) is None


@pytest.mark.parametrize("kind", ["8 bit", "16 bit"])
def test_percentiles_are_those_of_numpy(kind: str) -> None:
    image = _image(kind)
    greys, shares = _levels(image), [0, 0.1, 9.5, 50, 99.5, 99.9, 100]
    assert greys is not None
    mask = image > np.median(image)
    for chosen, values in ((None, image.ravel()), (mask, image[mask])):
        found = percentiles_of_counts(value_counts(greys, chosen), shares)
        assert found == np.percentile(values.astype(np.float64), shares).tolist()
    assert percentiles_of_counts(value_counts(greys[:1, :1]), [9.5, 100]) == [image[0, 0]] * 2


def test_every_other_pixel_and_large_images_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    image = _image("8 bit")
    greys = _levels(image)
    assert greys is not None
    expected = np.bincount(greys[::2, ::2].ravel(), minlength=256)
    np.testing.assert_array_equal(value_counts(greys[::2, ::2]), expected)
    monkeypatch.setattr(grey_levels, "_COUNTED_AT_ONCE", 1000)
    np.testing.assert_array_equal(value_counts(greys[::2, ::2]), expected)
    assert value_counts(greys, image > 400).sum() == 0


@pytest.mark.parametrize("kind", ["8 bit", "16 bit", "neither"])
@pytest.mark.parametrize("repeats", [1, 3])
def test_a_curve_is_the_same_by_table_and_by_pixel(kind: str, repeats: int) -> None:
    image = np.tile(_image(kind), (repeats, 1))

    def curve(grey: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-grey / 50))

    shown = mapped(image, _levels(image), curve)
    assert shown.dtype == np.float32 and shown.shape == image.shape
    np.testing.assert_array_equal(shown, curve(image.astype(np.float64)).astype(np.float32))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 1000])
def test_a_percentile_of_an_image_is_that_of_numpy(count: int) -> None:
    values = np.random.default_rng(count).normal(100, 30, count).astype(np.float32)
    for share in (0, 9.5, 50, 60, 99.9, 100):
        assert percentile(values, share) == pytest.approx(np.percentile(values.astype(np.float64), share), rel=1e-12)
