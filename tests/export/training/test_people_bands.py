"""Bands over people: the quantile by hand, and coverage of people who were never seen, on errors of a known law."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from edge_spine.errors import UsageError
from export.training.people_bands import (
    constant_share,
    coverage,
    inflation,
    left_out_coverage,
    people_rows,
    pooled_quantile,
)

Array = NDArray[np.float64]


def drawn(rng: np.random.Generator, people: int, images: int, own: float, other: float) -> list[Array]:
    """Invented errors: one smooth curve of each person (SD `own`) and one of each image (SD `other`)."""

    def smooth(*shape: int) -> Array:
        noise = gaussian_filter1d(rng.standard_normal((*shape, 209 + 240)), 30, axis=-1)[..., 120:-120]
        curves: Array = noise * np.sqrt(60 * np.sqrt(np.pi))
        return curves

    profile = np.linspace(0.5, 1.5, 209)
    return list((own * smooth(people, 1) + other * smooth(people, images)) * profile)


def test_the_pooled_quantile_by_hand() -> None:
    many, few = np.repeat(np.arange(1.0, 91.0), 1)[:, np.newaxis], np.array([[100.0], [200.0]])
    # 90 images hold one half of the weight, two images the other: 100 reaches 75 %, 200 all of it
    assert pooled_quantile([many, few], 0.5) == 90
    assert pooled_quantile([many, few], 0.75) == 100
    assert pooled_quantile([many, few], 0.76) == 200
    ten = [np.full((3, 2), value) * [1, 10] for value in np.arange(1.0, 11.0)]
    assert pooled_quantile(ten, 0.9).tolist() == [9, 90]


def test_what_is_a_persons_own_is_told_from_the_rest() -> None:
    rng = np.random.default_rng(0)
    for own, other in ((1.0, 0.1), (0.7, 0.7), (0.0, 1.0)):
        share = constant_share(drawn(rng, 60, 20, own, other))
        assert share == pytest.approx(own**2 / (own**2 + other**2), abs=0.08)


def test_few_people_are_inflated_and_many_hardly() -> None:
    # t / z at 95 %: 2.015 / 1.645 with 5 degrees of freedom
    assert inflation(5, 1.0) == pytest.approx(2.015 / 1.645, abs=1e-3)
    assert inflation(4, 1.0) > inflation(5, 1.0) > inflation(5, 0.5) > inflation(5, 0.0) >= 1
    assert inflation(5, 0.0) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("own", "other"), [(1.0, 0.2), (0.7, 0.7), (0.2, 1.0)])
def test_five_people_give_bands_that_hold_nine_of_ten_rows_of_new_people(own: float, other: float) -> None:
    rng = np.random.default_rng(5)
    found, naive = [], []
    for _ in range(60):
        people, fresh = drawn(rng, 5, 20, own, other), np.concatenate(drawn(rng, 20, 3, own, other))
        found.append(coverage(people_rows(people), fresh))
        naive.append(coverage(np.quantile(np.abs(np.concatenate(people)), 0.9, axis=0), fresh))
    assert np.mean(found) == pytest.approx(0.9, abs=0.025)
    if own > other:
        assert np.mean(naive) < 0.86, "images that are taken for independent promise too much"


def test_leaving_one_out_tells_of_the_next_person() -> None:
    rng = np.random.default_rng(6)
    found = []
    for _ in range(60):
        people = {str(index): errors for index, errors in enumerate(drawn(rng, 6, 20, 1.0, 0.2))}
        found.append(np.mean(list(left_out_coverage(people, np.zeros(209)).values())))
    assert np.mean(found) == pytest.approx(0.9, abs=0.03)
    floor = left_out_coverage(people, np.full(209, 1e3))
    assert list(floor) == list(people) and set(floor.values()) == {1.0}


def test_too_few_are_refused() -> None:
    rng = np.random.default_rng(7)
    with pytest.raises(UsageError, match="3 people or more, with 5 images"):
        people_rows(drawn(rng, 1, 20, 1, 1))
    with pytest.raises(UsageError, match="3 people or more, with 5 images"):
        people_rows(drawn(rng, 5, 4, 1, 1))
