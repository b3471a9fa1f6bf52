"""The verb watch: its arguments, and what it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_spine.cli import main as cli
from tests.edge_spine.cli.running import SPACING, called


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon", "4000"])
def test_a_wrong_poll_interval(seconds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["watch", str(tmp_path), str(tmp_path / "out"), f"--poll={seconds}"]) == 2
    assert "--poll" in capsys.readouterr().err


def test_what_is_left_incomplete_once_is_reported(fake_model: Path, scan_file: Path, tmp_path: Path) -> None:
    """A job that runs again and again with --once is never there long enough to refuse it."""
    pytest.importorskip("filelock", reason="pip install '.[node]'")
    folder = scan_file.parent
    (folder / "cut.npy").write_bytes(scan_file.read_bytes()[:5000])
    (folder / "empty.npy").touch()
    options = ("--poll", "0.02", "--write", "json", "--model", fake_model, "--pixel-spacing", SPACING)
    ended = called("watch", folder, tmp_path / "out", "--once", *options)
    assert ended.returncode == 1
    assert [line.split(";")[0] for line in ended.stdout.splitlines()[1:]] == [
        f"failed: {name}.npy: the file is incomplete, damaged or encrypted" for name in ("cut", "empty")
    ]
    assert sorted(path.name for path in folder.glob("*.npy")) == ["cut.npy", "empty.npy"]
