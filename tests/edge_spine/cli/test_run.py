from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_spine.cli import main as cli
from edge_spine.result import schema
from tests.edge_spine.cli.running import PACKAGE, PATIENT, SPACING, STAGES, called, command
from tests.edge_spine.fake_result import phantom_pixels


def test_an_unknown_output_names_the_known_ones(scan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", str(scan_file), "--out", "x", "--write", "json,docx"]) == 2
    shown = capsys.readouterr().err
    assert "'docx'" in shown
    assert "json, ply, png" in shown


def test_the_command_leaves_decoders_and_downloaders_to_those_who_use_them(tmp_path: Path) -> None:
    for name in ("requests", "gdcm"):
        (tmp_path / f"{name}.py").write_text("print('imported')", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(PACKAGE.parent)])}

    def imported(*arguments: str) -> int:
        ended = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=True, timeout=120
        )
        return ended.stdout.count("imported")

    assert (
        imported("-m", "edge_spine", "demo", "--out", str(tmp_path / "out"), "--write", "json", "--model", "lite") == 0
    )
    alone = "from edge_spine.cli.run import import_pydicom_alone; import_pydicom_alone()"
    assert imported("-c", f"{alone}; import pydicom, requests, gdcm") == 2


def test_a_folder_without_scans_is_nothing_to_do(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
    ended = called("run", tmp_path, "--out", tmp_path / "out")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "no scan found" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file_is_wrong_usage(scan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", str(scan_file), "--out", str(scan_file)]) == 2
    assert "a folder is expected" in capsys.readouterr().err


@pytest.mark.slow
def test_a_scan_becomes_its_outputs(fake_model: Path, scan_file: Path, tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    out = tmp_path / "out"
    ended = command("run", scan_file, "--out", out, "--model", fake_model, "--pixel-spacing", SPACING)
    assert (ended.returncode, ended.stderr) == (0, "")
    (line,) = ended.stdout.splitlines()
    assert line.startswith("done: body.npy: largest curve ")
    assert sorted(path.name for path in (out / "body").iterdir()) == [
        "preview.png",
        "result.json",
        "spine.ply",
    ]
    written = json.loads((out / "body" / "result.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema()).validate(written)
    assert written["timing_ms"]["read"] > 0
    assert written["timing_ms"]["write"] > 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("streams", [">/dev/full", "2>/dev/full", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_cannot_be_written_cost_no_scan(
    fake_model: Path, scan_file: Path, tmp_path: Path, streams: str
) -> None:
    shutil.copy(scan_file, scan_file.with_name("second.npy"))
    arguments = [
        *("run", scan_file.parent, "--out", tmp_path / "out", "--model", fake_model),
        "--pixel-spacing",
        SPACING,
    ]
    ended = subprocess.run(
        ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-m", "edge_spine", *map(str, arguments)],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    for name in ("body", "second"):
        assert len(list((tmp_path / "out" / name).iterdir())) == 3
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("reports are lost there") == (streams == ">/dev/full")


def test_what_is_left_out_is_named_on_stderr(
    several: Path, tmp_path: Path, fake_estimator: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (several / "notes.txt").write_text("no image", encoding="utf-8")
    cli.main(["run", str(several), "--out", str(tmp_path / "out"), "--pixel-spacing", SPACING])
    assert "left out: 1 no image (notes.txt)" in capsys.readouterr().err


def test_own_pictures_are_not_read_again(
    several: Path, fake_estimator: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results among the scans, without a result.json beside them."""
    arguments = ["run", str(several), "--out", str(several), "--pixel-spacing", SPACING, "--write", "png"]
    for again in (False, True):
        cli.main(arguments)
        shown = capsys.readouterr()
        assert len(shown.out.splitlines()) == 4
        assert ("2 written by edge-spine (preview.png, preview.png)" in shown.err) is again


def test_json_lines_hold_what_the_contract_names(fake_model: Path, scan_file: Path, tmp_path: Path) -> None:
    shutil.copy(scan_file, scan_file.with_name("café\u2028.npy"))
    (scan_file.parent / "broken.npy").write_bytes(b"\x93NUMPY broken")
    out = tmp_path / "out"
    options = ("--model", fake_model, "--pixel-spacing", SPACING, "--json", "--write", "json")
    ended = called("run", scan_file.parent, "--out", out, *options)
    assert ended.returncode == 1
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["status"] for line in lines] == ["done", "refused", "done"]
    for line in lines:
        assert set(line) == {"source", "status", "code", "message", "outputs", "timing_ms", "path"}
        assert set(line["timing_ms"]) == STAGES
        assert line["timing_ms"]["total"] > 0
        assert line["source"] in line["message"]
    done, refused, _ = lines
    assert done["code"] is None
    assert [Path(path).name for path in done["outputs"]] == ["result.json"]
    assert all(Path(path).is_file() for path in done["outputs"])
    assert (refused["source"], refused["code"], refused["outputs"]) == ("broken.npy", "unreadable", [])
    assert not (out / "broken").exists()


def test_running_again_replaces_the_outputs(fake_model: Path, scan_file: Path, tmp_path: Path) -> None:
    arguments = ["run", str(scan_file), "--out", str(tmp_path), "--pixel-spacing", SPACING, "--write", "json"]
    arguments += ["--model", str(fake_model)]
    assert cli.main(arguments) == 0
    written = tmp_path / "body" / "result.json"
    written.write_text("old", encoding="utf-8")
    assert cli.main(arguments) == 0
    assert json.loads(written.read_text(encoding="utf-8"))["schema"] == "edge-spine/result/2"


@pytest.mark.hazard("names-collide")
@pytest.mark.usefixtures("fake_estimator")
def test_scans_of_one_name_never_share_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One run of three patients' folders, then each alone with other formats, into one folder of results."""
    for number in range(3):
        (tmp_path / f"p{number}").mkdir()
        np.save(tmp_path / f"p{number}" / "11.npy", phantom_pixels() + number)
    out = tmp_path / "out"

    def owners(*arguments: str) -> set[tuple[str, str]]:
        assert cli.main(["run", *arguments, "--out", str(out), "--pixel-spacing", SPACING, "--json"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return {(line["path"], str(Path(path).parent)) for line in lines for path in line["outputs"]}

    found = owners(*(str(tmp_path / f"p{number}") for number in range(3)), "--write", "json,ply")
    for number in (0, 1, 2, 1):
        found |= owners(str(tmp_path / f"p{number}" / "11.npy"), "--write", "stl,csv")
        found |= owners(str(tmp_path / f"p{number}" / "11.npy"), "--write", "json,png")
    scans_of: dict[str, set[str]] = {}
    for path, folder in found:
        scans_of.setdefault(folder, set()).add(path)
    assert all(len(paths) == 1 for paths in scans_of.values()), scans_of
    for folder, (path,) in scans_of.items():
        if Path(folder, "result.json").exists():
            scan = json.loads(Path(folder, "result.json").read_text())["scan"]
            assert scan["path"] == path
            assert scan["sha256"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_a_file_without_spacing_is_refused_by_name(fake_model: Path, scan_file: Path, tmp_path: Path) -> None:
    ended = called("run", scan_file, "--out", tmp_path / "out", "--model", fake_model)
    assert ended.returncode == 1
    assert ended.stdout.startswith("refused (no-spacing): body.npy: ")
    assert len(ended.stdout.splitlines()) == 1
    assert ended.stderr == ""
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_a_failure_and_no_verdict(
    fake_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone.dcm"
    assert cli.main(["run", str(gone), "--out", str(tmp_path), "--model", str(fake_model)]) == 1
    assert capsys.readouterr().out.startswith("failed: gone.dcm: there is no such file")


def test_the_detectors_spacing_is_for_those_who_ask(
    fake_model: Path, make_dicom: Callable[..., bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scan.dcm"
    pixels = phantom_pixels().round().astype(np.uint8)
    path.write_bytes(make_dicom(pixels, ExposedArea=None, ImagerPixelSpacing=[2.427, 2.419]))
    arguments = ["run", str(path), "--out", str(tmp_path / "out"), "--model", str(fake_model), "--engine", "onnx-cpu"]
    assert cli.main(arguments) == 1
    assert "no-spacing" in capsys.readouterr().out
    assert cli.main([*arguments, "--imager-spacing", "--write", "json"]) == 0
    assert "imager-pixel-spacing" in capsys.readouterr().out


@pytest.mark.hazard("bad-file")
@pytest.mark.usefixtures("fake_estimator")
def test_one_bad_scan_does_not_stop_the_others(
    several: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(["run", str(several), "--out", str(out), "--pixel-spacing", SPACING]) == 1
    shown = capsys.readouterr()
    starts = [
        "done: a.npy: ",
        "failed: crash.npy: ValueError",
        "refused (no-spine): refuse.npy: ",
        "done: z.npy",
    ]
    lines = shown.out.splitlines()
    assert len(lines) == len(starts)
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True))
    assert "trunk-leans" in lines[0]
    assert sorted(path.name for path in out.iterdir()) == ["a", "z"]
    assert PATIENT not in shown.out + shown.err
    assert "Traceback" not in shown.err
    assert len(shown.err.splitlines()) == 4, "more than the summary"


@pytest.mark.usefixtures("fake_estimator")
def test_verbose_shows_where_but_nothing_of_the_patient(
    several: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(several / "crash.npy"), "--out", str(tmp_path), "--pixel-spacing", SPACING, "-v"]
    assert cli.main(arguments) == 1
    shown = capsys.readouterr()
    assert "ValueError" in shown.err
    assert "conftest.py" in shown.err
    assert PATIENT not in shown.out + shown.err
    assert len(shown.out.splitlines()) == 1


@pytest.mark.usefixtures("fake_estimator")
def test_an_interruption_ends_with_130_and_keeps_what_is_done(
    several: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(several / "interrupt.npy", phantom_pixels())
    out = tmp_path / "out"
    arguments = ["run", str(several / "a.npy"), str(several / "interrupt.npy"), str(several / "z.npy")]
    assert cli.main([*arguments, "--out", str(out), "--pixel-spacing", SPACING]) == 130
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 1
    assert shown.err == "edge-spine: interrupted\n"
    assert [path.name for path in out.iterdir()] == ["a"]
    assert all(not path.name.endswith(".partial") for path in (out / "a").iterdir())


@pytest.mark.usefixtures("fake_estimator")
def test_an_output_that_cannot_be_written_fails_that_scan_only(
    several: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").write_text("a file where a folder should be", encoding="utf-8")
    arguments = [
        str(several / "a.npy"),
        str(several / "z.npy"),
        "--out",
        str(out),
        "--pixel-spacing",
        SPACING,
    ]
    assert cli.main(["run", *arguments]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("failed: a.npy: ")
    assert second.startswith("done: z.npy: ")


@pytest.mark.usefixtures("fake_estimator")
def test_a_bar_is_drawn_on_a_terminal_only_and_for_several_scans_only(
    several: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--out", str(tmp_path), "--pixel-spacing", SPACING, "--write", "json"]
    cli.main(["run", str(several), *arguments])
    assert "\r" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "75")
    cli.main(["run", str(several / "a.npy"), *arguments])
    assert capsys.readouterr().err == ""
    cli.main(["run", str(several), *arguments, "-q"])
    assert capsys.readouterr().err == ""
    cli.main(["run", str(several), *arguments])
    shown = capsys.readouterr()
    assert re.search(r"\] 2/4 [0-9.]+ scans/s, \d+ s left, refuse\.npy", shown.err)
    assert max(len(line) for line in re.split(r"[\r\n]", shown.err)) < 75
    assert "[" not in shown.out


@pytest.mark.usefixtures("fake_estimator")
def test_several_scans_end_with_a_summary(several: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["run", str(several), "--out", str(tmp_path), "--pixel-spacing", SPACING, "--write", "json"])
    *rows, last = capsys.readouterr().err.splitlines()
    assert [row.split() for row in rows] == [
        words.split() for words in ("done 2 50.0 %", "failed 1 25.0 %", "refused no-spine 1 25.0 %")
    ]
    assert re.fullmatch(r"4 scans in \d+ s, [0-9.]+ a second", last)


@pytest.mark.slow
def test_the_real_pair_one_done_one_refused(real_bone: Path, real_tissue: Path, tmp_path: Path) -> None:
    ended = called("run", real_bone, real_tissue, "--out", tmp_path, "--json")
    assert ended.returncode == 1
    first, second = (json.loads(line) for line in ended.stdout.splitlines())
    assert first["status"] == "done"
    assert (second["status"], second["code"]) == ("refused", "soft-tissue-image")
    assert [path.name for path in tmp_path.iterdir()] == ["whole_body_bone"]
