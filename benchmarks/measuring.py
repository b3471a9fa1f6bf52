"""Functions shared by the benchmarks: options, machine description, alternating timing, intervals, tables, JSON.

Each script imports it before edge_spine and export, which it makes importable from a clone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # `python benchmarks/NAME.py` adds only the folder of the script.
    sys.path.insert(0, str(ROOT))

from edge_spine.cli import measuring  # noqa: E402
from export.options import report_file  # noqa: E402

described, laid_out, quantiles = measuring.described, measuring.laid_out, measuring.quantiles
peak_memory_mb, rusage_mb, status_mb = measuring.peak_memory_mb, measuring.rusage_mb, measuring.status_mb
SCAN = ROOT / "edge_spine/data/synthetic_whole_body.dcm"
_RESAMPLES = 2000


def options_of(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the option that all scripts have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=report_file, metavar="FILE", help="write the figures here as well")
    return parser


def machine(*packages: str) -> dict[str, Any]:
    """Return `edge_spine.cli.measuring.machine` with the commit of this clone."""
    return {**measuring.machine(*packages), "commit": _commit()}


def _commit() -> str | None:
    """Return the commit of this clone, or None where there is no clone or no git."""
    try:
        told = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return told.stdout.strip() or None


def take_turns(
    timed: Mapping[str, Callable[[], object]], runs: int, in_a_row: int = 5
) -> dict[str, NDArray[np.float64]]:
    """Time callables alternately, a few calls at a time, so that drift of the machine affects all equally.

    Returns
    -------
    dict
        Times (ms) by name, (rounds, in_a_row).
    """
    for call in timed.values():
        for _ in range(in_a_row):
            call()
    rounds = -(-runs // in_a_row)
    times = {name: np.empty((rounds, in_a_row)) for name in timed}
    names = list(timed)
    for turn in range(rounds):
        # Reverse the order, so that each is first as often as last.
        for name in names if turn % 2 == 0 else reversed(names):
            for again in range(in_a_row):
                start = time.perf_counter()
                timed[name]()
                times[name][turn, again] = 1000 * (time.perf_counter() - start)
    return times


def ratio(over: NDArray[np.float64], under: NDArray[np.float64]) -> dict[str, float]:
    """Return the ratio of two medians with its 95 % interval, from bootstrap resampling of rounds.

    Parameters
    ----------
    over, under : (rounds, calls) array
        Times of two names from one `take_turns`.
    """
    generator = np.random.default_rng(0)
    rounds = len(over)
    drawn = generator.integers(rounds, size=(_RESAMPLES, rounds))
    found = [np.median(over[rows]) / np.median(under[rows]) for rows in drawn]
    low, high = np.percentile(found, (2.5, 97.5))
    return {"ratio": float(np.median(over) / np.median(under)), "low": float(low), "high": float(high)}


def with_interval(found: Mapping[str, float]) -> str:
    """Format the result of `ratio`."""
    return f"{found['ratio']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def verdicts(targets: Iterable[tuple[str, str, bool]]) -> str:
    """Return a line for each target: what is wanted, what was measured, and whether it is met."""
    return "".join(f"\n{wanted}: {found} {'met' if met else 'MISSED'}" for wanted, found, met in targets)


def write_json(path: Path | None, report: Mapping[str, Any]) -> None:
    """Write a report if a path is given."""
    if path is not None:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def memory_mb() -> float | None:
    """Return the memory of this process, MB, or None if unknown."""
    try:
        import psutil
    except ImportError:
        return status_mb("VmRSS")
    return float(psutil.Process().memory_info().rss) / 1e6


def folder_mb(folder: Path) -> float:
    """Return the size of the files below a folder, MB."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink()) / 1e6
