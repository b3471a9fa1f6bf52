"""The verb compare."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import pytest
from pydicom import dcmread

from edge_spine.cli import compare as verb
from edge_spine.cli import main as cli
from tests.edge_spine.fake_result import fake_result, phantom_pixels


@pytest.mark.slow
def test_the_command_writes_picture_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="an engine is needed: pip install '.[cpu]'")
    scan = str(Path(cli.__file__).parents[1] / "data" / "synthetic_whole_body.dcm")
    assert cli.main(["compare", scan, scan, "--out", str(tmp_path / "change")]) == 0
    shown = capsys.readouterr().out
    assert "max_cobb_deg" in shown and "+0.0   within " in shown
    assert sorted(path.name for path in (tmp_path / "change").iterdir()) == ["comparison.json", "comparison.png"]
    picture = cv2.imread(str(tmp_path / "change" / "comparison.png"))
    assert picture is not None and picture.shape == (1000, 1600, 3)


@pytest.mark.hazard("two-persons")
@pytest.mark.parametrize("anyway", [False, True])
def test_two_persons_are_compared_only_where_it_is_said(
    anyway: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundled = dcmread(Path(cli.__file__).parents[1] / "data" / "synthetic_whole_body.dcm")
    paths = [tmp_path / "one.dcm", tmp_path / "other.dcm"]
    for number, path in enumerate(paths):
        bundled.PatientID, bundled.SOPInstanceUID = f"SECRET-{number}", f"2.25.{number}"
        bundled.save_as(path)
    loaded = []
    monkeypatch.setattr(
        verb, "load_estimator", lambda _: loaded.append(1) or nullcontext(lambda scan: with_header(scan))
    )
    options = ["--different-persons"] if anyway else []
    out = tmp_path / "change"
    assert cli.main(["compare", *map(str, paths), "--out", str(out), *options]) == (0 if anyway else 1)
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1 and "different patients" in shown and "SECRET" not in shown
    assert out.exists() is bool(loaded) is anyway


@pytest.mark.parametrize("copied", [True, False])
def test_one_scan_twice_is_said(
    copied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its changes are all within the error, whatever the person's are."""
    bundled = dcmread(Path(cli.__file__).parents[1] / "data" / "synthetic_whole_body.dcm")
    bundled.save_as(tmp_path / "a.dcm")
    # exported again, with another header
    bundled.StationName = "" if copied else "PACS"
    bundled.save_as(tmp_path / "b.dcm")
    monkeypatch.setattr(verb, "load_estimator", lambda _: nullcontext(lambda scan: with_header(scan)))
    first, second = str(tmp_path / "a.dcm"), str(tmp_path / ("a.dcm" if copied else "b.dcm"))
    assert cli.main(["compare", first, second]) == 0
    assert "both files hold the same scan" in capsys.readouterr().err


def test_the_later_scan_first_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundled = dcmread(Path(cli.__file__).parents[1] / "data" / "synthetic_whole_body.dcm")
    for year in (2023, 2024):
        bundled.StudyDate, bundled.SOPInstanceUID = f"{year}0101", f"2.25.{year}"
        bundled.save_as(tmp_path / f"{year}.dcm")
    monkeypatch.setattr(verb, "load_estimator", lambda _: nullcontext(lambda scan: with_header(scan)))
    earlier, later = (str(tmp_path / f"{year}.dcm") for year in (2023, 2024))
    assert cli.main(["compare", later, earlier]) == 0
    assert "365 days older than the first" in capsys.readouterr().err
    assert cli.main(["compare", earlier, later]) == 0
    assert capsys.readouterr().err == ""


def with_header(scan: Any) -> Any:
    result = fake_result(pixels=phantom_pixels())
    result.scan.header = scan.header
    return result


def test_the_command_refuses_what_run_refuses(
    fake_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.dcm"
    wrong.write_bytes(b"no scan")
    scan = str(Path(cli.__file__).parents[1] / "data" / "synthetic_whole_body.dcm")
    arguments = ["compare", scan, str(wrong), "--model", str(fake_model), "--out", str(tmp_path / "change")]
    assert cli.main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("edge-spine: refused (unreadable): wrong.dcm: ")
    assert not (tmp_path / "change").exists()
