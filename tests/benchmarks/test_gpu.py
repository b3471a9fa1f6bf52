"""benchmarks/gpu.sh: its plan, and which steps it begins, with a FAKE Python that only notes its arguments."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/gpu.sh"
BASH = shutil.which("bash") if os.name == "posix" else None
pytestmark = pytest.mark.skipif(BASH is None, reason="needs bash")
STEPS = ["doctor", "build-int8", "latency-int8", "tests", "build-fp16", "latency-fp16"]
LATER = ["build-blocks", "latency-blocks", "peers", "build-fp32", "latency-fp32"]


def bash(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    command = [str(BASH), str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **more})


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder in which all pieces were taken in, with a FAKE Python that fails where FAILS is in its arguments."""
    python = tmp_path / "work/python/bin/python3"
    python.parent.mkdir(parents=True)
    python.write_text(
        f'#!/bin/sh\necho "$@" | tee -a "{tmp_path}/called"\necho "\\"blocks\\": {{\\"block\\": ${{BLOCK:-8}}"\n'
        'case "$* " in *"$SLOW"*) trap "" $IGNORED; exec sleep 40 ;; *"$FAILS"*) exit 1 ;; esac\n'
    )
    python.chmod(0o755)
    for folder in ("packages", "plans"):
        (tmp_path / "work" / folder).mkdir()
    (tmp_path / "work/unpacked").touch()
    return tmp_path / "work"


def run(work: Path, seconds: int = 2000, **more: str) -> tuple[int, dict[str, str]]:
    """Run the script; return its exit status, and what each ended step recorded."""
    ended = bash(work, work.parent / "out", seconds, **{"FAILS": "-none-", "SLOW": "-none-", **more})
    assert ended.stderr == ""
    return ended.returncode, {
        path.name: path.read_text().strip() for path in sorted((work / "ended").iterdir(), key=os.path.getmtime)
    }


def test_the_plan_fits_and_leaves_out_what_does_not() -> None:
    everything = bash("--plan", 3000).stdout.splitlines()
    assert [line.split()[0] for line in everything] == [*STEPS, *LATER]
    ended = bash("--plan")
    fits = [line.split()[0] for line in ended.stdout.splitlines() if "ends after" in line]
    assert ended.returncode == 0 and fits == STEPS, "one call of ten minutes"
    last = [line for line in ended.stdout.splitlines() if "ends after" in line][-1]
    assert int(last.split()[-2]) <= 570
    assert "peers            100 s, does not fit" in ended.stdout


def needed(names: set[str], version: str) -> set[str]:
    """Return the named packages and all that they require on a Python version, of those installed here."""
    environment = {"python_version": version, "python_full_version": f"{version}.0", "extra": ""}
    found, left = set[str](), [canonicalize_name(name) for name in names]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            with suppress(metadata.PackageNotFoundError):
                needs = [Requirement(line) for line in metadata.requires(name) or ()]
                left += [
                    canonicalize_name(one.name) for one in needs if not one.marker or one.marker.evaluate(environment)
                ]
    return found


def test_what_an_older_python_needs_more_is_packed() -> None:
    """pip decides by its own Python what a package needs, also where it fetches for another."""
    listed = re.search(r"\npackages=\((.*?)\n\)", SCRIPT.read_text(encoding="utf-8"), re.DOTALL)
    assert listed is not None
    packed = set(re.sub(r"#.*", "", listed[1]).split())
    newest = needed(packed, "3.14")
    assert "pluggy" in newest and "exceptiongroup" in needed({"pytest"}, "3.10") - needed({"pytest"}, "3.14")
    for version in ("3.10", "3.11", "3.12"):
        assert needed(packed, version) <= newest, version


def test_every_step_is_run_once_the_most_valuable_first(work: Path) -> None:
    status, ended = run(work)
    assert status == 0 and list(ended) == [*STEPS, *LATER] and set(ended.values()) == {"0"}
    called = (work.parent / "called").read_text().splitlines()
    assert run(work)[0] == 0 and (work.parent / "called").read_text().splitlines() == called
    assert (work.parent / "out/results.tar.gz").is_file()
    (peers,) = (line for line in called if "peers.py" in line)
    assert "--only tensorrt int8 --only tensorrt fp16 --only onnx" in peers


def test_a_plan_that_is_not_built_costs_no_other_step_a_build(work: Path) -> None:
    status, ended = run(work, FAILS="--precision fp16")
    assert status == 1 and ended["build-fp16"] == "1" and "latency-fp16" not in ended and ended["latency-fp32"] == "0"
    assert "tensorrt fp16" not in (work.parent / "called").read_text()
    for path in (work / "ended").iterdir():
        path.unlink()
    status, ended = run(work, FAILS="--precision int8")
    assert status == 1 and not {"latency-int8", "tests", "build-blocks"} & set(ended)


def test_blocks_that_gain_nothing_are_not_timed_again(work: Path) -> None:
    status, ended = run(work, BLOCK="1")
    assert status == 0 and "build-blocks" in ended and "latency-blocks" not in ended


def test_with_a_bundle_of_its_own_the_tests_of_the_packaged_model_are_left_out(work: Path) -> None:
    (work / "bundle").mkdir()
    status, ended = run(work)
    assert status == 0 and "tests" not in ended and "peers" in ended


def test_steps_that_fit_are_not_held_up_by_one_that_does_not(work: Path) -> None:
    (work / "ended").mkdir()
    for name in ("build-int8", "latency-int8"):
        (work / "ended" / name).write_text("0\n")
    status, ended = run(work, 130)
    assert status == 75 and list(ended)[2:] == ["doctor", "tests", "peers"]
    assert run(work)[0] == 0


@pytest.mark.slow
def test_a_step_that_the_call_ends_is_tried_once_more(work: Path) -> None:
    """Also one that waits in a driver and does not notice that it is stopped."""
    began = time.monotonic()
    status, ended = run(work, 16, SLOW="doctor", IGNORED="TERM")
    assert status == 75 and list(ended) == ["doctor.again"] and time.monotonic() < began + 30
    status, ended = run(work, 16, SLOW="doctor", IGNORED="")
    assert status == 75 and ended["doctor"] == "124"


@pytest.mark.slow
@pytest.mark.parametrize("what", ["prepare", "nvidia-smi"])
def test_nothing_before_the_steps_can_take_all_the_time(work: Path, what: str) -> None:
    """`nvidia-smi` waits for a driver that hangs, and so may the program that prepares the machine."""
    program = work.parent / what
    if what == "prepare":
        program = work / what
        (work / "unpacked").unlink()
        (work / "pieces").mkdir()
        with tarfile.open(work / "pieces/piece-000", "w:xz"):
            pass
        digest = hashlib.sha256((work / "pieces/piece-000").read_bytes()).hexdigest()
        (work / "pieces/pieces.sha256").write_text(f"{digest}  piece-000\n")
    program.write_text('#!/bin/sh\ntrap "" TERM\nexec sleep 100\n')
    program.chmod(0o755)
    began = time.monotonic()
    path = f"{work.parent}:{os.environ['PATH']}"
    status = bash(work, work.parent / "out", 5, PATH=path, PROBE_SECONDS="2").returncode
    assert status == (1 if what == "prepare" else 75) and time.monotonic() < began + 50
