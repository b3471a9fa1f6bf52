"""Run and import the scripts of benchmarks/, which import each other by their bare names."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(request: pytest.FixtureRequest) -> ModuleType:
    """The script that the test module is named after."""
    return importlib.import_module(request.path.stem.removeprefix("test_"))


def run_script(name: str, folder: Path, *arguments: str, statuses: tuple[int, ...] = (0,)) -> tuple[int, str, Any]:
    """Run a script in a process of its own; return its exit status, its stdout and its report."""
    file = folder / "out.json"
    ended = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), "--json", str(file), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=folder,
    )
    assert ended.returncode in statuses and file.exists(), ended.stdout + ended.stderr
    return ended.returncode, ended.stdout, json.loads(file.read_text(encoding="utf-8"))
