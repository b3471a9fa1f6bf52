"""500 damaged files; `benchmarks/fuzz.py` is the same with 20,000."""

from __future__ import annotations

import pytest
from fuzz import LIMIT_MB, fuzz, seeds

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


def test_the_cases_start_from_files_of_every_kind() -> None:
    kinds = {data[:2] for data in seeds()}
    assert b"PK" in kinds and b"\x93N" in kinds
    assert len(seeds()) >= 12
