"""benchmarks/aarch64.sh: the runtime passes on an emulated aarch64, and its table tells a difference from none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/aarch64.sh"
BASH = shutil.which("bash") if os.name == "posix" else None
pytestmark = pytest.mark.skipif(BASH is None, reason="needs bash")


def bash(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [str(BASH), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_its_syntax_is_right() -> None:
    ended = bash("-n", SCRIPT)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_where_nothing_can_be_mounted_it_says_why(tmp_path: Path) -> None:
    nobody = {"user": 65534} if os.geteuid() == 0 else {}
    # from stdin, since that user may not read this folder
    ended = bash("-s", tmp_path / "work", input=SCRIPT.read_text(encoding="utf-8"), cwd="/", **nobody)
    assert ended.returncode == 77
    assert ended.stderr.startswith("aarch64 cannot be emulated here: only root can") and ended.stderr.count("\n") == 1


def put(folder: Path, text: str) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text(text, encoding="utf-8")


def as_run(work: Path) -> None:
    """Write what a run leaves where all steps passed."""
    put(work / "steps", "doctor\ndemo\nverify\nopenvino-alone\nverify-openvino\n")
    for arch in ("amd64", "arm64"):
        engines = {
            "onnx-cpu": None,
            "openvino": "openvino: it crashes its process (SIGSEGV)" if arch == "arm64" else None,
        }
        put(work / arch / "log/doctor", json.dumps({"engines": engines}))
        put(work / arch / "ended/doctor", f"5 {int(arch == 'arm64')}")
        put(work / arch / "log/demo", "done")
        put(work / arch / "ended/demo", "6 0")
        put(work / arch / "log/verify", "passed")
        put(work / arch / "log/verify-openvino", "")
        put(
            work / arch / "log/verify-openvino.errors", "INT8 gives wrong results on this processor" * (arch == "amd64")
        )
        put(work / arch / "ended/verify-openvino", f"8 {int(arch == 'amd64')}")
        put(work / arch / "ended/verify", "7 0")
        put(work / arch / "log/openvino-alone", "the network is compiled\n")
        put(work / arch / "ended/openvino-alone", "9 0")
        curves = {"z": [1.0, 2.0], "band_90": None, "coronal": {"left": [3.0, 4.0005 if arch == "arm64" else 4.0]}}
        put(work / arch / "out/demo/scan/result.json", json.dumps({"curves": curves}))
        put(work / arch / "out/demo/scan/spine.ply", "ply")
        put(work / arch / "out/demo/.lock", "")  # of a cohort


def test_the_table_of_a_run_that_passed(tmp_path: Path) -> None:
    as_run(tmp_path)
    ended = bash(SCRIPT, "--table", tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[2:7] == [
        "| doctor | 5 | 5 | yes |  |",
        "| demo | 6 | 6 | yes | 0.0005 |",
        "| verify | 7 | 7 | yes |  |",
        "| openvino-alone | 9 | 9 | yes |  |",
        "| verify-openvino | 8 | 8 | yes |  |",
    ]
    assert "doctor, arm64: openvino: it crashes its process (SIGSEGV)" in ended.stdout


@pytest.mark.parametrize(("status", "words"), [(139, "SIGSEGV"), (137, "stopped at its limit")])
def test_openvino_that_fails_alone_under_emulation_is_no_failure(tmp_path: Path, status: int, words: str) -> None:
    as_run(tmp_path)
    put(tmp_path / "arm64/ended/openvino-alone", f"9 {status}")
    ended = bash(SCRIPT, "--table", tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[5:7] == [
        "| openvino-alone | 9 | | cannot run under emulation | |",
        "| verify-openvino | 8 | | cannot run under emulation | |",
    ]
    observed = f"openvino-alone, arm64: {words} after 9 s; the last that it printed is: the network is compiled"
    assert observed in ended.stdout


def other_curves(work: Path) -> None:
    curves = {"z": [1.0, 2.0], "band_90": None, "coronal": {"left": [3.0, 4.2]}}
    put(work / "arm64/out/demo/scan/result.json", json.dumps({"curves": curves}))


@pytest.mark.parametrize(
    ("step", "harm"),
    [
        ("demo", other_curves),
        ("demo", lambda work: put(work / "arm64/ended/demo", "6 1")),
        ("demo", lambda work: put(work / "amd64/ended/demo", "6 1")),
        ("demo", lambda work: put(work / "arm64/out/demo/scan/spine.ply", "")),
        ("demo", lambda work: (work / "arm64/out/demo/scan/spine.ply").unlink()),
        ("demo", lambda work: put(work / "arm64/out/demo/scan/result.json", '{"curves": {"z": [1.0, 2.0]}}')),
        (
            "doctor",
            lambda work: put(work / "arm64/log/doctor", '{"engines": {"onnx-cpu": "crashes", "openvino": null}}'),
        ),
        ("verify", lambda work: put(work / "arm64/ended/verify", "7 1")),
        ("verify-openvino", lambda work: put(work / "arm64/ended/verify-openvino", "8 1")),
        ("verify-openvino", lambda work: put(work / "arm64/ended/verify-openvino", "8 139")),
        ("openvino-alone", lambda work: put(work / "arm64/ended/openvino-alone", "9 1")),
        ("openvino-alone", lambda work: put(work / "amd64/ended/openvino-alone", "9 139")),
    ],
)
def test_a_step_that_failed_or_differs_is_shown(tmp_path: Path, step: str, harm: Callable[[Path], object]) -> None:
    as_run(tmp_path)
    harm(tmp_path)
    ended = bash(SCRIPT, "--table", tmp_path)
    assert ended.returncode == 1
    assert [line.split(" | ")[0] for line in ended.stdout.splitlines() if "| NO |" in line] == [f"| {step}"]


@pytest.mark.slow
def test_the_runtime_passes_on_an_emulated_aarch64() -> None:
    if not (work := os.environ.get("EDGE_SPINE_AARCH64")):
        pytest.skip("takes half an hour and root: EDGE_SPINE_AARCH64=FOLDER asks for it")
    ended = bash(SCRIPT, work, timeout=7200)
    if ended.returncode == 77:
        pytest.skip(ended.stderr.splitlines()[-1])
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr
