"""Compare the throughput of one process, a process pool, Ray and Dask on the same cohort.

`python benchmarks/cohorts.py [--scans 400] [--model spine] [--json FILE]` starts a real two-node Ray cluster and a real
Dask cluster on this machine, with one processor per worker. Start-up is the time to the first row; throughput is
measured after it. The gain of several machines is not measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from measuring import ROOT, described, laid_out, machine, write_json

from benchmarks.clusters import dask_cluster, ray_cluster
from edge_spine.cohort import SpineBatch
from edge_spine.cohort.manifest import Scan, read_manifest
from edge_spine.cohort.pool import ProcessPool, usable_cores
from edge_spine.cohort.rows import Row
from edge_spine.cohort.run import work_through
from edge_spine.cohort.shards import Shards, read_cohort
from edge_spine.cohort.workers import Workers

BUNDLED = ROOT / "edge_spine/data/synthetic_whole_body.dcm"


@contextmanager
def pool(batch: SpineBatch, count: int) -> Iterator[Workers]:
    """Start a process pool."""
    with closing(ProcessPool(batch, count)) as workers:
        yield workers


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


class Watch:
    """Peak memory of any worker process while the context is active, on systems with /proc."""

    def __init__(self) -> None:
        self.most_mb: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.5):
            for path in Path("/proc").glob("[0-9]*/status"):
                with suppress(OSError, ValueError):
                    command = (path.parent / "cmdline").read_bytes()
                    if not any(mark in command for mark in (b"spawn_main", b"ray::RayWorker", b"dask\0worker")):
                        continue
                    held = int(path.read_text().partition("VmRSS:")[2].split()[0]) * 1024 / 1e6
                    self.most_mb = max(held, self.most_mb or 0.0)


def measure(scans: list[Scan], opened: Callable[[], Any], folder: Path) -> dict[str, Any]:
    """Run a cohort; return start-up time (s), scans per second after the first row, and memory (MB)."""
    ends: list[float] = []

    def seen(row: Row) -> None:
        ends.append(time.perf_counter())

    started = time.perf_counter()
    with opened() as workers, closing(Shards(folder, {"benchmark": True})) as shards, Watch() as watch:
        ready = time.perf_counter()
        work_through(scans, workers, shards, seen)
    table = read_cohort(folder)
    assert len(table) == len(scans) and set(table["status"].to_pylist()) == {"done"}
    return {
        "cluster_s": ready - started,
        "first_row_s": ends[0] - ready,
        "scans_per_s": (len(ends) - 1) / (ends[-1] - ends[0]),
        "worker_mb": watch.most_mb,
    }


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=400, help="copies of the bundled scan (default 400)")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="of each kind (default: all cores)")
    parser.add_argument("--model", default="spine", help="spine, lite, or a bundle's folder")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args(arguments)
    batch = SpineBatch(options.model, options.engine, 1)
    kinds: dict[str, Callable[[], Any]] = {
        "pool, 1 worker": lambda: pool(batch, 1),
        f"pool, {options.workers} workers": lambda: pool(batch, options.workers),
        f"Ray, {options.workers} workers on 2 nodes": lambda: ray(batch, options.workers),
        f"Dask, {options.workers} workers": lambda: dask(batch, options.workers),
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "scans")
        place.mkdir()
        for number in range(options.scans):
            (place / f"{number:05}.dcm").write_bytes(BUNDLED.read_bytes())
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
    first = report["kinds"][0]["scans_per_s"]
    lines = [
        [
            row["name"],
            row["cluster_s"],
            row["first_row_s"],
            row["scans_per_s"],
            row["scans_per_s"] / first,
            row["worker_mb"],
        ]
        for row in report["kinds"]
        if "problem" not in row
    ]
    head = ("", "cluster starts, s", "first row, s", "scans a second", "times one worker", "memory of a worker, MB")
    text = f"{report['model']}, engine {report['engine']}, {report['scans']} scans, one thread a worker\n"
    text += f"{described(report['machine'])}\n{laid_out(head, lines)}"
    for row in report["kinds"]:
        if "problem" in row:
            text += f"\n{row['name']}: not run: {row['problem']}"
    return text


if __name__ == "__main__":
    sys.exit(main())
