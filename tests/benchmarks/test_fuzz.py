"""500 damaged files; `benchmarks/fuzz.py` is the same with 20,000."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import fuzz as script
import pytest
from fuzz import LIMIT_MB, fuzz, seeds

from edge_spine.errors import InputUnavailable

CASES = 500


@pytest.mark.slow
def test_damaged_files_crash_nothing_hang_nothing_and_fill_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    found = fuzz(seed=7, numbers=range(CASES))
    assert found.failures == []
    assert sum(found.outcomes.values()) == CASES
    # cases that are all refused at the door would show nothing
    assert found.outcomes["scan"] > 50 and found.outcomes["unreadable"] > 50
    if found.peak_mb is not None and found.baseline_mb is not None:
        assert found.peak_mb - found.baseline_mb < LIMIT_MB
    assert capfd.readouterr() == ("", "")


def _work(data: bytes, folder: Path) -> str:
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    return "scan"


def _wait(data: bytes, folder: Path) -> str:
    time.sleep(0.3)
    return "scan"


@pytest.mark.parametrize(
    ("limits", "outcome", "fails"),
    [((0.1, 9.0), _work, True), ((0.1, 9.0), _wait, False), ((0.1, 0.2), _wait, True), ((9.0, 9.0), _work, False)],
)
def test_work_and_waiting_have_limits_of_their_own(
    limits: tuple[float, float], outcome: Any, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "seeds", list)
    monkeypatch.setattr(script, "case", lambda *_: b"")
    monkeypatch.setattr(script, "outcome", outcome)
    monkeypatch.setattr(script, "LIMIT_S", limits[0])
    monkeypatch.setattr(script, "LIMIT_WAITING_S", limits[1])
    assert bool(fuzz(1, range(1)).failures) is fails


@pytest.mark.parametrize("busy", [2, 3])
def test_a_decoder_that_does_not_start_in_time_is_asked_again(busy: int, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([InputUnavailable("not now")] * busy + ["scan"])

    def outcome(data: bytes, folder: Path) -> str:
        if isinstance(answer := next(answers), Exception):
            raise answer
        return answer

    monkeypatch.setattr(script, "seeds", list)
    monkeypatch.setattr(script, "case", lambda *_: b"")
    monkeypatch.setattr(script, "outcome", outcome)
    assert bool(fuzz(1, range(1)).failures) is (busy == 3)


def test_the_cases_start_from_files_of_every_kind() -> None:
    kinds = {data[:2] for data in seeds()}
    assert b"PK" in kinds and b"\x93N" in kinds
    assert len(seeds()) >= 12
