"""The command as a whole: help, wrong usage, logging and exit statuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_spine import __version__
from edge_spine.cli import main as cli
from tests.edge_spine.cli.running import PACKAGE, VERBS, called


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "-h"]) == 0
    shown = capsys.readouterr().out
    assert f"edge-spine {verb}" in shown.split("example:")[1]


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys; from edge_spine.cli.main import main; main(['run', '-h'])\n"
        "print([name for name in ('cv2', 'pydicom', 'onnxruntime', 'torch') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


def test_matrices_are_for_one_thread_unless_the_user_says_otherwise() -> None:
    code = "import os, sys, edge_spine.cli; print('numpy' in sys.modules, os.environ['OPENBLAS_NUM_THREADS'])"
    others = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    for own, expected in (({}, "False 1"), ({"OPENBLAS_NUM_THREADS": "3"}, "False 3")):
        shown = subprocess.run(
            [sys.executable, "-c", code],
            **{"capture_output": True, "text": True, "cwd": PACKAGE.parent, "check": True, "env": others | own},
        )
        assert shown.stdout.splitlines()[-1] == expected


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"edge-spine {__version__}"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["run", "--out", "x"],
        ["run", "scan.dcm"],
        ["run", "scan.dcm", "--out", "x", "--engine", "abacus"],
        ["run", "scan.dcm", "--out", "x", "--threads", "0"],
        ["run", "scan.dcm", "--out", "x", "--pixel-spacing", "2.4"],
        ["run", "scan.dcm", "--out", "x", "--pixel-spacing", "a,b"],
        ["run", "scan.dcm", "--out", "x", "--pixel-spacing", "nan,1"],
        ["run", "scan.dcm", "--out", "x", "--pixel-spacing", "0,-1"],
        ["run", "scan.dcm", "--out", "x", "--write", ""],
        ["run", "scan.dcm", "--out", "x", "-q", "-v"],
        ["demo"],
    ],
)
def test_wrong_usage_ends_with_2_and_a_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "edge-spine" in shown.err
    assert "Traceback" not in shown.err
    assert not Path("x").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "SCAN", "--out", "LONG"],
        ["verify", "--model", "LONG"],
        ["watch", "LONG", "out"],
        ["batch", "LONG", "--out", "out"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_path_that_cannot_be_looked_at_is_one_line(
    arguments: list[str], scan_file: Path, fake_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow" if arguments[0] == "batch" else "numpy")
    places = {"LONG": str(tmp_path / ("x" * 300)), "SCAN": str(scan_file), "out": str(tmp_path / "out")}
    model = [] if "--model" in arguments else ["--model", str(fake_model)]
    assert cli.main([*(places.get(word, word) for word in arguments), *model]) in (1, 2)
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    assert len((shown.out + shown.err).splitlines()) == 1


@pytest.mark.parametrize(
    "verb", [*sorted(set(VERBS) - {"node", "compare", "doctor"}), pytest.param("doctor", marks=pytest.mark.slow)]
)
def test_a_damaged_bundle_is_one_clear_line(
    verb: str, fake_model: Path, scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "damaged"
    shutil.copytree(fake_model, model)
    with (model / "references.npz").open("r+b") as stream:
        stream.seek(100)
        stream.write(b"damaged")
    arguments = [verb, *(["show"] if verb == "model" else []), "--model", str(model)]
    arguments += [str(scan_file)] if verb == "run" else []
    arguments += [str(tmp_path), str(tmp_path / "out")] if verb == "watch" else []
    if verb == "batch":
        pytest.importorskip("pyarrow")
        (tmp_path / "list.txt").write_text(f"{scan_file}\n", encoding="utf-8")
        arguments.append(str(tmp_path / "list.txt"))
    arguments += [str(tmp_path / "graph.onnx")] if verb == "export-graph" else []
    arguments += ["--out", str(tmp_path / "out")] if verb in ("run", "demo", "batch") else []
    assert cli.main(arguments) == 1
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert "references.npz" in line
    assert "SHA-256" in line
    assert ("NOT READY" in shown.out) if verb == "doctor" else (shown.out == "")
    assert not (tmp_path / "out").exists()


def test_an_engine_that_cannot_run_says_so(
    fake_model: Path, scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(scan_file), "--out", str(tmp_path / "out"), "--model", str(fake_model)]
    assert cli.main([*arguments, "--engine", "tensorrt"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "tensorrt" in shown.err
    assert len(shown.err.splitlines()) == 1


@pytest.mark.slow
def test_a_reader_that_leaves_early_causes_no_traceback(fake_model: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_spine", "doctor", "--model", str(fake_model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=PACKAGE.parent,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=120) in (0, 1)
    assert b"Traceback" not in complaint
    assert b"Exception ignored" not in complaint


def test_the_device_is_set_before_the_verb_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(cli, "choose_gpu", chosen.append)
    assert cli.main(["build", "--device", "1", "--model", "missing"]) == 1
    assert cli.main(["build", "--device", "-1"]) == 2
    assert chosen == [1]


@pytest.mark.parametrize(
    "words",
    [
        ("run", "", "--out", "x"),
        ("run", "scan.dcm", "--out", ""),
        ("compare", "a.dcm", " "),
        ("batch", "", "--out", "x"),
        ("watch", "", "x"),
        ("watch", "x", ""),
        ("node", "--config", ""),
        ("demo", "--out", ""),
        ("demo", "--out", "x", "--model", ""),
    ],
)
def test_an_empty_name_is_wrong_usage_and_never_the_current_folder(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a script passes it whose variable is not set."""
    monkeypatch.chdir(tmp_path)
    ended = called(*words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "an empty name found" in ended.stderr
    assert not any(tmp_path.iterdir())
