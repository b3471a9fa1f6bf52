"""Body, polarity, intensities and resampling, on real, synthetic and hostile images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_spine import read_scan
from edge_spine.errors import Refusal
from edge_spine.preprocessing.body import find_body, has_head_and_shoulders, skull_to_abdomen
from edge_spine.preprocessing.intensity import normalise


def _figure(rows: int = 300, columns: int = 120, value: float = 100.0) -> np.ndarray:
    """A bright upright bar on a dark ground, rows 30 to 269, columns 40 to 79."""
    image = np.zeros((rows, columns), dtype=np.float32)
    image[30 : rows - 30, 40:80] = value
    return image


def test_body_edges_and_mask() -> None:
    body = find_body(_figure())
    assert (body.crown, body.toe) == pytest.approx((29.5, 269.5), abs=1.01)
    assert body.flags == ()
    assert body.mask[150, 60] and not body.mask[150, 10]


def test_inverted_image_is_put_right_and_flagged() -> None:
    image = _figure()
    body = find_body(255 - image)
    assert "inverted" in body.flags
    np.testing.assert_allclose(body.pixels - body.pixels.min(), image, atol=1e-4)


def test_noise_in_the_background_does_not_stretch_the_body() -> None:
    rng = np.random.default_rng(0)
    noisy = _figure() + rng.normal(12, 2, (300, 120)).astype(np.float32)
    body = find_body(noisy)
    assert (body.crown, body.toe) == pytest.approx((29.5, 269.5), abs=2)


def test_body_that_touches_an_edge_is_flagged() -> None:
    assert find_body(_figure()[:200]).flags == ("feet-outside",)
    assert find_body(_figure()[60:]).flags == ("head-outside",)


@pytest.mark.parametrize("image", [np.zeros((200, 100)), np.full((200, 100), 7.0)])
def test_an_empty_table_has_no_body(image: np.ndarray) -> None:
    with pytest.raises(Refusal) as refusal:
        find_body(image.astype(np.float32))
    assert refusal.value.code == "no-spine"


def test_normalised_real_scan_has_the_published_grey_levels(real_bone: Path) -> None:
    scan = read_scan(real_bone)
    body = find_body(scan.pixels)
    shown = normalise(body.pixels, body.mask)
    assert shown.min() == 0 and shown.max() == pytest.approx(1)
    spine = scan.pixels == 194
    abdomen = scan.pixels == 92
    assert np.median(shown[spine]) == pytest.approx(0.79, abs=0.03)
    assert np.median(shown[abdomen]) == pytest.approx(0.23, abs=0.03)


def test_normalising_undoes_gain_and_offset() -> None:
    rng = np.random.default_rng(1)
    pixels = rng.uniform(0, 200, (50, 50)).astype(np.float32)
    mask = np.ones((50, 50), dtype=bool)
    np.testing.assert_allclose(normalise(pixels, mask), normalise(pixels * 16 + 100, mask), atol=1e-5)


def test_skull_ratio_tells_bone_from_soft_tissue(real_bone: Path, real_tissue: Path) -> None:
    ratios = []
    for path in (real_bone, real_tissue):
        scan = read_scan(path)
        body = find_body(scan.pixels)
        ratios.append(skull_to_abdomen(body))
    assert ratios[0] > 1.8 and ratios[1] < 1.1


def _person(rows: int = 400, columns: int = 140) -> np.ndarray:
    """Head, neck, trunk with arms, two legs: boxes on a dark ground."""
    image = np.zeros((rows, columns), dtype=np.float32)
    for first, last, left, right in ((20, 62, 56, 84), (62, 75, 61, 79), (75, 200, 25, 115)):
        image[first:last, left:right] = 100
    for left in (40, 75):
        image[200:380, left : left + 25] = 100
    return image


def test_only_an_upright_outline_has_head_and_shoulders() -> None:
    person = _person()
    assert has_head_and_shoulders(find_body(person))
    assert has_head_and_shoulders(find_body(person[:, ::-1]))
    assert has_head_and_shoulders(find_body(person[:300]))
    for other in (person[::-1], np.where(np.arange(400)[:, None] < 200, 0, person), _figure()):
        assert not has_head_and_shoulders(find_body(np.ascontiguousarray(other, dtype=np.float32)))


def test_the_second_thing_in_an_image_is_measured_by_the_first() -> None:
    assert find_body(_person()).second_share == 0
    pair = np.hstack([_person(), _person()[:, 20:120] * (np.arange(400)[:, None] < 200)])
    share = find_body(pair.astype(np.float32)).second_share
    assert 0.4 < share < 0.8


@pytest.mark.parametrize("gain", [1.0, 16.0, 0.37])
def test_a_scan_is_normalised_as_published_whatever_its_numbers(gain: float) -> None:
    # 8 bit, 12 bit, and no whole numbers: by table, by table, by arithmetic
    rng = np.random.default_rng(2)
    image = np.clip(_person() + rng.normal(8, 4, (400, 140)), 0, 255).round().astype(np.float32)
    body = find_body(image * np.float32(gain))
    assert (body.greys is None) == (gain == 0.37)
    pixels = body.pixels.astype(np.float64)
    low, high = np.percentile(pixels[body.mask], [9.5, 99.9])
    sigmoid = 1 / (1 + np.exp(-np.clip((pixels - low) / (high - low), 0, 1) - 2.5))
    least, most = 1 / (1 + np.exp(-2.5)), 1 / (1 + np.exp(-3.5))
    for shown in (normalise(body.pixels, body.mask), normalise(body.pixels, body.mask, body.greys)):
        np.testing.assert_allclose(shown, (sigmoid - least) / (most - least), atol=2e-6)


@pytest.mark.parametrize("specks", [0, 40, 400])
def test_the_body_is_the_largest_of_any_number_of_things(specks: int) -> None:
    image = np.zeros((900, 300), dtype=np.float32)
    image[100:800, 200:280] = 100
    places = np.random.default_rng(0).permutation(50 * 40)[:specks]
    for row, column in zip(*np.unravel_index(places, (50, 40)), strict=True):
        image[10 + 16 * row : 12 + 16 * row, 4 + 4 * column : 5 + 4 * column] = 100
    body = find_body(image)
    assert body.mask[400, 240] and not body.mask[:, :190].any()
    assert body.second_share < 0.01 and (body.second_share > 0) == (specks > 0)


def test_inverting_keeps_whole_numbers_whole() -> None:
    body = find_body(255 - _figure())
    assert body.greys is not None
    np.testing.assert_array_equal(body.greys, body.pixels)
