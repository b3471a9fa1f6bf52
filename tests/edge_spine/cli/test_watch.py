"""The verb watch, as far as its arguments go."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_spine.cli import main as cli


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon", "4000"])
def test_a_wrong_poll_interval(seconds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["watch", str(tmp_path), str(tmp_path / "out"), f"--poll={seconds}"]) == 2
    assert "--poll" in capsys.readouterr().err
