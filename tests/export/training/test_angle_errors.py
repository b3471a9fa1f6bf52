from __future__ import annotations

import numpy as np
import pytest

from edge_spine.bundle.blocks import block_problem, parsed_angles
from edge_spine.errors import UsageError
from export.training.angle_errors import COBB_FROM_DEG, angles_block, classes_of, half_width, interval_lines
from export.training.walk_errors import Errors


def errors(seed: int, count: int = 400, size: float = 1.0) -> Errors:
    """FAKE errors: those of Cobb angles grow with the angle, the others are normal."""
    rng = np.random.default_rng(seed)
    cobb = rng.uniform(0, 60, count)
    angles = rng.normal(0, size, (count, 3)) * np.stack([1 + cobb / 20, np.full(count, 4), np.full(count, 5)], axis=1)
    return Errors(np.zeros((count, 2, 209)), cobb, 0, angles)


def test_intervals_hold_nine_tenths_of_further_scans() -> None:
    people = {"a": errors(1), "b": errors(2)}
    block = angles_block(errors(0), people, "FAKE", "a" * 64)
    assert block_problem("angles", block) is None
    calibration, other = parsed_angles(block), errors(9, 4000)
    half = np.array([calibration.of_cobb(angle) for angle in other.cobb_deg])
    held = np.abs(other.angles_deg) <= np.stack([half, *np.full((2, 4000), 0.0)], axis=1)
    assert held[:, 0].mean() == pytest.approx(0.9, abs=0.03)
    assert (np.abs(other.angles_deg[:, 1]) <= calibration.kyphosis_deg).mean() == pytest.approx(0.9, abs=0.03)
    assert (np.abs(other.angles_deg[:, 2]) <= calibration.lordosis_deg).mean() == pytest.approx(0.9, abs=0.03)


def test_larger_curves_have_wider_intervals() -> None:
    block = angles_block(errors(0), {}, "FAKE", "a" * 64)
    assert block["cobb_from_deg"] == list(COBB_FROM_DEG)
    assert block["cobb_deg"] == sorted(block["cobb_deg"]) and block["cobb_deg"][-1] > 1.5 * block["cobb_deg"][0]


def test_people_alone_give_the_intervals_where_there_are_any() -> None:
    people = {name: errors(seed, size=2.0) for seed, name in enumerate("abc", 1)}
    block = angles_block(errors(0, 5000), people, "FAKE", "a" * 64)
    for group in people.values():
        assert (np.abs(group.angles_deg[:, 1]) <= block["kyphosis_deg"]).mean() > 0.85
    assert block["kyphosis_deg"] > 1.7 * angles_block(errors(0), {}, "FAKE", "a" * 64)["kyphosis_deg"]


def test_each_person_weighs_the_same() -> None:
    few, many = np.random.default_rng(0).normal(0, 10, 50), np.random.default_rng(1).normal(0, 1, 5000)
    assert half_width([few, many]) > 9


def test_an_error_that_a_person_always_has_widens_the_interval() -> None:
    rng = np.random.default_rng(0)
    constant = [rng.normal(mean, 0.1, 200) for mean in (-2.0, 0.5, 2.0)]
    varying = [rng.normal(0, 1.5, 200) for _ in range(3)]
    scale = [float(np.quantile(np.abs(np.concatenate(part)), 0.9)) for part in (constant, varying)]
    assert half_width(constant) / scale[0] > 1.2 * half_width(varying) / scale[1]


def test_classes_with_few_scans_are_joined() -> None:
    assert classes_of(np.full(20, 30.0)) == [0]
    cobb = np.concatenate([np.full(30, 5.0), np.full(3, 15.0), np.full(20, 30.0), np.full(9, 50.0)])
    assert classes_of(cobb) == [0, 25]
    with pytest.raises(UsageError, match="9 scans are too few"):
        classes_of(np.full(9, 5.0))


def test_the_table_names_each_group() -> None:
    block = angles_block(errors(0), {"a": errors(1)}, "FAKE", "a" * 64)
    lines = interval_lines(block, {"phantoms": errors(0), "a": errors(1)})
    assert [line.split()[0] for line in lines[1:3]] == ["phantoms", "a"]
    assert all(80 < float(share.rstrip("%")) < 98 for share in lines[1].split()[1:])
