from __future__ import annotations

from dataclasses import replace

import pytest

from edge_spine.bundle import load_bundle
from edge_spine.bundle.blocks import parsed_population
from tests.edge_spine.bundle.changing import ANGLES, fake_population
from tests.edge_spine.fake_result import fake_result


@pytest.mark.parametrize(
    ("kyphosis", "lordosis", "atypical"),
    [(30, 40, False), (10.5, 68, False), (10.4, 40, True), (52.1, 40, True), (30, 12.9, True), (30, 68.1, True)],
)
def test_a_side_view_outside_the_limits_is_atypical(kyphosis: float, lordosis: float, atypical: bool) -> None:
    found = replace(fake_result().measurements, kyphosis_t4_t12_deg=float(kyphosis), lordosis_l1_l5_deg=float(lordosis))
    assert parsed_population(fake_population(**ANGLES)).is_atypical(found) is atypical
    assert not parsed_population(fake_population()).is_atypical(found)


def test_the_packaged_bundle_carries_one() -> None:
    found = load_bundle().population
    assert found is not None
    # 90 % of supine adults: centimetres, and widest where the spine sways most
    width = (found.high - found.low) * 2.2
    assert width.min() > 10 and width.max() < 100
    assert (found.low < 0).any() and (found.high > 0).any()
