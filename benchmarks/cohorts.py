"""Compare the throughput of one process, a process pool, Ray and Dask on the same cohort.

`python benchmarks/cohorts.py [--scans 400] [--model spine] [--json FILE]` starts a real two-node Ray cluster and a real
Dask cluster on this machine, with one processor per worker. Start-up is the time to the first row; throughput is
measured after it. The gain of several machines is not measured.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from clusters import dask_cluster, ray_cluster
from measuring import SCAN, described, laid_out, machine, options_of, status_mb, write_json

from edge_spine.cohort import SpineBatch
from edge_spine.cohort.manifest import Scan, read_manifest
from edge_spine.cohort.pool import ProcessPool
from edge_spine.cohort.run import work_through
from edge_spine.cohort.shards import Shards, read_cohort
from edge_spine.cohort.workers import Workers
from edge_spine.processors import usable_cores


@contextmanager
def ray(batch: SpineBatch, count: int) -> Iterator[Workers]:
    """Start a Ray cluster of a head and a second node."""
    from edge_spine.cohort.on_ray import RayWorkers

    with (
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder,
        ray_cluster(Path(folder), max(1, count // 2)) as address,
        closing(RayWorkers(batch, address, count)) as workers,
    ):
        yield workers


@contextmanager
def dask(batch: SpineBatch, count: int) -> Iterator[Workers]:
    """Start a Dask scheduler and workers with one thread each."""
    from edge_spine.cohort.on_dask import DaskWorkers

    with dask_cluster(count) as (address, _), closing(DaskWorkers(batch, address)) as workers:
        yield workers


@contextmanager
def memory_of_workers() -> Iterator[list[float]]:
    """Note the memory of each worker process (MB) twice a second, on systems with /proc."""
    found: list[float] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.5):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    command = path.read_bytes()
                    if any(mark in command for mark in (b"spawn_main", b"ray::RayWorker", b"dask\0worker")):
                        found.append(status_mb("VmRSS", path.parent.name) or 0.0)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def measure(scans: list[Scan], opened: Callable[[], Any], folder: Path) -> dict[str, Any]:
    """Run a cohort; return start-up time (s), scans per second after the first row, and memory (MB)."""
    ends: list[float] = []
    started = time.perf_counter()
    with opened() as workers, closing(Shards(folder, {"benchmark": True})) as shards, memory_of_workers() as memory:
        ready = time.perf_counter()
        work_through(scans, workers, shards, lambda _row: ends.append(time.perf_counter()))
    table = read_cohort(folder)
    assert len(table) == len(scans) and set(table["status"].to_pylist()) == {"done"}
    return {
        "cluster_s": ready - started,
        "first_row_s": ends[0] - ready,
        "scans_per_s": (len(ends) - 1) / (ends[-1] - ends[0]),
        "worker_mb": max(memory, default=None),
    }


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = options_of(__doc__)
    parser.add_argument("--scans", type=int, default=400, help="copies of the bundled scan (default 400)")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="of each kind (default: all cores)")
    parser.add_argument("--model", default="spine", help="spine, lite, or a bundle's folder")
    parser.add_argument("--engine", default="auto")
    options = parser.parse_args(arguments)
    batch = SpineBatch(options.model, options.engine, 1)
    kinds: dict[str, Callable[[], Any]] = {
        "pool, 1 worker": lambda: closing(ProcessPool(batch, 1)),
        f"pool, {options.workers} workers": lambda: closing(ProcessPool(batch, options.workers)),
        f"Ray, {options.workers} workers on 2 nodes": lambda: ray(batch, options.workers),
        f"Dask, {options.workers} workers": lambda: dask(batch, options.workers),
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "scans")
        place.mkdir()
        for number in range(options.scans):
            (place / f"{number:05}.dcm").write_bytes(SCAN.read_bytes())
        scans = read_manifest(place)
        for number, (name, opened) in enumerate(kinds.items()):
            try:
                rows.append({"name": name, **measure(scans, opened, Path(folder, str(number)))})
            except ImportError as error:
                rows.append({"name": name, "problem": str(error)})
    report = {
        "machine": machine("onnxruntime", "openvino", "ray", "distributed", "pyarrow"),
        "model": options.model,
        "engine": options.engine,
        "scans": options.scans,
        "kinds": rows,
    }
    print(table(report))
    write_json(options.json, report)
    return 0


def table(report: dict[str, Any]) -> str:
    """Return the figures as a table."""
    lines, missing = [], []
    for row in report["kinds"]:
        if "problem" in row:
            missing.append(f"{row['name']}: not run: {row['problem']}")
            continue
        gain = row["scans_per_s"] / report["kinds"][0]["scans_per_s"]
        lines.append(
            [*(row[key] for key in ("name", "cluster_s", "first_row_s", "scans_per_s")), gain, row["worker_mb"]]
        )
    head = ("", "cluster starts, s", "first row, s", "scans a second", "times one worker", "memory of a worker, MB")
    text = f"{report['model']}, engine {report['engine']}, {report['scans']} scans, one thread a worker\n"
    return "\n".join([f"{text}{described(report['machine'])}", laid_out(head, lines), *missing])


if __name__ == "__main__":
    sys.exit(main())
