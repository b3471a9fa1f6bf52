"""benchmarks/guard.py: the runtime's own stages are no dearer than the stored baseline, and a loss would be seen."""

from __future__ import annotations

import json
import warnings
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.benchmarks.conftest import run_script

ROOT = Path(__file__).resolve().parents[2]
GUARD = ROOT / "benchmarks/guard.py"
STAGES = ["read", "preprocess", "refine", "locate", "reconstruct", "measure", "judge", "json", "preview"]


@pytest.fixture
def guard(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    return script


@pytest.fixture
def baseline() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(GUARD.with_suffix(".json").read_text(encoding="utf-8"))
    return loaded


def run(folder: Path, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    """Run it in a process of its own, since modules loaded by other tests change the figures."""
    return run_script("guard", folder, *arguments, statuses=(0, 1))


@pytest.mark.slow
@pytest.mark.timing
def test_no_stage_has_become_dearer(tmp_path: Path, baseline: dict[str, Any]) -> None:
    status, printed, found = run(tmp_path)
    assert status == 0, f"dearer than benchmarks/guard.json allows: {', '.join(found['lost'])}\n{printed}"
    assert set(found["stages"]) == set(baseline["stages"])
    if found["made_on"]["versions"] != baseline["made_on"]["versions"]:
        warnings.warn("benchmarks/guard.json is of other versions: only ratios were compared", stacklevel=1)


@pytest.mark.slow
@pytest.mark.timing
def test_a_stage_that_takes_30_per_cent_longer_is_found(tmp_path: Path, baseline: dict[str, Any]) -> None:
    _, printed, found = run(tmp_path, "--slower", "preprocess")
    growth = found["stages"]["preprocess"]["ratio"] / baseline["stages"]["preprocess"]["ratio"]
    if found["made_on"] | {"date": ""} == baseline["made_on"] | {"date": ""}:
        assert "preprocess, ratio" in found["lost"], printed
        assert "LOST" in printed
    else:
        assert growth > 1  # what else it is depends on the machine


def dearer(found: dict[str, Any], stage: str, figure: str, factor: float) -> dict[str, Any]:
    other = deepcopy(found)
    other["stages"][stage][figure] *= factor
    return other


@pytest.mark.parametrize("figure", ["ratio", "calls", "peak_kb"])
@pytest.mark.parametrize("stage", STAGES)
def test_more_than_15_per_cent_is_a_loss(guard: ModuleType, baseline: dict[str, Any], stage: str, figure: str) -> None:
    def lost(factor: float) -> list[tuple[str, str]]:
        rows = guard.compared(dearer(baseline, stage, figure, factor), baseline)
        return [(row.stage, row.figure) for row in rows if row.lost]

    assert lost(1.16) == [(stage, figure)]
    assert lost(1.14) == lost(0.5) == []


@pytest.mark.parametrize(
    ("change", "judged"),
    [
        ({}, {"ratio": 0.15, "calls": 0.15, "peak_kb": 0.15}),
        ({"processor": "another"}, {"ratio": 0.5, "calls": 0.15, "peak_kb": 0.15}),
        ({"versions": {"python": "3.99"}}, {"ratio": 0.5, "calls": None, "peak_kb": None}),
        ({"system": "Linux aarch64"}, {"ratio": None, "calls": None, "peak_kb": None}),
    ],
)
def test_what_is_compared_depends_on_the_machine(
    guard: ModuleType, baseline: dict[str, Any], change: dict[str, Any], judged: dict[str, float | None]
) -> None:
    elsewhere = deepcopy(baseline)
    elsewhere["made_on"] |= change
    assert {row.figure: row.limit for row in guard.compared(elsewhere, baseline)} == judged


def test_calls_and_memory_are_the_same_every_time(guard: ModuleType) -> None:
    def work() -> int:
        return len(sorted(bytes(100_000)))

    work()
    assert guard.calls_of(work) == guard.calls_of(work) >= 3
    assert guard.peak_of(work) == pytest.approx(guard.peak_of(work), abs=1) == pytest.approx(900, abs=5)
