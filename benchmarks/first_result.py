"""Time from a cold start to a spine, peak memory, and size of an install.

`python benchmarks/first_result.py [--runs 7] [--install] [--json FILE]` starts fresh processes on the bundled scan.
Each reads it, estimates the spine and writes result.json, spine.ply and preview.png, four times over. `--install` also
makes a virtual environment with the runtime and the CPU engine, and measures what that adds to an empty one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

# what a fresh process does; it prints seconds since it was asked for, and its peak memory
CHILD = """
import importlib.resources, json, sys, time
from pathlib import Path
asked, out = float(sys.argv[1]), Path(sys.argv[2])
from edge_spine import SpineEstimator, read_scan
from edge_spine.outputs import parse_formats, write_outputs
scan = importlib.resources.files("edge_spine") / "data" / "synthetic_whole_body.dcm"
formats = parse_formats("json,ply,png")
times = {}
with SpineEstimator(engine="onnx-cpu") as estimator:
    times["ready"] = time.time() - asked
    for name in ("first", "second", "third", "fourth"):
        start = time.perf_counter()
        result = estimator(read_scan(str(scan)))
        estimated = time.perf_counter()
        write_outputs(result, out / name, formats)
        times[name] = {"estimate": estimated - start, "write": time.perf_counter() - estimated}
        times.setdefault("first_result", time.time() - asked)
try:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times["peak_mb"] = peak / (1e6 if sys.platform == "darwin" else 1e3) * (1 if sys.platform == "darwin" else 1.024)
except ImportError:
    times["peak_mb"] = None
print(json.dumps(times))
"""


def one_run() -> dict[str, Any]:
    """Start one fresh process and return its times (s) and peak memory (MB)."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", CHILD, str(time.time()), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        result: dict[str, Any] = json.loads(done.stdout)
        return result


def folder_mb(folder: Path) -> float:
    """Size of the files below a folder, MB."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink()) / 1e6


def install_mb() -> float:
    """Size (MB) that the runtime with its CPU engine adds to an empty virtual environment."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "env"
        venv.create(place, with_pip=True)
        before = folder_mb(place)
        python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"{ROOT}[cpu]"], check=True)
        return folder_mb(place) - before


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="fresh processes (default 7)")
    parser.add_argument("--install", action="store_true", help="measure a fresh install too (needs a package index)")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    one_run()  # the first start of all fills the disk cache and compiles bytecode
    runs = [one_run() for _ in range(options.runs)]
    figures = {
        "start to first result, s": [run["first_result"] for run in runs],
        "start to model ready, s": [run["ready"] for run in runs],
        "second scan, read and estimate, ms": [1000 * run["second"]["estimate"] for run in runs],
        "second scan, write three files, ms": [1000 * run["second"]["write"] for run in runs],
        "second scan, all, ms": [1000 * sum(run["second"].values()) for run in runs],
        "peak memory, MB": [run["peak_mb"] for run in runs if run["peak_mb"] is not None],
    }
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{'':38}{'median':>10}{'least':>10}{'most':>10}")
    for name, values in figures.items():
        if values:
            print(f"{name:38}{statistics.median(values):>10.2f}{min(values):>10.2f}{max(values):>10.2f}")
    report: dict[str, Any] = {"runs": options.runs, **figures}
    if options.install:
        report["install, MB"] = install_mb()
        print(f"{'install with CPU engine, MB':38}{report['install, MB']:>10.0f}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
