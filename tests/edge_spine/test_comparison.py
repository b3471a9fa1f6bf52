from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.dataset import Dataset

from edge_spine.comparison import ERROR_DEG, Change, _angle_between_ends, compare, paired_curves
from edge_spine.measure import AngleErrors, LevelledCurve, measure
from edge_spine.quality import Quality
from edge_spine.version import __version__
from tests.edge_spine.fake_result import fake_curves, fake_result


def curve(cobb: float, side: Any, upper: int, lower: int) -> LevelledCurve:
    return LevelledCurve(cobb, cobb / 1.4, side, (upper + lower) // 2, upper, lower, "T8", "T5", "T11")


def result(curves: Any = None, header: Dataset | None = None) -> Any:
    made = fake_result(curves=curves or fake_curves())
    made.scan.header = header
    return made


def header(**values: str) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def test_curves_of_one_side_and_place_are_a_pair() -> None:
    old = (curve(30, "right", 40, 100), curve(15, "left", 100, 160))
    new = (curve(22, "left", 110, 170), curve(18, "right", 50, 108))
    assert paired_curves(old, new) == [(old[0], new[1]), (old[1], new[0])]


@pytest.mark.parametrize(
    "other", [curve(20, "left", 40, 100), curve(20, "right", 80, 140), curve(20, "right", 101, 160)]
)
def test_other_curves_are_none(other: LevelledCurve) -> None:
    old = curve(30, "right", 40, 100)
    assert paired_curves((old,), (other,)) == [(old, None), (None, other)]


def test_the_order_of_two_scans_does_not_change_the_pairs() -> None:
    two = curve(30, "right", 0, 60), curve(12, "right", 62, 100)
    one = (curve(20, "right", 25, 95),)
    assert paired_curves(two, one) == [(two[0], None), (two[1], one[0])]
    assert paired_curves(one, two) == [(None, two[0]), (one[0], two[1])]


def test_nothing_is_minus_zero() -> None:
    straight = result(fake_curves(lateral_mm=0.0))
    less = replace(straight.measurements, kyphosis_t4_t12_deg=straight.measurements.kyphosis_t4_t12_deg - 1e-5)
    comparison = compare(straight, replace(straight, measurements=less))
    assert "-0.0" not in comparison.table() + json.dumps(comparison.to_dict())


def test_a_change_is_after_less_before() -> None:
    comparison = compare(result(fake_curves(lateral_mm=10)), result(fake_curves(lateral_mm=20)))
    largest = comparison.changes[0]
    assert largest.name == "max_cobb_deg"
    assert largest.before is not None and largest.after is not None
    assert largest.change == pytest.approx(largest.after - largest.before) and largest.change > ERROR_DEG
    assert largest.beyond_error is True
    back = compare(comparison.after, comparison.before).changes[0]
    assert back.change == pytest.approx(-largest.change) and back.beyond_error is True


def test_the_same_scan_twice_has_not_changed() -> None:
    one = result()
    comparison = compare(one, one)
    assert {change.change for change in comparison.changes} == {0.0}
    assert {change.beyond_error for change in comparison.changes} == {False, None}
    assert [change.name for change in comparison.changes if change.error is None] == [
        "kyphosis_t4_t12_deg",
        "lordosis_l1_l5_deg",
        "max_lateral_deviation_mm",
        "centreline_length_mm",
        "volume_ml",
    ]


def lateral(changes: tuple[Change, ...]) -> list[Change]:
    return [change for change in changes if change.name.startswith("cobb_deg")]


@pytest.mark.parametrize("before_mm", [0.0, 0.5, -1.0])
def test_a_curve_that_appears_is_compared_with_the_angle_between_its_ends(before_mm: float) -> None:
    straight, bent = result(fake_curves(lateral_mm=before_mm)), result(fake_curves(lateral_mm=14))
    comparison = compare(straight, bent)
    appeared = lateral(comparison.changes)
    assert len(appeared) >= len(bent.measurements.scoliosis_curves) > 0
    largest = appeared[0]
    assert largest.after == bent.measurements.max_cobb_deg
    assert abs(largest.before - before_mm / 14 * largest.after) < 1.0
    assert largest.change == pytest.approx(largest.after - largest.before)
    assert largest.beyond_error is (largest.change > ERROR_DEG)
    assert "none" not in comparison.table()


def test_the_ends_of_a_curve_give_its_own_angle() -> None:
    bent = result(fake_curves(lateral_mm=14))
    for curve in bent.measurements.scoliosis_curves:
        assert _angle_between_ends(curve, bent) == pytest.approx(curve.cobb_deg)


def with_errors(made: Any, cobb: float) -> Any:
    errors = AngleErrors((0.0,), (cobb,), 5.0, 12.0)
    return replace(made, measurements=measure(made.spine, made.levels, errors))


@pytest.mark.hazard("last-digit")
def test_the_error_of_a_change_is_that_of_both_intervals() -> None:
    one, other = result(fake_curves(lateral_mm=10)), result(fake_curves(lateral_mm=14))
    known = compare(with_errors(one, 3.0), with_errors(other, 4.0)).changes
    errors = {change.name: change.error for change in known}
    assert errors["max_cobb_deg"] == pytest.approx(5.0)
    assert errors["kyphosis_t4_t12_deg"] == pytest.approx(50**0.5)
    assert {change.error for change in lateral(known)} == {errors["max_cobb_deg"]}
    assert errors["volume_ml"] is None
    for change in known:
        assert change.beyond_error is (None if change.error is None else abs(change.change) > change.error)
    half = {change.name: change.error for change in compare(with_errors(one, 3.0), other).changes}
    assert half["max_cobb_deg"] == ERROR_DEG and half["kyphosis_t4_t12_deg"] is None
    assert "within 7.1 deg" in compare(with_errors(one, 5.0), with_errors(one, 5.0)).table()


@pytest.mark.hazard("two-persons")
@pytest.mark.parametrize(
    ("first", "second", "person"),
    [
        ({"PatientID": "1"}, {"PatientID": "1"}, "same"),
        ({"PatientID": "1"}, {"PatientID": "2"}, "different"),
        ({"PatientID": "1", "PatientSex": "F"}, {"PatientID": "1", "PatientSex": "M"}, "different"),
        ({"PatientBirthDate": "19600101"}, {"PatientBirthDate": "19600101"}, "unknown"),
        ({"PatientBirthDate": "19600101"}, {"PatientBirthDate": "19600102"}, "different"),
        ({"PatientID": "1"}, {}, "unknown"),
        ({"PatientName": "A"}, {"PatientName": "B"}, "unknown"),
        ({"PatientID": "A", "IssuerOfPatientID": "X"}, {"PatientID": "A", "IssuerOfPatientID": "Y"}, "unknown"),
        ({"PatientID": "A", "IssuerOfPatientID": "X"}, {"PatientID": "A"}, "same"),
    ],
)
def test_whose_the_scans_are(first: dict[str, str], second: dict[str, str], person: str) -> None:
    comparison = compare(result(header=header(**first)), result(header=header(**second)))
    assert comparison.person == person
    assert compare(result(), result(header=header(**second))).person == "unknown"


def test_the_interval_is_in_days() -> None:
    dates = [result(header=header(StudyDate=day)) for day in ("20230228", "20240301", "")]
    assert compare(dates[0], dates[1]).interval_days == 367
    assert compare(dates[1], dates[0]).interval_days == -367
    assert compare(dates[0], dates[2]).interval_days is None


def test_flags_of_both_scans_and_what_they_are_traced_by_go_into_the_comparison() -> None:
    before, after = result(), result()
    after = replace(after, quality=Quality(True, ("metal", "spacing-conflict"), ("2 and 3 mm disagree",)))
    comparison = compare(before, after)
    first, second = comparison.to_dict()["scans"]
    assert (first["path"], first["sha256"], first["flags"]) == ("FAKE/FAKE.dcm", "f" * 64, [])
    assert second["flags"] == ["metal", "spacing-conflict"] and second["notes"] == ["2 and 3 mm disagree"]
    assert comparison.to_dict()["edge_spine_version"] == __version__
    lines = comparison.table().splitlines()
    assert lines[:2] == [
        "before: FAKE/FAKE.dcm",
        "after: FAKE/FAKE.dcm (metal, spacing-conflict); 2 and 3 mm disagree",
    ]


def test_the_table_names_nobody() -> None:
    values = {"PatientID": "SECRET-ID", "PatientName": "SECRET^NAME", "StudyDate": "20230228"}
    table = compare(result(header=header(**values)), result(header=header(**values))).to_dict()
    assert table["schema"] == "edge-spine/comparison/2" and table["person"] == "same"
    assert "SECRET" not in str(table) and "20230228" not in str(table)
    assert table["notice"]
    assert isinstance(SimpleNamespace(**table["changes"][0]).change, float)
