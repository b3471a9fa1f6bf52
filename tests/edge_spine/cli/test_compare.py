"""The verb compare."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from edge_spine.cli import main as cli


@pytest.mark.slow
def test_the_command_writes_picture_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="an engine is needed: pip install '.[cpu]'")
    scan = str(Path(cli.__file__).parents[1] / "data" / "synthetic_whole_body.dcm")
    assert cli.main(["compare", scan, scan, "--out", str(tmp_path / "change")]) == 0
    shown = capsys.readouterr().out
    assert "max_cobb_deg" in shown and "+0.0   within 6 deg" in shown
    assert sorted(path.name for path in (tmp_path / "change").iterdir()) == ["comparison.json", "comparison.png"]
    picture = cv2.imread(str(tmp_path / "change" / "comparison.png"))
    assert picture is not None and picture.shape == (1000, 1600, 3)


def test_the_command_refuses_what_run_refuses(
    fake_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.dcm"
    wrong.write_bytes(b"no scan")
    scan = str(Path(cli.__file__).parents[1] / "data" / "synthetic_whole_body.dcm")
    arguments = ["compare", scan, str(wrong), "--model", str(fake_model), "--out", str(tmp_path / "change")]
    assert cli.main(arguments) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "change").exists()
