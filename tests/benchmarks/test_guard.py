"""benchmarks/guard.py: the runtime's own stages are no dearer than the baseline, and a loss would be seen."""

from __future__ import annotations

import json
import subprocess
import warnings
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.benchmarks.conftest import FOLDER, run_script

STAGES = ["read", "preprocess", "refine", "locate", "reconstruct", "measure", "judge", "json", "preview"]
FIGURES = ["time", "calls", "peak_kb"]


@pytest.fixture
def guard(script: ModuleType) -> ModuleType:
    return script


@pytest.fixture
def baseline() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / "guard.json").read_text(encoding="utf-8"))
    return loaded


def has_commit(commit: str) -> bool:
    """Whether this is a clone with the commit; one of depth 1 may lack it."""
    return subprocess.run(["git", "cat-file", "-e", commit], cwd=FOLDER, check=False).returncode == 0


def test_the_baseline_is_a_commit_of_this_history(baseline: dict[str, Any]) -> None:
    """Of any other one, such as of a branch that was rebased, other clones would compare no times."""
    asked = ["git", "rev-parse", "--is-shallow-repository"]
    if subprocess.run(asked, cwd=FOLDER, capture_output=True, text=True, check=False).stdout.strip() != "false":
        pytest.skip("this is no clone, or one without its history")
    ancestor = ["git", "merge-base", "--is-ancestor", baseline["commit"], "HEAD"]
    assert subprocess.run(ancestor, cwd=FOLDER, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.timing
def test_no_stage_has_become_dearer(tmp_path: Path, baseline: dict[str, Any]) -> None:
    status, printed, found = run_script("guard", tmp_path, statuses=(0, 1))
    assert status == 0, f"dearer than benchmarks/guard.json allows: {', '.join(found['lost'])}\n{printed}"
    assert set(found["stages"]) == set(baseline["stages"]) == set(STAGES)
    assert set(found["times"]) == (set(STAGES) if has_commit(baseline["commit"]) else set())
    if found["made_on"] != baseline["made_on"]:
        warnings.warn("benchmarks/guard.json is of other versions: only times were compared", stacklevel=1)


@pytest.mark.slow
@pytest.mark.timing
def test_a_stage_that_takes_30_per_cent_longer_is_found(tmp_path: Path, baseline: dict[str, Any]) -> None:
    if not has_commit(baseline["commit"]):
        pytest.skip("this clone lacks the commit of benchmarks/guard.json")
    status, printed, found = run_script("guard", tmp_path, "--slower", "preprocess", statuses=(0, 1))
    assert status == 1 and found["lost"] == ["preprocess, time"], printed
    assert "preprocess, time: LOST" in printed


def dearer(baseline: dict[str, Any], stage: str, figure: str, factor: float) -> dict[str, Any]:
    """Figures like the baseline's, of which one has grown."""
    found = deepcopy(baseline)
    found["times"] = {name: {"here_over_other": {"ratio": 1.0}} for name in STAGES}
    if figure == "time":
        found["times"][stage]["here_over_other"]["ratio"] = factor
    else:
        found["stages"][stage][figure] *= factor
    return found


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("stage", STAGES)
def test_more_than_15_per_cent_is_a_loss(guard: ModuleType, baseline: dict[str, Any], stage: str, figure: str) -> None:
    def lost(factor: float) -> list[str]:
        return [name for name, _ in guard.losses(dearer(baseline, stage, figure, factor), baseline)]

    assert lost(1.16) == [f"{stage}, {figure}"]
    assert lost(1.14) == lost(0.5) == []


@pytest.mark.parametrize("change", [{"system": "Linux aarch64"}, {"versions": {"python": "3.99"}}])
def test_counts_are_compared_with_the_same_versions_alone(
    guard: ModuleType, baseline: dict[str, Any], change: dict[str, Any]
) -> None:
    for figure in FIGURES:
        found = dearer(baseline, "read", figure, 1.16)
        found["made_on"] |= change
        assert bool(guard.losses(found, baseline)) == (figure == "time")


def test_without_the_commit_no_times_are_compared(guard: ModuleType, tmp_path: Path) -> None:
    assert not guard.package_of("0" * 40, tmp_path)
    assert guard.times_over("0" * 40) == {}


def test_the_package_of_a_commit_is_unpacked(guard: ModuleType, tmp_path: Path) -> None:
    if not has_commit("HEAD"):
        pytest.skip("this is no clone")
    assert guard.package_of("HEAD", tmp_path)
    assert (tmp_path / "edge_spine/estimator.py").is_file()


def test_only_what_is_committed_becomes_the_baseline(
    guard: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guard, "ROOT", tmp_path)
    monkeypatch.setattr(guard, "BASELINE", tmp_path / "guard.json")
    monkeypatch.setattr(guard, "counted", lambda: {"commit": "1", "made_on": {}, "stages": {}})

    def git(*arguments: str) -> None:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a", "-C", str(tmp_path), *arguments]
        subprocess.run(command, check=True, capture_output=True)

    def refused() -> bool:
        with pytest.raises(SystemExit, match="2"):
            guard.main(["--update"])
        return "committed" in capsys.readouterr().err and not guard.BASELINE.exists()

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert refused()
    (tmp_path / "edge_spine").mkdir()
    (tmp_path / "edge_spine/a.py").touch()
    git("init")
    assert refused()
    git("add", ".")
    git("commit", "--message", "one")
    assert guard.main(["--update"]) == 0 and guard.BASELINE.exists()


def test_calls_and_memory_are_the_same_every_time(guard: ModuleType) -> None:
    def work() -> int:
        return len(sorted(bytes(100_000)))

    work()
    assert guard.calls_of(work) == guard.calls_of(work) >= 3
    assert guard.peak_of(work) == pytest.approx(guard.peak_of(work), abs=1) == pytest.approx(900, abs=5)
