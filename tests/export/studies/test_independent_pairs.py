"""The command that measures and times the alignment of independent pairs, and how it counts wrong placements."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from export.studies.independent_pairs import IndependentPair, Measured, draw_pair, main, measure, summary, within_limits
from export.training.phantoms.phantom import make_phantom
from export.training.phantoms.scanner import IDXA

SEED = 51_000_000
RIGHT = Measured(1, None, 0.1, 0.5, 0.4, 0.4, 2.0, 100_000, 50_000)


@pytest.fixture(scope="module")
def pair() -> IndependentPair:
    return draw_pair(partial(make_phantom, scanner=IDXA), SEED)


def test_skipped_and_misplaced_pairs_are_not_right() -> None:
    skipped = Measured(2, "spine-ends", None, None, None, None, 1.0, 0, 0)
    measured = [RIGHT, replace(RIGHT, angle_deg=0.31), replace(RIGHT, shift_px=1.1), skipped]
    assert within_limits(measured) == 0.25
    said = summary(measured)
    assert "4 pairs, 25.0 % [4.6, 69.9]" in said and "1 skipped {'spine-ends': 1}" in said
    assert "1.75 s of one core" in said and "15 core-hours" in said and "2.2 GB of shards" in said


@pytest.mark.slow
def test_a_pair_is_measured_against_its_truth(pair: IndependentPair, tmp_path: Path) -> None:
    found = measure(pair, tmp_path)
    assert found.code is None and within_limits([found]) == 1
    assert found.coronal_mm is not None and found.coronal_mm < 2.5
    assert found.sagittal_mm is not None and found.sagittal_mm < 2
    assert found.seconds > 0 and found.sample_bytes > 50_000 and found.picture_bytes > 10_000
    # the truth of another place
    moved = replace(pair, truth=replace(pair.truth, offset_mm=(pair.truth.offset_mm[0], pair.truth.offset_mm[1] + 9)))
    assert within_limits([measure(moved, tmp_path)]) == 0


@pytest.mark.slow
def test_a_pair_that_is_mirrored_is_counted_with_its_reason(pair: IndependentPair, tmp_path: Path) -> None:
    flipped = replace(pair, volume=np.flip(pair.volume, 1).copy(), mask=np.flip(pair.mask, 1).copy())
    assert measure(flipped, tmp_path).code == "front-and-back"


@pytest.mark.slow
def test_the_command_prints_accuracy_and_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "1", "--seed", str(SEED), "--json", str(tmp_path / "figures.json")]) == 0
    said = capsys.readouterr().out
    assert "1 pairs, 100.0 % [20.7, 100.0]" in said and "core-hours" in said
    (one,) = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert one["seed"] == SEED and one["code"] is None
