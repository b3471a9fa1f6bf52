"""Compare the processor time of each stage with that of another checkout, in processes that take turns.

`python benchmarks/against.py FOLDER [--rounds 40] [--json FILE]`. The stages are those of guard.py, run on the modules
of each checkout. Ratios of medians have 95 % intervals; load on the machine lengthens both sides alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from guard import IN_A_ROW, STAGES
from measuring import ROOT, described, laid_out, machine, options_of, ratio, with_interval, write_json

# The other checkout's package is imported first, then this folder's stages.
CHILD = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import edge_spine
sys.path.insert(0, sys.argv[2])
import cv2, guard
cv2.setNumThreads(1)
works = guard.stages()
print(json.dumps(edge_spine.__file__), flush=True)
for line in sys.stdin:
    work, times = works[line.strip()], []
    for _ in range(int(sys.argv[3])):
        started = time.process_time_ns()
        work()
        times.append((time.process_time_ns() - started) / 1e6)
    print(json.dumps(times), flush=True)
"""


class Side:
    """A process with the stages of one checkout."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-c", CHILD, str(folder), str(Path(__file__).parent), str(IN_A_ROW)]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=folder)
        found = Path(self._answer())
        if folder not in found.parents:
            raise SystemExit(f"{found} was imported, a package in {folder} is expected")

    def run(self, stage: str) -> list[float]:
        """Run a stage several times; return the processor times, ms."""
        assert self._process.stdin is not None
        print(stage, file=self._process.stdin, flush=True)
        times: list[float] = self._answer()
        return times

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a process with the stages ended early")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def compare(other: Path, rounds: int) -> dict[str, Any]:
    """Return for each stage the median times (ms) of the other checkout and of this one, and their ratio."""
    sides = [Side(folder.resolve()) for folder in (other, ROOT)]
    report = {}
    try:
        for stage in STAGES:
            times = np.empty((2, rounds, IN_A_ROW))
            for turn in range(rounds):
                for side in (0, 1) if turn % 2 else (1, 0):
                    times[side, turn] = sides[side].run(stage)
            before, now = times
            report[stage] = {
                "other_ms": float(np.median(before)),
                "here_ms": float(np.median(now)),
                "here_over_other": ratio(now, before),
            }
    finally:
        for side in sides:
            side.close()
    return report


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = options_of(__doc__)
    parser.add_argument("folder", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=40, help="turns of each side, of six runs (default %(default)s)")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or not (options.folder / "edge_spine").is_dir():
        parser.error("FOLDER is a checkout of edge-spine, --rounds a whole number from 1")
    report = {"machine": machine("pydicom"), "stages": compare(options.folder, options.rounds)}
    rows = [
        (stage, found["other_ms"], found["here_ms"], with_interval(found["here_over_other"]))
        for stage, found in report["stages"].items()
    ]
    print(described(report["machine"]) + "\n")
    print(laid_out(("processor time, ms", "other", "here", "here over other"), rows))
    write_json(options.json, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
