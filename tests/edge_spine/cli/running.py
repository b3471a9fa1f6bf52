"""The command in a process of its own, and in this process where the process itself is not under test."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import edge_spine
from edge_spine.cli.main import main

PACKAGE = Path(edge_spine.__file__).parent
VERBS = (
    *("run", "demo", "compare", "node", "watch", "batch", "verify", "benchmark", "build", "export-graph", "model"),
    "doctor",
)
PATIENT = "SECRET^NAME"
SPACING = "2.427,2.419"
STAGES = {"read", "preprocess", "infer", "reconstruct", "write", "total"}
Ended = subprocess.CompletedProcess[str]


def called(*arguments: object) -> Ended:
    """Run the command in this process, which saves the start of another one."""
    words, out, err = [str(word) for word in arguments], io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(words)
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())


def command(*arguments: object, **options: Any) -> Ended:
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
