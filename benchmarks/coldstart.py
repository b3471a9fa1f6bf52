"""Measure start-up: time to the first result, time of imports, peak memory, and size of an install.

`python benchmarks/coldstart.py [--runs 9] [--engine onnx-cpu] [--install] [--json FILE]` starts fresh processes on the
bundled scan: the command `edge-spine run SCAN --write json`, and one that reports the time of each step and then
processes more scans. `--install` also creates an environment for each extra, measures its size, and runs the command
there with nothing else installed (it needs a package index).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from measuring import ROOT, SCAN, described, folder_mb, laid_out, machine, options_of, rusage_mb, verdicts, write_json

EXTRAS = ("cpu", "openvino", "cpu,codecs", "cpu,dicom", "cpu,node", "cpu,report", "cpu,batch")
MOST_SECONDS, MOST_MB, MOST_INSTALL_MB = 0.6, 220, 250
# from the end of reading the second scan, ms
MOST_WARM_MS = 60
# Keep bytecode, as an installed package has; otherwise a clone is compiled at each start.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

# Program of a fresh process; it prints seconds since its start was requested, and its peak memory.
CHILD = """
import json, sys, time
asked, scan, out, engine = float(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
marks = {"the interpreter runs": time.time() - asked}
from pathlib import Path
from edge_spine import SpineEstimator, read_scan
from edge_spine.bundle.load import load_bundle
from edge_spine.engines import open_engine
from edge_spine.outputs.registry import parse_formats, write_outputs
import pydicom
marks["all is imported but the engine's library"] = time.time() - asked
alone = {}
start = time.perf_counter()
bundle = load_bundle()
alone["hash the bundle"] = 1000 * (time.perf_counter() - start)
start = time.perf_counter()
open_engine(bundle, engine).close()
alone["import the engine's library and open a session"] = 1000 * (time.perf_counter() - start)
del bundle
with SpineEstimator(engine=engine) as estimator:
    # the two steps above are a part of making an estimator
    marks["the estimator is ready"] = time.time() - asked - sum(alone.values()) / 1000
    for number in ("first", "second", "third"):
        start = time.perf_counter()
        pixels = read_scan(scan)
        alone[f"{number} scan, read"] = 1000 * (time.perf_counter() - start)
        start = time.perf_counter()
        result = estimator(pixels)
        alone[f"{number} scan, estimate"] = 1000 * (time.perf_counter() - start)
        for written in ("json", "json,ply,png"):
            start = time.perf_counter()
            write_outputs(result, Path(out, number + written), parse_formats(written))
            alone[f"{number} scan, write {written}"] = 1000 * (time.perf_counter() - start)
print(json.dumps({"marks": marks, "alone": alone}))
"""


def run_once(command: Sequence[str], place: Path = ROOT) -> dict[str, float]:
    """Run a command; return wall time and, where available, processor time (s) and peak memory (MB)."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=place, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    if not hasattr(os, "wait4"):
        status = process.wait()
        found = {"wall_s": time.perf_counter() - started}
    else:
        _, status, used = os.wait4(process.pid, 0)
        found = {"wall_s": time.perf_counter() - started, "processor_s": used.ru_utime + used.ru_stime}
        found["peak_mb"] = rusage_mb(used)
        process.returncode = status
    if status != 0:
        raise SystemExit(f"{' '.join(command)} ended with {status}")
    return found


def command_line(engine: str, folder: str, python: str | Path = sys.executable) -> list[str]:
    """Return the command line of `edge-spine run` on the bundled scan."""
    options = ["--out", folder, "--write", "json", "--engine", engine]
    return [str(python), "-m", "edge_spine", "run", str(SCAN), *options]


def commands(command: Sequence[str], runs: int, place: Path = ROOT) -> dict[str, dict[str, float]]:
    """Run a command repeatedly; return the spread of each figure."""
    run_once(command, place)  # The first start fills the disk cache and compiles bytecode.
    done = [run_once(command, place) for _ in range(runs)]
    return {name: spread([run[name] for run in done]) for name in done[0]}


def captured(command: Sequence[str | Path], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command and return its output."""
    return subprocess.run(command, capture_output=True, text=True, check=check, cwd=ROOT, env=ENVIRONMENT)


def marks_of_one_process(engine: str) -> dict[str, dict[str, float]]:
    """Start the process that reports the time of each step."""
    with tempfile.TemporaryDirectory() as folder:
        done = captured([sys.executable, "-c", CHILD, str(time.time()), str(SCAN), folder, engine])
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def imports(engine: str) -> tuple[Counter[str], Counter[str]]:
    """Return the time (ms) that `edge-spine run` spends importing, by top-level package and by module.

    The time of a module excludes that of the modules it imports.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = captured([sys.executable, "-X", "importtime", *command_line(engine, folder)[1:]])
    packages: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    for line in done.stderr.splitlines():
        match = re.fullmatch(r"import time:\s*(\d+) \|\s*\d+ \| *(\S+)", line)
        if match:
            package = match[2].partition(".")[0]
            packages["the standard library" if package in sys.stdlib_module_names else package] += int(match[1]) / 1000
            modules[match[2]] += int(match[1]) / 1000
    return packages, modules


def install(extras: str, runs: int) -> dict[str, Any]:
    """Install the runtime with extras into an empty environment; return the added size (MB) and the command."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "env"
        venv.create(place, with_pip=True)
        before = folder_mb(place)
        python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        done = captured([python, "-m", "pip", "install", "--quiet", f"{ROOT}[{extras}]"], check=False)
        if done.returncode:
            raise SystemExit(f"[{extras}] cannot be installed here:\n{done.stderr}")
        added = folder_mb(place) - before
        (packages,) = place.rglob("site-packages")
        sizes: Counter[str] = Counter()
        for found in metadata.distributions(path=[str(packages)]):
            if found.name in ("pip", "setuptools"):  # Size of the empty environment.
                continue
            for file in found.files or ():
                path = Path(str(file.locate()))
                if path.is_file():
                    sizes[found.name] += path.stat().st_size / 1e6
        compiled = sum(file.stat().st_size for file in packages.rglob("*.pyc")) / 1e6
        command = commands(command_line("auto", folder, python), runs, Path(folder))
    return {"mb": added, "packages": dict(sizes.most_common(8)), "compiled_mb": compiled, "command": command}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, minimum and maximum."""
    return {"median": float(np.median(values)), "least": min(values), "most": max(values)}


def measure(engine: str, runs: int) -> dict[str, Any]:
    """Start processes; return the spread of each figure."""
    with tempfile.TemporaryDirectory() as folder:
        command = commands(command_line(engine, folder), runs)
    processes = [marks_of_one_process(engine) for _ in range(runs)]
    packages, modules = imports(engine)
    return {
        "command": command,
        "marks_s": {name: spread([run["marks"][name] for run in processes]) for name in processes[0]["marks"]},
        "alone_ms": {name: spread([run["alone"][name] for run in processes]) for name in processes[0]["alone"]},
        "imports_ms": dict(packages.most_common(12)),
        "modules_ms": dict(modules.most_common(12)),
    }


def judged(report: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Return targets, measured values, and whether each is met."""
    command = report["command"]
    wall = command["wall_s"]["median"]
    found = [(f"edge-spine run --write json at most {MOST_SECONDS} s", f"{wall:.2f} s", wall <= MOST_SECONDS)]
    if "peak_mb" in command:
        peak = command["peak_mb"]["median"]
        found.append((f"at most {MOST_MB} MB", f"{peak:.0f} MB", peak <= MOST_MB))
    warm = sum(report["alone_ms"][f"second scan, {what}"]["median"] for what in ("estimate", "write json,ply,png"))
    wanted = f"json, ply and png of the second scan within {MOST_WARM_MS} ms of its reading"
    found.append((wanted, f"{warm:.0f} ms", warm <= MOST_WARM_MS))
    if "cpu" in report.get("install", {}):
        size = report["install"]["cpu"]["mb"]
        found.append((f"install of [cpu] at most {MOST_INSTALL_MB} MB", f"{size:.0f} MB", size <= MOST_INSTALL_MB))
    return found


def table(report: dict[str, Any]) -> str:
    """Return the report as text."""
    text = f"engine {report['engine']}, {report['runs']} fresh processes of each kind\n{described(report['machine'])}\n"
    lines: list[list[object]] = []
    units = {"wall_s": "s", "processor_s": "s of processor time", "peak_mb": "MB at most"}
    for name, values in report["command"].items():
        lines.append([f"edge-spine run --write json, {units[name]}", *values.values()])
    lines += [[f"{name}, s after the start", *values.values()] for name, values in report["marks_s"].items()]
    lines += [[f"{name}, ms", *values.values()] for name, values in report["alone_ms"].items()]
    text += laid_out(("", "median", "least", "most"), lines)
    for key, by in (("imports_ms", "package"), ("modules_ms", "module")):
        text += "\n\n" + laid_out((f"imports of edge-spine run by {by}, ms", ""), report[key].items())
    if "install" in report:
        rows = []
        for extras, found in report["install"].items():
            largest = ", ".join(f"{name} {size:.0f}" for name, size in found["packages"].items())
            command = found["command"]
            start, peak = command["wall_s"]["median"], command.get("peak_mb", {}).get("median")
            rows.append([f"[{extras}]", round(found["mb"]), round(found["compiled_mb"]), start, peak, largest])
        head = ("fresh install", "MB", "of them bytecode", "run there, s", "MB at most", "largest packages")
        text += "\n\n" + laid_out(head, rows)
    return text + verdicts(report["targets"])


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark from the command line."""
    parser = options_of(__doc__)
    parser.add_argument("--runs", type=int, default=9, help="fresh processes of each kind (default 9)")
    parser.add_argument("--engine", default="onnx-cpu", help="default: %(default)s")
    parser.add_argument("--install", action="store_true", help="measure fresh installs too")
    options = parser.parse_args(arguments)
    report: dict[str, Any] = {"engine": options.engine, "runs": options.runs, **measure(options.engine, options.runs)}
    if options.install:
        report["install"] = {extras: install(extras, options.runs) for extras in EXTRAS}
    report["machine"] = machine("onnxruntime", "openvino", "pydicom")
    report["targets"] = judged(report)
    print(table(report))
    write_json(options.json, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
