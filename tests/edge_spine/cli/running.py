"""The command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import edge_spine

PACKAGE = Path(edge_spine.__file__).parent
VERBS = (
    *("run", "demo", "compare", "node", "watch", "batch", "verify", "benchmark", "build", "export-graph", "model"),
    "doctor",
)
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
