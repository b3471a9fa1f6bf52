"""Measure time and memory over 10,000 scans in one process, images of many sizes, and threads that share an estimator.

`python benchmarks/scaling.py [--scans 10000] [--runs 15] [--engine auto] [--model M] [--only scans|sizes|threads]
[--json FILE]`. All images are the bundled synthetic scan, resampled to other pixel sizes, as DICOM files. Scans of one
process alternate between three sizes and write result.json; time and memory are recorded at the 1st, 10th, 100th, ...
scan, and memory counts as constant if the last value is within 5 % of the 100th. Each size and number of threads runs
in a process of its own, to measure its peak memory.

One thread and two that share an estimator take turns, with one thread inside the engine and OpenCV, of each engine that
runs here. On Linux the time of a call is divided into that on a processor, that in which the thread could run but other
threads or programs had the processors, and that in which it waited for others: locks, Python's interpreter, or a thread
of the engine. Without the second, which is a matter of the machine, the gain of a second thread is what it is on a
machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import io
import math
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from measuring import (
    SCAN,
    described,
    laid_out,
    machine,
    memory_mb,
    options_of,
    peak_memory_mb,
    quantiles,
    verdicts,
    write_json,
)
from numpy.typing import NDArray
from trials import opened

from edge_spine import SpineEstimator, read_scan
from edge_spine.engines import ENGINES, engine_problems
from edge_spine.errors import EdgeSpineError, Refusal
from edge_spine.outputs import write_outputs
from edge_spine.scan import Scan

# Sizes of scanners and of other exports.
ONE_PROCESS = ((791, 272), (600, 206), (1200, 412))
SIZES = ((300, 100), (400, 138), (791, 272), (1600, 550), (3200, 1100), (5600, 2000), (8000, 3000))
REFUSED = ((90, 31), (8400, 3000))
THREADS = (1, 2)
# calls of each thread in a turn; gain that is wanted of a second thread
CALLS, GAIN = 20, 1.6
FLAT, FLAT_FROM = 0.05, 100
STAGES = ("read", "preprocess", "infer", "reconstruct")
PACKAGES = ("onnxruntime", "openvino", "pydicom", "psutil")


def resampled(rows: int, columns: int) -> bytes:
    """Return the bundled scan resampled to another number of pixels, as an 8-bit DICOM file."""
    dataset = pydicom.dcmread(SCAN)
    finer = rows * columns > dataset.Rows * dataset.Columns
    how = cv2.INTER_CUBIC if finer else cv2.INTER_AREA
    pixels = cv2.resize(dataset.pixel_array, (columns, rows), interpolation=how)
    dataset.Rows, dataset.Columns, dataset.PixelData = rows, columns, np.ascontiguousarray(pixels).tobytes()
    dataset["PixelData"].VR = "OB"
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def marks(scans: int) -> list[int]:
    """Return 1, 10, 100, ... and the number of scans."""
    return sorted({10**power for power in range(len(str(scans)))} | {scans})


def many_scans(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Process many scans in this process, and record time and memory."""
    files = []
    for rows, columns in ONE_PROCESS:
        files.append(folder / f"{rows}.dcm")
        files[-1].write_bytes(resampled(rows, columns))
    rows_found: list[dict[str, Any]] = []
    times: list[float] = []
    with SpineEstimator(options.engine, options.model) as estimator:
        for count, file in zip(range(1, options.scans + 1), cycle(files), strict=False):
            started = time.perf_counter()
            write_outputs(estimator(read_scan(file)), folder / "out", ("json",))
            times.append(1000 * (time.perf_counter() - started))
            if count in marks(options.scans):
                rows_found.append({"scans": count, "ms": quantiles(times), "memory_mb": memory_mb()})
                times.clear()
        engine = estimator.model["engine"]
    return {"engine": engine, "marks": rows_found, "peak_mb": peak_memory_mb(), **flatness(rows_found)}


def flatness(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare memory at the last mark with that at the 100th scan; None if there are fewer scans."""
    by_count = {row["scans"]: row["memory_mb"] for row in rows}
    first, last = by_count.get(FLAT_FROM), rows[-1]["memory_mb"]
    if rows[-1]["scans"] <= FLAT_FROM or first is None or last is None:
        return {"growth": None, "flat": None}
    return {"growth": last / first - 1, "flat": abs(last / first - 1) <= FLAT}


def one_size(job: tuple[int, int, int, int, str, str]) -> dict[str, Any]:
    """Time the stages of one image size, without the first run."""
    rows, columns, threads, runs, engine, model = job
    found: dict[str, Any] = {"rows": rows, "columns": columns, "threads": threads, "code": None}
    cv2.setNumThreads(threads)
    with tempfile.TemporaryDirectory() as folder, SpineEstimator(engine, model, threads) as estimator:
        file = Path(folder) / "scan.dcm"
        file.write_bytes(resampled(rows, columns))
        estimator(read_scan(SCAN))
        found["memory_before_mb"], stages = memory_mb(), []
        try:
            for _ in range(runs + 1):
                started = time.perf_counter()
                scan = read_scan(file)
                read = 1000 * (time.perf_counter() - started)
                timing = estimator(scan).timing_ms
                stages.append((read, *(timing[stage] for stage in STAGES[1:])))
        except Refusal as refusal:
            return {**found, "code": refusal.code}
    table = np.array(stages[1:])
    found["ms"] = dict(zip(STAGES, np.median(table, axis=0).tolist(), strict=True))
    found["least_ms"] = dict(zip(STAGES, table.min(axis=0).tolist(), strict=True))
    found["total_ms"] = float(np.median(table.sum(axis=1)))
    return {**found, "peak_mb": peak_memory_mb()}


def sizes(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time every size with every number of threads."""
    jobs = [
        (rows, columns, threads, options.runs, options.engine, options.model)
        for rows, columns in (*SIZES, *REFUSED)
        for threads in THREADS
    ]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.map(one_size, jobs, chunksize=1)


def _on_processor_and_waiting() -> tuple[float, float]:
    """Return the time of this thread on a processor and waiting for one, ms; nan where the system does not tell."""
    try:
        used, waited = Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[:2]
    except (OSError, ValueError):
        return math.nan, math.nan
    return int(used) / 1e6, int(waited) / 1e6


def together(estimate: Callable[[Scan], object], scan: Scan, count: int, calls: int) -> NDArray[np.float64]:
    """Call from several threads at once; return scans a second, and ms a call: all, on a processor, waiting for one."""
    begin, found = threading.Barrier(count), []

    def work() -> None:
        begin.wait()
        before, started = _on_processor_and_waiting(), time.perf_counter()
        for _ in range(calls):
            estimate(scan)
        total = 1000 * (time.perf_counter() - started)
        after = _on_processor_and_waiting()
        found.append((total, after[0] - before[0], after[1] - before[1]))

    threads = [threading.Thread(target=work) for _ in range(count)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    return np.array([count * calls / seconds, *np.mean(found, axis=0) / calls])


def sharing(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time one thread and two, in turns, with each engine that runs here."""
    cv2.setNumThreads(1)
    rows, scan = [], read_scan(SCAN)
    for engine in [name for name, problem in engine_problems().items() if problem is None]:
        with opened(engine, options.model) as estimator:
            turns = []
            for turn in range(options.runs + 1):
                order = THREADS if turn % 2 else THREADS[::-1]
                timed = {count: together(estimator, scan, count, CALLS) for count in order}
                turns.append([timed[count] for count in THREADS])
            shown = estimator.model
        rows.append({"model": shown["name"], "engine": f"{engine} {shown['precision']}", **gains(np.array(turns[1:]))})
    return rows


def gains(turns: NDArray[np.float64]) -> dict[str, Any]:
    """Compare the throughput of one thread with that of two that share an estimator.

    Parameters
    ----------
    turns : (turns, 2, 4) array
        From `together`, for one thread and for two.
    """
    rate, total, used, waited = np.moveaxis(np.median(turns, axis=0), 1, 0)
    alone = total - waited
    return {
        "scans_per_s": rate.tolist(),
        "on_processor_ms": used.tolist(),
        "waiting_for_processor_ms": waited.tolist(),
        "waiting_for_others_ms": (alone - used).tolist(),
        "gain": float(np.median(turns[:, 1, 0] / turns[:, 0, 0])),
        "gain_without_waiting_for_processor": None if math.isnan(alone[0]) else float(2 * alone[0] / alone[1]),
    }


def text_of_sharing(rows: list[dict[str, Any]]) -> str:
    """Return one thread and two as a table, and the gain."""
    head = (
        "model",
        "engine",
        "threads",
        "scans a second",
        "on a processor, ms",
        "waiting for one, ms",
        "for others, ms",
    )
    keys = ("scans_per_s", "on_processor_ms", "waiting_for_processor_ms", "waiting_for_others_ms")
    cells = [
        (row["model"], row["engine"], count, *(row[key][place] for key in keys))
        for row in rows
        for place, count in enumerate(THREADS)
    ]
    targets = []
    for row in rows:
        alone = row["gain_without_waiting_for_processor"]
        shown = f"{row['gain']:.2f}" + ("" if alone is None else f", {alone:.2f} without waiting for a processor")
        gain = row["gain"] if alone is None else alone
        targets.append((f"{row['engine']}: two threads at least {GAIN} times one", shown, gain >= GAIN))
    return f"{laid_out(head, cells)}{verdicts(targets)}"


def text_of_scans(found: dict[str, Any]) -> str:
    """Return time and memory at the marks as a table."""
    table = laid_out(
        ("scan", "p50, ms", "p90, ms", "memory now, MB"),
        [(f"{row['scans']:,}", row["ms"]["p50"], row["ms"]["p90"], row["memory_mb"]) for row in found["marks"]],
    )
    if found["flat"] is None:
        return f"{table}\nmemory: too few scans to judge"
    verdict = "met" if found["flat"] else "MISSED"
    return f"{table}\nmemory flat within {FLAT:.0%} from the {FLAT_FROM}th scan on: {found['growth']:+.1%}, {verdict}"


def text_of_sizes(rows: list[dict[str, Any]]) -> str:
    """Return the stages of each size as a table."""
    cells: list[tuple[object, ...]] = []
    for row in rows:
        size = f"{row['rows']:,} x {row['columns']:,}"
        if row["code"]:
            cells.append((size, row["threads"], f"refused: {row['code']}"))
            continue
        rest = row["total_ms"] - row["ms"]["infer"]
        each = 1e6 * rest / (row["rows"] * row["columns"])
        cells.append((size, row["threads"], *row["ms"].values(), row["total_ms"], each, row["peak_mb"]))
    head = ("image", "threads", *(f"{stage}, ms" for stage in STAGES), "all, ms", "but infer, ns/pixel", "peak, MB")
    return laid_out(head, [(*row, *[None] * (len(head) - len(row))) for row in cells])


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = options_of(__doc__)
    parser.add_argument("--scans", type=int, default=10_000, help="scans in one process")
    parser.add_argument("--runs", type=int, default=15, help="runs of each size, and turns of threads")
    parser.add_argument("--engine", choices=ENGINES, default="auto")
    parser.add_argument("--model", default="spine", help="a packaged model or the folder of a bundle")
    parser.add_argument("--only", choices=("scans", "sizes", "threads"), help="run only one of the parts")
    options = parser.parse_args(arguments)
    if options.scans < 1 or options.runs < 1:
        parser.error("--scans and --runs are whole numbers from 1")
    report: dict[str, Any] = {"machine": machine(*PACKAGES), "runs": options.runs}
    print(described(report["machine"]))
    try:
        if options.only in (None, "scans"):
            with tempfile.TemporaryDirectory() as folder:
                report["scans"] = many_scans(options, Path(folder))
            print(f"\n{text_of_scans(report['scans'])}", flush=True)
        if options.only in (None, "sizes"):
            report["sizes"] = sizes(options)
            print(f"\n{text_of_sizes(report['sizes'])}")
        if options.only in (None, "threads"):
            report["threads"] = sharing(options)
            print(f"\n{text_of_sharing(report['threads'])}")
    except EdgeSpineError as error:
        print(error, file=sys.stderr)
        return 1
    write_json(options.json, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
