from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from edge_spine.vertebrae import LEVELS, Levels, average_levels

SHARE = np.linspace(0, 1, 461)
Z = -100 - 460 * SHARE


def levels(**changes: object) -> Levels:
    fields = {"z": -120.0 - 25 * np.arange(17), "top": -110.0, "bottom": -535.0, **changes}
    return Levels(**fields)  # type: ignore[arg-type]


def test_there_are_seventeen_from_t1_to_l5() -> None:
    assert LEVELS[0] == "T1" and LEVELS[11] == "T12" and LEVELS[12] == "L1" and LEVELS[-1] == "L5"
    assert len(set(LEVELS)) == 17


def test_edges_follow_each_other_without_gap_or_overlap() -> None:
    edges = [levels().edges(level) for level in LEVELS]
    assert edges[0][0] == -110 and edges[-1][1] == -535
    for (upper, lower), (next_upper, _) in pairwise(edges):
        assert upper > lower == next_upper


def test_heights_are_named_by_the_nearest_body_centre() -> None:
    found = levels()
    assert found.names_at(found.z) == LEVELS
    assert found.names_at([-105, -132.4, -132.6, -540]) == ("T1", "T1", "T2", "L5")
    for level in LEVELS:
        upper, lower = found.edges(level)
        assert found.names_at([upper - 0.01, lower + 0.01]) == (level, level)


def test_stations_are_both_ends_and_the_centres_between() -> None:
    found = levels()
    assert found.stations.shape == (19,)
    assert found.stations[0] == -110 and found.stations[-1] == -535 and (found.stations[1:-1] == found.z).all()


@pytest.mark.parametrize(
    "changes",
    [{"top": -125.0}, {"bottom": -500.0}, {"z": -120.0 - 25 * np.arange(16)}, {"z": np.full(17, -120.0)}],
)
def test_vertebrae_out_of_order_are_an_error(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="17 body centres"):
        levels(**changes)


def test_average_proportions_are_those_of_supine_ct() -> None:
    found = average_levels(Z, SHARE)
    assert (found.top, found.bottom, found.z_error) == (-100, -560, None)
    pitch = -np.diff(found.z)
    assert pitch[-1] / pitch[0] == pytest.approx(36.1 / 20.4)
    # 16 pitches of 435 mm, and half a body at each end: 14.1 / 2 and 22.9 / 2 mm
    length = 435.0 + 7.05 + 11.45
    assert found.z[0] == pytest.approx(-100 - 460 * 7.05 / length)
    assert found.z[-2] == pytest.approx(-100 - 460 * (7.05 + 435.0 - 36.1) / length)


def test_average_proportions_follow_the_arc_and_not_the_height() -> None:
    # the upper half leans by 45 degrees: it is longer than it is high
    stretch = np.where(SHARE < 0.5, np.sqrt(2), 1.0)
    arc = np.concatenate([[0], np.cumsum((stretch[1:] + stretch[:-1]) / 2)])
    plumb, leaning = average_levels(Z, SHARE), average_levels(Z, arc / arc[-1])
    assert (leaning.z[1:-1] > plumb.z[1:-1]).all()


def test_unknown_names_are_errors() -> None:
    with pytest.raises(ValueError, match="C7"):
        levels().edges("C7")
