"""The yardstick: each figure has its known value on made-up cases, and people are chosen and refused as stated."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_spine import SpineEstimator
from edge_spine.errors import UsageError
from edge_spine.reconstruct import Curves
from export.training import agreement, evaluate, yardstick
from export.training.agreement import mean_sagittal
from export.training.figures import (
    ANGLES,
    BAND_MEANS,
    MEANS,
    Group,
    bootstrap,
    chosen_images,
    constant_error,
    figures,
    gain,
    line_through,
    tangent_waves,
)
from export.training.phantoms.phantom import Phantom, make_phantom
from export.training.yardstick_table import table

ROWS = np.arange(209)
HEIGHTS = -2.2 * ROWS


def _waving(half_waves: int, amplitude_deg: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Centreline (209,), mm, whose 16 chords have tangents of one cosine."""
    tangents = amplitude_deg * np.cos(np.pi * (np.arange(16) + 0.5) * half_waves / 16)
    knots = np.concatenate([[0], np.cumsum(np.tan(np.radians(tangents)) * 13 * 2.2)])
    return np.interp(ROWS, ROWS[::13], knots)


@pytest.mark.parametrize("half_waves", [0, 1, 4, 9])
def test_tangents_of_one_wave_have_one_amplitude(half_waves: int) -> None:
    waves = tangent_waves(_waving(half_waves, 10.0), HEIGHTS)
    # root mean square of a cosine, of a constant its value
    expected = 10 if half_waves == 0 else 10 * math.sqrt(0.5)
    np.testing.assert_allclose(waves, np.eye(10)[half_waves] * expected, atol=1e-9)


def test_a_tilt_to_the_left_on_the_way_down_is_positive_and_rows_must_divide() -> None:
    assert tangent_waves(0.1 * ROWS, HEIGHTS)[0] > 0
    with pytest.raises(ValueError, match="16 equal parts"):
        tangent_waves(np.zeros(200), -np.arange(200.0))
    with pytest.raises(ValueError, match="decreasing"):
        tangent_waves(HEIGHTS, 0.1 * ROWS)


def test_gain_is_the_share_that_is_found() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=(50, 3)) * [10, 2, 0]
    np.testing.assert_allclose(gain(true * [0.6, 0.2, 1], true), [0.6, 0.2, np.nan])
    # what is found beyond the truth and has nothing to do with it is no gain
    assert gain(np.ones((2, 1)), np.array([[1.0], [-1.0]]))[0] == 0


def test_line_through_known_points() -> None:
    true = np.array([0.0, 10, 20, 30])
    assert line_through(true, 5 + 0.6 * true) == pytest.approx((0.6, 1))
    assert line_through(true, -true) == pytest.approx((-1, -1))
    slope, correlation = line_through(true, np.array([0.0, 20, 0, 20]))
    assert slope == pytest.approx(0.4) and correlation == pytest.approx(0.4 * 11.1803 / 10, abs=1e-4)
    assert all(map(math.isnan, line_through(np.ones(4), true))) and math.isnan(line_through(true[:2], true[:2])[0])
    assert line_through(true, np.ones(4))[0] == 0 and math.isnan(line_through(true, np.ones(4))[1])


def test_constant_error_is_taken_apart_from_the_rest() -> None:
    shared = np.where(ROWS < 100, 3.0, -1.0)
    rest = np.array([2.0, -2.0])[:, np.newaxis]
    curve, constant, left = constant_error(shared + rest)
    np.testing.assert_allclose(curve, shared)
    assert constant == pytest.approx((100 * 3 + 109) / 209) and left == pytest.approx(2)


def _group(count: int = 40, *, shrunk: float = 1.0, offset_mm: float = 0.0, seed: int = 0) -> Group:
    """A person whose every angle and tangent is found `shrunk`, with a sagittal centre that is `offset_mm` away."""
    rng = np.random.default_rng(seed)
    group = {name: np.full(count, 2.0) for name in (*MEANS, *BAND_MEANS)}
    group["baseline_sagittal_mae_mm"] = np.full(count, 4.0)
    for angle in ANGLES:
        group[f"true_{angle}_deg"] = rng.uniform(0, 50, count)
        group[f"{angle}_deg"] = shrunk * group[f"true_{angle}_deg"]
    group["true_waves"] = rng.normal(size=(count, 10))
    group["waves"] = shrunk * group["true_waves"]
    noise = rng.normal(size=(count, 209))
    group["sagittal_error_mm"] = offset_mm + noise - noise.mean(axis=0)
    return group


def test_flattened_predictions_have_slope_and_gain_of_what_is_left() -> None:
    found = figures([_group(shrunk=0.6), _group(shrunk=0.6, seed=1)])
    for angle in ANGLES:
        assert found[f"{angle}_slope"] == pytest.approx(0.6) and found[f"{angle}_correlation"] == pytest.approx(1)
    assert [found[f"gain_{k}"] for k in range(10)] == pytest.approx([0.6] * 10)
    assert found["gain_least"] == pytest.approx(0.6)
    true = np.concatenate([_group(seed=k)["true_cobb_deg"] for k in (0, 1)])
    assert found["cobb_bias_deg"] == pytest.approx(-0.4 * true.mean())
    assert found["sagittal_ratio"] == 0.5 and found["iou3d"] == 2


def test_least_gain_looks_at_five_half_waves_and_no_further() -> None:
    group = _group()
    group["waves"] = group["true_waves"] * np.array([1, 1, 1, 1, 1, 0.7, 0.1, 1, 1, 1])
    assert figures([group])["gain_least"] == pytest.approx(0.7)


def test_cobb_slope_stops_at_sixty_degrees() -> None:
    group = _group()
    group["true_cobb_deg"][:5], group["cobb_deg"][:5] = 80.0, 0.0
    found = figures([group])
    assert found["cobb_slope"] == pytest.approx(1) and found["cobb_bias_deg"] == pytest.approx(-80 * 5 / 40)


def test_constant_errors_of_people_do_not_cancel() -> None:
    """Two people who are off to opposite sides have a constant error, though their mean has none."""
    found = figures([_group(offset_mm=3), _group(offset_mm=-3, seed=1)])
    assert found["sagittal_constant_mm"] == pytest.approx(3)
    assert found["sagittal_rest_mm"] == pytest.approx(math.sqrt(2 / math.pi), abs=0.03)


def test_intervals_over_people_hold_the_spread_between_people() -> None:
    groups = [_group(seed=k) for k in range(6)]
    for k, group in enumerate(groups):
        group["cobb_mae_deg"] = np.random.default_rng(k).normal(2.0 + k, 0.1, 40)
    images = bootstrap(groups, over_people=False, resamples=200)["cobb_mae_deg"]
    people = bootstrap(groups, over_people=True, resamples=200)["cobb_mae_deg"]
    assert images[0] < 4.5 < images[1] and images[1] - images[0] < 0.1
    # standard error of the mean of six: 1.71 / sqrt(6), to either side twice
    assert 2.0 < people[1] - people[0] < 3.5 and people[0] < 4.5 < people[1]


def test_images_are_chosen_by_their_true_cobb_angle() -> None:
    low, high = _group(4), _group(2)
    low["true_cobb_deg"], high["true_cobb_deg"] = np.array([1.0, 10, 24.9, 25]), np.array([50.0, 60])
    (chosen,) = chosen_images([low, high], 10, 25)
    np.testing.assert_array_equal(chosen["true_cobb_deg"], [10, 24.9])
    assert chosen["waves"].shape == (2, 10)


def test_row_has_the_known_errors_of_a_moved_curve() -> None:
    truth = make_phantom(10_000_001).truth()
    moved = Curves(truth.z, truth.coronal + [1.0, 2.0, 5.0], truth.sagittal + [0.0, -3.0, 0.0])
    row = yardstick.row_of(agreement.measured(moved), agreement.measured(truth))
    assert row["coronal_centre_mae_mm"] == pytest.approx(2) and row["coronal_borders_mae_mm"] == pytest.approx(3)
    assert row["sagittal_mae_mm"] == pytest.approx(1) and row["sagittal_centre_mae_mm"] == pytest.approx(3)
    np.testing.assert_allclose(row["sagittal_error_mm"], -3)
    np.testing.assert_allclose(row["waves"], row["true_waves"], atol=1e-9)
    for angle in ANGLES:
        assert row[f"{angle}_deg"] == pytest.approx(row[f"true_{angle}_deg"], abs=0.1)


def test_row_has_the_waves_of_the_coronal_centre() -> None:
    truth = Curves(HEIGHTS, _waving(3, 8.0)[:, np.newaxis] + [-20.0, 0, 20], np.zeros((209, 3)) + [-15.0, 0, 15])
    tilted = Curves(HEIGHTS, truth.coronal + 0.22 * ROWS[:, np.newaxis], truth.sagittal)
    row = yardstick.row_of(agreement.measured(tilted), agreement.measured(truth))
    np.testing.assert_allclose(row["true_waves"], np.eye(10)[3] * 8 * math.sqrt(0.5), atol=1e-9)
    # a tenth to the left all the way down, nearly without a change of the wave
    assert row["waves"][0] == pytest.approx(math.degrees(math.atan(0.1)), abs=0.1)
    assert row["waves"][3] == pytest.approx(8 * math.sqrt(0.5), rel=0.03)


def test_targets_are_met_at_their_limit_and_missed_beyond_or_without_a_figure() -> None:
    overall = {figure: least if math.isfinite(least) else 0.0 for _, figure, least, _ in yardstick.TARGETS}
    overall["cobb_bias_deg"] = -1.6
    del overall["sagittal_coverage"]
    judged = {entry["target"]: entry for entry in yardstick.judge_targets(overall, {"a": 0.5, "b": 1.01})}
    missed = {target for target, entry in judged.items() if not entry["met"]}
    assert missed == {"Cobb bias within 1.5 degrees", "sagittal bands hold 0.88 to 0.93", yardstick.WORST}
    assert judged[yardstick.WORST]["person"] == "b"


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    """A folder with names alone: no bone is read from it."""
    for name in ("upper", "lower", "whole"):
        (tmp_path / f"{name}.npz").touch()
    return tmp_path


def test_people_are_the_named_ones_or_each_pack(packs: Path) -> None:
    assert yardstick.choose_people(packs, []) == [("lower",), ("upper",), ("whole",)]
    assert yardstick.choose_people(packs, ["upper,lower", "whole"]) == [("upper", "lower"), ("whole",)]
    for only, said in (
        (["upper,nobody"], "no pack 'nobody' in .*; there are lower, upper, whole$"),
        (["upper,upper"], "two different"),
        (["upper,lower,whole"], "one pack, or two"),
        (["whole", "whole"], "twice"),
    ):
        with pytest.raises(UsageError, match=said):
            yardstick.choose_people(packs, only)
    with pytest.raises(UsageError, match="no packs"):
        yardstick.choose_people(packs / "none", [])


def test_seeds_belong_to_the_person(packs: Path) -> None:
    one, other = yardstick.seeds_of(("upper",), 100), yardstick.seeds_of(("upper", "lower"), 100)
    assert len(one) == 100 and not set(one) & set(other) and min(*one, *other) >= yardstick.PEOPLE_SEED
    with pytest.raises(UsageError, match="at most"):
        yardstick.seeds_of(("upper",), yardstick.SEEDS_PER_PERSON + 1)


def test_an_unknown_name_ends_with_one_line(packs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--people", str(packs), "--only", "nobody"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "lower, upper, whole" in err
    assert evaluate.main(["--only", "whole"]) == 2 and "--people" in capsys.readouterr().err
    assert evaluate.main(["--people", str(packs), "--count", "0"]) == 2


def test_people_that_training_saw_are_refused(
    packs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert yardstick.seen_people({}, [("upper",)]) == []
    manifest = {"training_people": ["lower"]}
    assert yardstick.seen_people(manifest, [("upper", "lower"), ("whole",)]) == [("upper", "lower")]

    monkeypatch.setattr(yardstick, "load_bundle", lambda model: SimpleNamespace(manifest=manifest))
    assert evaluate.main(["--people", str(packs), "--only", "upper,lower"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "upper,lower was in training: no figure on people that training saw counts" in err


@dataclass(frozen=True)
class StandIn(Phantom):
    """An ordinary phantom under a made-up name, in place of a person with bone of a pack."""

    packs: tuple[str, ...]


def _stand_in(seed: int, *packs: str) -> StandIn:
    phantom = make_phantom(seed)
    return StandIn(**{field.name: getattr(phantom, field.name) for field in fields(phantom)}, packs=packs)


@pytest.fixture(scope="module")
def measured(estimator: SpineEstimator) -> dict[str, yardstick.Measured]:
    mean_curve = mean_sagittal(50)
    blank = _stand_in(10_000_040, "made-up one")
    blank.bone[:] = 0
    one = [*(_stand_in(10_000_040 + k, "made-up one") for k in range(1, 6)), blank]
    two = [_stand_in(10_000_050 + k, "made-up two") for k in range(4)]
    return {
        person: yardstick.measure_person(estimator, (person,), scans, mean_curve)
        for person, scans in (("made-up one", one), ("made-up two", two))
    }


@pytest.mark.slow
def test_the_walk_counts_refusals_and_its_own_time(measured: dict[str, yardstick.Measured]) -> None:
    assert [len(found.model) for found in measured.values()] == [5, 4]
    assert [found.refused for found in measured.values()] == [1, 0]
    assert all(found.seconds > 0 for found in measured.values()) and measured["made-up one"].packs == {"made-up one"}
    baseline = measured["made-up two"].baseline
    assert all(row["coronal_mae_mm"] == 0 and row["cobb_mae_deg"] == 0 for row in baseline)
    with pytest.raises(ValueError, match="bone of another"):
        yardstick.measure_person(None, ("made-up one",), [_stand_in(10_000_040, "another")], mean_sagittal(2))  # type: ignore[arg-type]


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of few resamples, where keys and lines are tested and no width of an interval."""
    monkeypatch.setattr(yardstick, "bootstrap", partial(bootstrap, resamples=20))


@pytest.mark.slow
@pytest.mark.usefixtures("few_resamples")
def test_report_has_the_contracts_keys_and_is_plain_json(measured: dict[str, yardstick.Measured]) -> None:
    report = yardstick.summarise(measured)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    contract = {"coronal_mae_mm", "sagittal_mae_mm", "deviation3d_mm", "iou3d", "cobb_mae_deg"}
    assert contract <= set(report) and contract <= set(report["baseline"])
    assert report["count"] == 9 == sum(part["count"] for part in report["severity"].values()) and report["refused"] == 1
    one, two = report["people"].values()
    assert report["sagittal_mae_mm"] == pytest.approx((5 * one["sagittal_mae_mm"] + 4 * two["sagittal_mae_mm"]) / 9)
    assert one["interval_95_people"] is None and len(one["sagittal_constant_curve_mm"]) == 209
    assert one["sagittal_ratio"] == pytest.approx(one["sagittal_mae_mm"] / one["baseline"]["sagittal_mae_mm"])
    # the baseline is told the coronal view
    assert report["baseline"]["gain_least"] == pytest.approx(1) and report["baseline"]["cobb_bias_deg"] == 0
    text = table(report)
    assert "made-up one" in text and "sagittal never worse than the mean curve" in text and "sagittal_coverage" in text
    assert "seen in training" not in text


@pytest.mark.slow
@pytest.mark.usefixtures("few_resamples")
def test_every_line_of_people_that_training_saw_says_so(measured: dict[str, yardstick.Measured]) -> None:
    report = yardstick.summarise(measured, ["made-up two"])
    assert report["seen_in_training"] == ["made-up two"] and report["people"]["made-up two"]["seen_in_training"]
    people, *rest = table(report).split("\n\n")
    assert [line.endswith("(seen in training)") for line in people.splitlines()] == [False, False, False, True, True]
    assert all(line.endswith("(seen in training)") for part in rest for line in part.splitlines())


def test_no_figures_from_refusals_alone() -> None:
    with pytest.raises(UsageError, match="all were refused"):
        yardstick.summarise({"made-up": yardstick.Measured(refused=3)})
