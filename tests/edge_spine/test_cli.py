from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import edge_spine
from edge_spine import __version__
from edge_spine.bundle.load import parse_manifest
from edge_spine.cli import common
from edge_spine.cli import main as cli
from edge_spine.engines.onnx import OnnxEngine
from edge_spine.errors import Refusal
from edge_spine.result import schema
from edge_spine.scan import Scan
from tests.edge_spine.fake_result import fake_curves, fake_result, phantom_pixels

PACKAGE = Path(edge_spine.__file__).parent
VERBS = ("run", "demo", "verify", "build", "doctor", "compare", "node", "watch", "batch")
PATIENT = "SECRET^NAME"
SPACING = "2.427,2.419"
STAGES = {"read", "preprocess", "infer", "reconstruct", "write", "total"}


def command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command as a person does: in a process of its own."""
    root = str(PACKAGE.parent)
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, "-m", "edge_spine", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment,
        timeout=120,
        check=False,
        **options,
    )


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    """A FAKE body as NPY."""
    path = tmp_path / "in" / "body.npy"
    path.parent.mkdir()
    np.save(path, phantom_pixels())
    return path


class FakeEstimator:
    """FAKE: answers by the name of the scan, so that every ending can be tested without a model."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> FakeEstimator:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, scan: Scan) -> Any:
        if scan.source.startswith("refuse"):
            raise Refusal("no-spine", "no spine was found")
        if scan.source.startswith("crash"):
            raise ValueError(PATIENT)
        if scan.source.startswith("interrupt"):
            raise KeyboardInterrupt
        fake = fake_result(curves=fake_curves())
        return fake_result(scan=scan, quality=SimpleNamespace(accepted=True, flags=("trunk-leans",)), model=fake.model)


@pytest.fixture
def fake_estimator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_spine.estimator.SpineEstimator", FakeEstimator)


@pytest.fixture
def several(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("a", "crash", "refuse", "z"):
        np.save(folder / f"{name}.npy", phantom_pixels())
    yield folder


# --- help and wrong usage


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


def test_an_unknown_output_names_the_known_ones(scan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", str(scan_file), "--out", "x", "--write", "json,docx"]) == 2
    shown = capsys.readouterr().err
    assert "'docx'" in shown
    assert "json, ply, png" in shown


def test_a_folder_without_scans_is_nothing_to_do(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
    ended = command("run", tmp_path, "--out", tmp_path / "out")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "no scan found" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file_is_wrong_usage(scan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", str(scan_file), "--out", str(scan_file)]) == 2
    assert "a folder is expected" in capsys.readouterr().err


# --- the whole walk, with the FAKE bundle


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


def test_json_lines_hold_what_the_contract_names(fake_model: Path, scan_file: Path, tmp_path: Path) -> None:
    shutil.copy(scan_file, scan_file.with_name("café\u2028.npy"))
    (scan_file.parent / "broken.npy").write_bytes(b"\x93NUMPY broken")
    out = tmp_path / "out"
    ended = command(
        "run",
        scan_file.parent,
        "--out",
        out,
        "--model",
        fake_model,
        "--pixel-spacing",
        SPACING,
        "--json",
        "--write",
        "json",
    )
    assert ended.returncode == 1
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["status"] for line in lines] == ["done", "refused", "done"]
    for line in lines:
        assert set(line) == {"source", "status", "code", "message", "outputs", "timing_ms"}
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
    assert json.loads(written.read_text(encoding="utf-8"))["schema"] == "edge-spine/result/1"


def test_a_file_without_spacing_is_refused_by_name(fake_model: Path, scan_file: Path, tmp_path: Path) -> None:
    ended = command("run", scan_file, "--out", tmp_path / "out", "--model", fake_model)
    assert ended.returncode == 1
    assert ended.stdout.startswith("refused (no-spacing): body.npy: ")
    assert len(ended.stdout.splitlines()) == 1
    assert ended.stderr == ""
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_refused(fake_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = tmp_path / "gone.dcm"
    assert cli.main(["run", str(gone), "--out", str(tmp_path), "--model", str(fake_model)]) == 1
    assert capsys.readouterr().out.startswith("refused (unreadable): gone.dcm: ")


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"node", "compare"}))
def test_a_damaged_bundle_is_one_clear_line(
    verb: str, fake_model: Path, scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "damaged"
    shutil.copytree(fake_model, model)
    with (model / "references.npz").open("r+b") as stream:
        stream.seek(100)
        stream.write(b"damaged")
    arguments = [verb, "--model", str(model)]
    arguments += [str(scan_file)] if verb == "run" else []
    arguments += [str(tmp_path), str(tmp_path / "out")] if verb == "watch" else []
    if verb == "batch":
        pytest.importorskip("pyarrow")
        (tmp_path / "list.txt").write_text(f"{scan_file}\n", encoding="utf-8")
        arguments.append(str(tmp_path / "list.txt"))
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


@pytest.mark.parametrize(("verb", "package"), [("node", "pynetdicom"), ("node", "highdicom"), ("watch", "filelock")])
def test_a_verb_without_its_packages_names_the_extra(
    verb: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = common.find_spec
    monkeypatch.setattr(common, "find_spec", lambda name: None if name == package else real(name))
    arguments = ["node", "--config", "node.toml"] if verb == "node" else ["watch", str(tmp_path), str(tmp_path / "out")]
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert package in line and "edge-spine[node]" in line
    assert list(tmp_path.iterdir()) == []


def test_a_node_without_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pynetdicom")
    assert cli.main(["node", "--config", str(tmp_path / "node.toml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "node.toml" in line and "README" in line


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon", "4000"])
def test_a_wrong_poll_interval(seconds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["watch", str(tmp_path), str(tmp_path / "out"), f"--poll={seconds}"]) == 2
    assert "--poll" in capsys.readouterr().err


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


# --- endings, with the FAKE estimator


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
    assert "test_cli.py" in shown.err
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
    assert [row.split() for row in rows] == [["done", "2"], ["failed", "1"], ["refused", "no-spine", "1"]]
    assert re.fullmatch(r"4 scans in \d+ s, [0-9.]+ a second", last)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (61, "1:01 min"), (3599.6, "1:00 h"), (7384, "2:03 h")]
)
def test_durations(seconds: float, text: str) -> None:
    from edge_spine.cli.progress import _duration

    assert _duration(seconds) == text


def test_logging_is_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    ours = logging.getLogger("edge_spine")
    before = list(ours.handlers), ours.level
    cli.main(["run", "gone", "--out", "x", "--write", "docx"])
    assert (list(ours.handlers), ours.level) == before


# --- verify and doctor


def test_verify_passes_where_the_engine_agrees(fake_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "--model", str(fake_model), "--engine", "onnx-cpu"]) == 0
    assert "passed" in capsys.readouterr().out
    assert cli.main(["verify", "--model", str(fake_model), "--engine", "onnx-cpu", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["passed"] is True
    assert table["engine"] == "onnx-cpu"


def test_verify_ends_with_1_where_a_tolerance_is_missed(
    fake_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = OnnxEngine._infer_one
    monkeypatch.setattr(OnnxEngine, "_infer_one", lambda self, image: right(self, image) + np.float32(0.01))
    assert cli.main(["verify", "--model", str(fake_model), "--engine", "onnx-cpu"]) == 1
    assert "MISSED" in capsys.readouterr().out


def test_doctor_tells_what_is_here(fake_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--model", str(fake_model), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["usable"] is True
    assert found["auto"] in ("onnx-cpu", "openvino") or found["engines"]["onnx-cuda"] is None
    assert found["engines"]["onnx-cpu"] is None
    assert found["engines"]["tensorrt"]
    assert found["packages"]["numpy"].startswith(np.__version__)
    assert "CPUExecutionProvider" in found["onnxruntime_providers"]
    manifest = (fake_model / "manifest.json").read_bytes()
    files = parse_manifest(manifest)["files"]
    assert found["bundle"]["files"] == {name: entry["sha256"] for name, entry in files.items()}
    assert found["gpu"].get("problem") or found["gpu"]["name"]
    assert found["conflict"] is None and found["plans"]
    assert cli.main(["doctor", "--model", str(fake_model)]) == 0
    shown = capsys.readouterr().out
    assert "all hashes match" in shown
    assert "verdict" in shown
    assert "ready" in shown


def test_doctor_tells_what_is_missing(fake_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for runtime in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, runtime, None)
    from edge_spine.cli.doctor import as_text, examine

    found = examine(fake_model)
    assert found["usable"] is False
    assert "edge-spine[cpu]" in found["engines"]["onnx-cpu"]
    assert "NOT READY" in as_text(found)


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


# --- the real bundle


def test_the_demo_runs(tmp_path: Path) -> None:
    ended = command("demo", "--out", tmp_path, "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    line = json.loads(ended.stdout)
    assert (line["source"], line["status"]) == ("synthetic_whole_body.dcm", "done")
    assert len(line["outputs"]) == 3
    assert all(Path(path).stat().st_size > 1000 for path in line["outputs"])


def test_the_packaged_model_verifies_and_the_doctor_is_content() -> None:
    assert command("verify").returncode == 0
    assert command("doctor").returncode == 0


def test_the_real_pair_one_done_one_refused(real_bone: Path, real_tissue: Path, tmp_path: Path) -> None:
    ended = command("run", real_bone, real_tissue, "--out", tmp_path, "--json")
    assert ended.returncode == 1
    first, second = (json.loads(line) for line in ended.stdout.splitlines())
    assert first["status"] == "done"
    assert (second["status"], second["code"]) == ("refused", "soft-tissue-image")
    assert [path.name for path in tmp_path.iterdir()] == ["whole_body_bone"]
