"""Compare the processor time of each stage with that of another checkout, in processes that take turns.

`python benchmarks/against.py FOLDER [--rounds 40] [--json FILE]`. The stages are those of stages.py, run on the modules
of each checkout. Ratios of medians have 95 % intervals; load on the machine lengthens both sides alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from measuring import ROOT, described, laid_out, machine, options_of, ratio, with_interval, write_json
from stages import NAMES

# Runs in a row; the first one after another stage has cold caches.
IN_A_ROW = 6
# Each turn has processes of its own: where the memory of a process lies changes a time by up to a tenth.
PROCESSES = 3
# The other checkout's package is imported first, then this folder's stages.
CHILD = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import edge_spine
sys.path.insert(0, sys.argv[2])
from stages import stages
works = stages(sys.argv[4])
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
    """A process with the stages of one checkout; `slower` is the stage that is slowed, if any."""

    def __init__(self, folder: Path, slower: str = "") -> None:
        command = [sys.executable, "-c", CHILD, str(folder), str(Path(__file__).parent), str(IN_A_ROW), slower]
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


def compare(other: Path, rounds: int, names: Sequence[str] = NAMES, slower: str = "") -> dict[str, Any]:
    """Return for each stage the median times (ms) of the other checkout and of this one, and their ratio.

    Parameters
    ----------
    rounds : int
        Turns of each side, spread over `PROCESSES` processes.
    names : sequence of str
        Stages to compare.
    slower : str
        Stage that is slowed on this side.
    """
    times: dict[str, list[tuple[list[float], list[float]]]] = {stage: [] for stage in names}
    for process in range(min(PROCESSES, rounds)):
        with ExitStack() as ends:
            sides = []
            for folder, slowed in ((other.resolve(), ""), (ROOT, slower)):
                sides.append(Side(folder, slowed))
                ends.callback(sides[-1].close)
            for turn in range(process, rounds, PROCESSES):
                for stage, found in times.items():
                    # The order changes, so that each is first as often as last.
                    first, second = (side.run(stage) for side in sides[:: -1 if turn % 2 else 1])
                    found.append((second, first) if turn % 2 else (first, second))
    report = {}
    for stage, found in times.items():
        before, now = np.array(found).transpose(1, 0, 2)
        report[stage] = {
            "other_ms": float(np.median(before)),
            "here_ms": float(np.median(now)),
            "here_over_other": ratio(now, before),
        }
    return report


def table(report: dict[str, Any]) -> str:
    """Return the result of `compare` as a table."""
    rows = [
        (stage, found["other_ms"], found["here_ms"], with_interval(found["here_over_other"]))
        for stage, found in report.items()
    ]
    return laid_out(("processor time, ms", "other", "here", "here over other"), rows)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = options_of(__doc__)
    parser.add_argument("folder", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=40, help="turns of each side, of six runs (default %(default)s)")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or not (options.folder / "edge_spine").is_dir():
        parser.error("FOLDER is a checkout of edge-spine, --rounds a whole number from 1")
    report = {"machine": machine("pydicom"), "stages": compare(options.folder, options.rounds)}
    print(described(report["machine"]) + "\n\n" + table(report["stages"]))
    write_json(options.json, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
