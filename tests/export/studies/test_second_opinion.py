"""The second opinion: differences and rank correlations, and a short real run on phantoms."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edge_spine.network import CURVE_ROWS
from export.studies.second_opinion import (
    DISTURBANCES,
    ERRORS,
    Opinion,
    correlation,
    differences,
    disturb,
    main,
    measure,
    mirrored_back,
    resampled,
    sagittal_difference,
    table,
)
from export.training.dataset import CROP_SIZE, target_of


def _curves() -> np.ndarray:
    row = np.linspace(0, 1, len(CURVE_ROWS))
    columns = [90 + 9 * row, 105 + 9 * row, 118 + 9 * row, 8 * row**2 - 12, 8 * row**2, 8 * row**2 + 12]
    return np.stack(columns, axis=1).astype(np.float32)


def test_a_mirrored_answer_is_turned_back() -> None:
    curves = _curves()
    mirrored = curves.copy()
    mirrored[:, :3] = (CROP_SIZE - 1) - curves[:, 2::-1]
    np.testing.assert_allclose(mirrored_back(target_of(mirrored)), target_of(curves), atol=1e-6)


def test_differences_are_in_mm_and_ignore_the_place() -> None:
    answer = target_of(_curves())
    moved = answer.copy()
    moved[:, 3:] += 0.1
    assert sagittal_difference(answer, moved, 2.0) == pytest.approx({"centre": 0, "all columns": 0}, abs=1e-4)
    moved[:, 5] += 6 / CROP_SIZE
    assert sagittal_difference(answer, moved, 2.0) == pytest.approx({"centre": 0, "all columns": 4}, abs=1e-3)
    found = differences((answer, answer), (moved, answer), 2.0)
    assert found["all columns"] == pytest.approx((4, 2), abs=1e-3)


@pytest.mark.parametrize("bits", [8, 12])
def test_disturbances_change_the_scan_and_keep_its_type(bits: int) -> None:
    kind = np.uint8 if bits == 8 else np.uint16
    pixels = np.random.default_rng(0).integers(1, 2**bits - 1, (300, 100)).astype(kind)
    pixels[:, :2] = 0
    for name in DISTURBANCES:
        changed = disturb(np.random.default_rng(1), pixels, bits, name)
        assert changed.dtype == kind and changed.shape == pixels.shape and changed.max() < 2**bits
        assert np.array_equal(changed, pixels) == (name == "as scanned")
    cut = disturb(np.random.default_rng(1), pixels, bits, "cut end")
    assert 6 <= (cut == 0).all(axis=1).sum() <= 36
    with pytest.raises(ValueError, match="none of"):
        disturb(np.random.default_rng(1), pixels, bits, "tilt")


def test_people_are_resampled_with_all_their_images() -> None:
    people = ["a", "b", "a", "c"]
    seen = set()
    for images in resampled(people, 50):
        drawn = [people[k] for k in images]
        assert drawn.count("a") % 2 == 0
        assert sorted(images[np.array(drawn) == "a"])[: drawn.count("a") // 2] == [0] * (drawn.count("a") // 2)
        seen.add(tuple(drawn))
    assert len(seen) > 5


@pytest.mark.slow
def test_intervals_are_over_people() -> None:
    rng = np.random.default_rng(0)
    # within a person nothing is told, between two people all
    error = np.repeat([0.0, 10.0], 100) + rng.random(200)
    signal = np.repeat([0.0, 10.0], 100) + rng.random(200)
    apart = correlation(signal, error, [str(k) for k in range(200)], 500)
    together = correlation(signal, error, ["a"] * 100 + ["b"] * 100, 500)
    assert apart[0] == together[0] > 0.7
    assert apart[1] > 0.6 and together[1] < 0.2


def _opinions(group: str, people: int, gain: float) -> list[Opinion]:
    rng = np.random.default_rng(people)
    found = []
    for person in range(people):
        for disturbance in DISTURBANCES:
            error = float(rng.gamma(2.0))
            pairs = {"centre": (gain * error + float(rng.random()), float(rng.random()))}
            pairs["all columns"] = (float(rng.random()), float(rng.random()))
            found.append(Opinion(f"{group} {person}", group, disturbance, dict.fromkeys(ERRORS, error), pairs))
    return found


@pytest.mark.slow
def test_the_columns_that_tell_more_are_kept() -> None:
    report = measure(_opinions("phantoms", 100, 5.0) + _opinions("people", 12, 5.0), draws=20)
    assert report["kept"] == "centre"
    groups = report["columns"]["centre"]["groups"]
    assert set(groups) == {
        f"{group}, {part}" for group in ("phantoms", "people") for part in ("as scanned", "disturbed", "all")
    }
    for row in groups.values():
        assert row["networks"]["sagittal_mm"][0] > 0.85
        assert abs(row["mirror"]["sagittal_mm"][0]) < 0.6
        assert row["networks"]["sagittal_mm"][0] > row["both"]["sagittal_mm"][0] > row["mirror"]["sagittal_mm"][0]
    count = report["count"]
    assert count["phantoms, as scanned"] + count["phantoms, disturbed"] == count["phantoms, all"] == 500
    assert table(report).startswith("Sagittal columns: centre (kept)")
    with pytest.raises(ValueError, match="no undisturbed phantom"):
        measure(_opinions("people", 12, 5.0))


@pytest.mark.slow
def test_the_script_runs_on_phantoms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.studies.second_opinion.DISTURBANCES", ("as scanned", "noise", "cut end"))
    monkeypatch.setattr("export.studies.second_opinion.measure", partial(measure, draws=20))
    assert main(["--count", "3", "--threads", "1", "--json", str(tmp_path / "report.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["count"]["phantoms, as scanned"] == 3
    assert all(0 < scale < 20 for scale in report["columns"][report["kept"]]["scale_mm"])
    assert "| phantoms, all" in capsys.readouterr().out


def test_people_need_names() -> None:
    with pytest.raises(SystemExit):
        main(["--people", "packs"])
