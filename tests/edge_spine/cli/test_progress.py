"""Bar and summary."""

from __future__ import annotations

import sys

import pytest

from edge_spine.cli.progress import Progress, _duration
from edge_spine.runner import Report


def test_the_share_of_each_refusal_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    progress = Progress(quiet=False)
    progress.begin(9)
    for status, code in (("done", None), ("refused", "no-spine"), ("refused", "not-dxa"), ("refused", "not-dxa")):
        progress.count(Report("a", status, code))
    progress.show("scan-5")
    assert " left, 50.0 % not-dxa, 25.0 % no-spine, scan-5" in capsys.readouterr().err
    progress.summarise()
    rows = [line.split() for line in capsys.readouterr().err.splitlines()]
    assert ["refused", "not-dxa", "2", "50.0", "%"] in rows and ["done", "1", "25.0", "%"] in rows


def test_a_failure_without_a_code_of_its_own_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(quiet=False)
    progress.begin(3)
    for code in (None, "failed", "worker-died"):
        progress.count(Report("a", "failed", code))
    progress.summarise()
    rows = [line.split() for line in capsys.readouterr().err.splitlines()]
    assert rows[:2] == [["failed", "2", "66.7", "%"], ["failed", "worker-died", "1", "33.3", "%"]]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (61, "1:01 min"), (3599.6, "1:00 h"), (7384, "2:03 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert _duration(seconds) == text
