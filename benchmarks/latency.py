"""Measure the latency of one scan in a warm process: each stage, end to end, single stream, and throughput.

`python benchmarks/latency.py [--runs 200] [--engine auto] [--precision auto] [--threads N] [--model M] [--scan FILE]
[--seconds 10] [--workers N] [--json FILE] [--plot FILE.png]`. Timed functions alternate, so that drift of the machine
affects all equally. Single stream and offline follow the scenarios of MLPerf Inference, but shorter: single stream
starts each scan when the last is done, for at least `--runs` scans and `--seconds` seconds, and reports the
early-stopping estimate of the 90th percentile of the latency; offline reports scans per second of worker processes,
one per core, as in `batch`: on a GPU one more process holds it for them, in blocks of the size that `edge-spine build
--blocks` found. On a GPU, GPU time and energy are added (device.py).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from math import exp, lgamma, log
from pathlib import Path
from typing import Any

# Set before NumPy is imported, as the command does: OpenBLAS's threads wait for each other on small matrices.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from device import device_times, energy
from inside import engine_of
from measuring import (
    SCAN,
    described,
    laid_out,
    machine,
    options_of,
    peak_memory_mb,
    quantiles,
    ratio,
    take_turns,
    with_interval,
    write_json,
)

from edge_spine import SpineEstimator, read_scan
from edge_spine.engines import ENGINES, PRECISIONS, runs_on_gpu
from edge_spine.engines.sharing import GpuProcess, Shared
from edge_spine.errors import EdgeSpineError
from edge_spine.estimator import with_threads
from edge_spine.measure import measure
from edge_spine.outputs import write_outputs
from edge_spine.processors import usable_cores
from edge_spine.result import SpineResult

IN_A_ROW = 5
TARGET = 1.15
PERCENTILE, CONFIDENCE = 0.9, 0.99
# Reading is timed here, the other stages by the estimator.
WALK = ("read", "preprocess", "infer", "reconstruct")
WRITING = {"write json": ("json",), "write json,ply,png": ("json", "ply", "png")}
PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "pycuda", "pydicom", "nvidia-ml-py")
_START_S = 300


class Walk:
    """Process one scan repeatedly and record the time of each stage.

    Attributes
    ----------
    notes : list of dict
        ms by stage, one for each call of `end_to_end`.
    """

    def __init__(self, estimator: SpineEstimator, scan: Path, folder: Path) -> None:
        self.estimator, self.scan, self.folder = estimator, scan, folder
        self.notes: list[dict[str, float]] = []
        self.result: SpineResult = estimator(read_scan(scan))

    def infer(self) -> None:
        """Run the network alone."""
        engine_of(self.estimator).infer(self.result.prepared.tensor)

    def end_to_end(self) -> None:
        """Read the scan and estimate its spine."""
        started = time.perf_counter()
        scan = read_scan(self.scan)
        read = 1000 * (time.perf_counter() - started)
        self.result = self.estimator(scan)
        timing = self.result.timing_ms
        self.notes.append({"read": read, **{stage: timing[stage] for stage in WALK[1:]}})

    def with_json(self) -> None:
        """Read, estimate, and write result.json."""
        self.end_to_end()
        self.notes.pop()
        self.write("write json")

    def measure(self) -> None:
        """Measure the last spine again; it is a part of "reconstruct"."""
        measure(self.result.spine)

    def write(self, what: str) -> None:
        """Write the last result's files."""
        write_outputs(self.result, self.folder, WRITING[what])


def stages(walk: Walk, runs: int) -> dict[str, Any]:
    """Time the stages and the end-to-end latency, and compare it with the network alone."""
    timed = {
        "infer alone": walk.infer,
        "end to end": walk.end_to_end,
        "end to end, json": walk.with_json,
        "measure": walk.measure,
        **{what: (lambda what=what: walk.write(what)) for what in WRITING},
    }
    walk.notes.clear()
    times = take_turns(timed, runs, IN_A_ROW)
    notes = walk.notes[IN_A_ROW:]  # Without the warm-up.
    found = {stage: _summary([note[stage] for note in notes]) for stage in WALK}
    found |= {name: _summary(values) for name, values in times.items()}
    alone = times["infer alone"]
    return {
        "stages_ms": found,
        "over_infer": {name: ratio(times[name], alone) for name in ("end to end", "end to end, json")},
    }


def single_stream(walk: Walk, least_queries: int, least_seconds: float) -> dict[str, Any]:
    """Process scans one after another, as in MLPerf's single-stream scenario."""
    latencies: list[float] = []
    end = time.perf_counter() + least_seconds
    while len(latencies) < least_queries or time.perf_counter() < end:
        started = time.perf_counter()
        walk.estimator(read_scan(walk.scan))
        latencies.append(1000 * (time.perf_counter() - started))
    return {
        "queries": len(latencies),
        "ms": _summary(latencies),
        "p90_early_stopping_ms": early_stopping_estimate(latencies),
        "latencies_ms": [round(value, 3) for value in latencies],
    }


def early_stopping_estimate(latencies: list[float]) -> float | None:
    """Return the latency that 90 % of all queries stay below with 99 % confidence, or None for fewer than 64.

    MLPerf Inference's rules, appendix on early stopping, with no tolerance: of n latencies the t largest are left out,
    where t is the largest number of which seeing no more is less likely than 1 % if one in ten were truly larger.
    """
    n, most, total = len(latencies), -1, 0.0
    for over in range(n + 1):
        ways = lgamma(n + 1) - lgamma(over + 1) - lgamma(n - over + 1)
        total += exp(ways + over * log(1 - PERCENTILE) + (n - over) * log(PERCENTILE))
        if total > 1 - CONFIDENCE:
            break
        most = over
    return sorted(latencies)[n - most - 1] if most >= 1 else None


_gate: Any = None
_done: Any = None


def offline(options: argparse.Namespace, engine: str) -> dict[str, Any]:
    """Process scans in worker processes for the minimum number and time."""
    workers = options.workers or usable_cores()
    threads = options.threads or max(1, usable_cores() // workers)
    context = multiprocessing.get_context("spawn")
    counting = context.Barrier(workers), context.Value("q", 0)
    with ExitStack() as stack:
        used: str | Shared = engine
        block = 1
        if runs_on_gpu(engine):
            gpu = stack.enter_context(closing(GpuProcess(context, options.model, engine, options.precision)))
            used, block = gpu.shared or engine, gpu.opened.block
        job = (options.scan, used, options.precision, threads, options.model, options.runs, options.seconds)
        pool = stack.enter_context(ProcessPoolExecutor(workers, context, _adopt, counting))
        ended = [future.result() for future in [pool.submit(_work, *job) for _ in range(workers)]]
    began, finished = min(row["began"] for row in ended), max(row["finished"] for row in ended)
    scans = sum(row["scans"] for row in ended)
    peaks = [row["peak_mb"] for row in ended]
    return {
        "scans": scans,
        "seconds": finished - began,
        "scans_per_second": scans / (finished - began),
        "workers": workers,
        "threads_each": threads,
        "block": block,
        "peak_mb_each": None if None in peaks else max(peaks),
    }


def _adopt(gate: Any, done: Any) -> None:
    global _gate, _done
    _gate, _done = gate, done


def _work(
    scan: Path, engine: str | Shared, precision: str, threads: int, model: str, least_scans: int, least_seconds: float
) -> dict[str, Any]:
    opened = engine if isinstance(engine, str) else engine.connect()
    with with_threads(opened, model, threads, precision) as estimator:
        for _ in range(IN_A_ROW):
            estimator(read_scan(scan))
        _gate.wait(_START_S)
        began, count = time.perf_counter(), 0
        while time.perf_counter() < began + least_seconds or _done.value < least_scans:
            estimator(read_scan(scan))
            count += 1
            with _done.get_lock():
                _done.value += 1
        return {"began": began, "finished": time.perf_counter(), "scans": count, "peak_mb": peak_memory_mb()}


def _summary(values: Any) -> dict[str, float]:
    return {"least": float(np.min(values)), **quantiles(values)}


def text(report: dict[str, Any]) -> str:
    """Return the report as text."""
    names = {"reconstruct": "reconstruct, measure, judge", "measure": "  of it: measure"}
    order = (*WALK, "measure", "end to end", *WRITING, "end to end, json", "infer alone")
    rows = [(names.get(name, name), *report["stages_ms"][name].values()) for name in order]
    stream, batch = report["single_stream"], report["offline"]
    estimate = stream["p90_early_stopping_ms"]
    lines = [
        laid_out(("ms", "least", "p50", "p90", "p99"), rows),
        "",
        *(f"{name} over infer alone: {with_interval(found)}" for name, found in report["over_infer"].items()),
        f"single stream: 90 % of {stream['queries']} scans within {stream['ms']['p90']:.1f} ms"
        + (f", with early stopping {estimate:.1f} ms" if estimate else " (too few for an early-stopping estimate)"),
        f"offline: {batch['scans_per_second']:.1f} scans/s from {batch['workers']} processes of "
        f"{batch['threads_each']} threads"
        + (f", in blocks of {batch['block']}" if batch["block"] > 1 else "")
        + (f", {batch['peak_mb_each']:.0f} MB at most each" if batch["peak_mb_each"] else ""),
    ]
    for what, found in report["gpu"].items():
        shown = found.get("reason") or ", ".join(f"{key} {value}" for key, value in found.items())
        lines.append(f"{what}: {shown}")
    lines += [f"{row['target']}: {row['found']:.2f}, {'met' if row['met'] else 'MISSED'}" for row in report["targets"]]
    return "\n".join(lines)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything and return the report."""
    with (
        tempfile.TemporaryDirectory() as folder,
        SpineEstimator(options.engine, options.model, options.threads, options.precision) as estimator,
    ):
        model = estimator.model
        walk = Walk(estimator, options.scan, Path(folder))
        report: dict[str, Any] = {
            "machine": machine(*PACKAGES),
            "model": {"name": model["name"], "version": model["version"]},
            "engine": model["engine"],
            "precision": model["precision"],
            "threads": options.threads,
            "runs": options.runs,
            "scan": {"source": walk.result.scan.source, "shape": list(walk.result.scan.pixels.shape)},
            **stages(walk, options.runs),
            "single_stream": single_stream(walk, options.runs, options.seconds),
            "gpu": {
                "device time": device_times(engine_of(estimator), walk.result.prepared.tensor, options.runs),
                "energy": energy(model["engine"], walk.infer, options.seconds),
            },
        }
    found = report["over_infer"]["end to end"]["ratio"]
    wanted = f"end to end at most {TARGET:g} times inference alone"
    report["targets"] = [{"target": wanted, "found": found, "met": found <= TARGET}]
    # the workers take longest to start: what a limit of time cuts off there must not cost what was measured
    write_json(options.json, report)
    report["offline"] = offline(options, report["engine"])
    return report


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = options_of(__doc__)
    parser.add_argument("--runs", type=int, default=200, help="minimum number of runs")
    parser.add_argument("--engine", choices=ENGINES, default="auto")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--threads", type=int, help="threads of the engine (default: its own choice)")
    parser.add_argument("--model", default="spine", help="a packaged model or the folder of a bundle")
    parser.add_argument("--scan", type=Path, default=SCAN, help="a DICOM file (default: the bundled scan)")
    parser.add_argument("--seconds", type=float, default=10.0, help="minimum time of single stream and of offline")
    parser.add_argument("--workers", type=int, help="processes of offline (default: one per core)")
    parser.add_argument("--plot", type=Path, help="write a picture here, PNG")
    options = parser.parse_args(arguments)
    if options.runs < 1 or (options.workers is not None and options.workers < 1):
        parser.error("--runs and --workers are whole numbers from 1")
    try:
        report = run(options)
    except EdgeSpineError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{described(report['machine'])}\n{report['engine']} {report['precision']}, model {report['model']['name']}\n"
    )
    print(text(report))
    write_json(options.json, report)
    if options.plot is not None:
        from latency_plot import draw

        draw(report, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
