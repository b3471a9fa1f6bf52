"""The process pool: a worker that dies, and the end of its processes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from edge_spine.cohort import SpineBatch
from edge_spine.cohort import pool as pool_module
from edge_spine.cohort.manifest import Scan, read_manifest
from edge_spine.cohort.pool import ProcessPool
from edge_spine.cohort.rows import Row, row_of
from edge_spine.cohort.run import work_through
from edge_spine.cohort.shards import Shards
from edge_spine.errors import EngineLost
from edge_spine.quantities import ROWS_OF_209
from edge_spine.runner import Report
from tests.edge_spine.cohort.conftest import BUNDLED, LITE_NOTE, NOTE, check_whole, make_cohort
from tests.edge_spine.engines import fake_gpu

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.hazard("killed")
@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(manifest: Path, tmp_path: Path) -> None:
    batch = SpineBatch("lite", "onnx-cpu", 1)
    rows: list[Row] = []
    with closing(Shards(tmp_path / "out", LITE_NOTE)) as shards, closing(ProcessPool(batch, 2)) as pool:

        def seen(row: Row) -> None:
            rows.append(row)
            if len(rows) == 3:
                multiprocessing.active_children()[0].kill()

        work_through(read_manifest(manifest), pool, shards, seen, chunk=2)
    assert len(rows) == 24
    check_whole(tmp_path / "out", 24)


def test_close_ends_the_processes(tmp_path: Path) -> None:
    pool = ProcessPool(WaitingBatch(), 2)
    for number in range(2):
        pool.submit((Scan(f"{number}", f"/{number}"),))
    deadline = time.monotonic() + 60
    while len(multiprocessing.active_children()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = multiprocessing.active_children()
    pool.close()
    pool.close()
    assert len(workers) == 2 and not any(worker.is_alive() for worker in workers)


class LargeBatch(SpineBatch):
    """FAKE work: make a file, then return rows so large that sending them takes a while."""

    def rows(self, scans: tuple[Scan, ...]) -> list[Row]:
        rows = [{"id": scan.id, "large": b"x" * 60_000_000} for scan in scans]
        Path(str(self.folder), scans[0].id).touch()
        return rows


# Runs in a process of its own, since a pool that is not closed keeps its process for ever.
CLOSING = """
import sys, time
from pathlib import Path
from edge_spine.cohort.manifest import Scan
from edge_spine.cohort.pool import ProcessPool
from tests.edge_spine.cohort.test_pool import LargeBatch

if __name__ == "__main__":
    folder, later = Path(sys.argv[1]), float(sys.argv[2])
    pool = ProcessPool(LargeBatch(folder=str(folder)), 2)
    for name in "AB":
        pool.submit((Scan(name, f"/{name}"),))
    while not any(folder.iterdir()):
        time.sleep(0.001)
    time.sleep(later)
    pool.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("later", [0.0, 0.02, 0.05])
def test_close_does_not_wait_for_rows_that_were_being_sent(tmp_path: Path, later: float) -> None:
    """If a worker ended in the middle of a message, the executor would wait for the rest of it for ever."""
    subprocess.run([sys.executable, "-c", CLOSING, str(tmp_path), str(later)], cwd=ROOT, check=True, timeout=60)


class WaitingBatch(SpineBatch):
    """FAKE work that never ends."""

    def rows(self, scans: tuple[Scan, ...]) -> list[Row]:
        time.sleep(3600)
        return []


class FatalBatch(SpineBatch):
    """FAKE work: no model, and one scan ends the process that has it, as a fault in a native library would."""

    def rows(self, scans: tuple[Scan, ...]) -> list[Row]:
        if any(scan.id == "P07" for scan in scans):
            os._exit(1)
        return [row_of(scan.id, scan.path, None, Report(scan.path, "done"), None) for scan in scans]


@pytest.mark.slow
def test_a_scan_that_ends_its_worker_becomes_a_row_and_costs_no_other(manifest: Path, tmp_path: Path) -> None:
    rows: list[Row] = []
    with closing(Shards(tmp_path / "out", NOTE)) as shards, closing(ProcessPool(FatalBatch(), 2)) as pool:
        work_through(read_manifest(manifest), pool, shards, rows.append, chunk=3)
    ends = {row["id"]: (row["status"], row["code"]) for row in rows}
    assert len(rows) == len(ends) == 24
    assert ends.pop("P07") == ("failed", "worker-died")
    assert set(ends.values()) == {("done", None)}


class LosingBatch(SpineBatch):
    """FAKE work: no model, and the engine of the process that has one scan for the first time is lost."""

    def rows(self, scans: tuple[Scan, ...]) -> list[Row]:
        mark = Path(str(self.folder), "lost")
        if any(scan.id == "P07" for scan in scans) and not mark.exists():
            mark.touch()
            raise EngineLost("tensorrt: the GPU failed")
        return [row_of(scan.id, scan.path, None, Report(scan.path, "done"), None) for scan in scans]


@pytest.mark.slow
def test_scans_of_a_lost_engine_are_done_in_a_new_process(manifest: Path, tmp_path: Path) -> None:
    rows: list[Row] = []
    batch = LosingBatch(folder=str(tmp_path))
    with closing(Shards(tmp_path / "out", NOTE)) as shards, closing(ProcessPool(batch, 2)) as pool:
        work_through(read_manifest(manifest), pool, shards, rows.append, chunk=3)
    assert (tmp_path / "lost").exists()
    assert len(rows) == 24 and {row["status"] for row in rows} == {"done"}


def same(row: Row) -> Row:
    """A row without what may differ: times, and the engine's name."""
    return {name: value for name, value in row.items() if not name.endswith("_ms") and name != "model_engine"}


@pytest.mark.slow
@pytest.mark.parametrize("fails_at", [None, 5], ids=["", "the GPU fails"])
def test_one_process_holds_the_gpu_and_the_results_are_those_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fails_at: int | None
) -> None:
    """The GPU is a FAKE, and notes which processes open it."""
    notes = tmp_path / "notes"
    notes.mkdir()
    monkeypatch.setenv(fake_gpu.NOTES, str(notes))
    if fails_at is not None:
        monkeypatch.setenv(fake_gpu.FAILS_AT, str(fails_at))
    monkeypatch.setattr(pool_module, "runs_on_gpu", lambda engine: engine == "tensorrt")
    monkeypatch.setattr(pool_module, "_initialise", fake_gpu.initialise)
    (tmp_path / "in").mkdir()
    scans = list(read_manifest(make_cohort(tmp_path / "in", 8)))
    rows: list[Row] = []
    batch = SpineBatch("lite", "tensorrt", 1)
    with closing(Shards(tmp_path / "out", LITE_NOTE)) as shards, closing(ProcessPool(batch, 2)) as pool:
        work_through(scans, pool, shards, rows.append, chunk=2)
    check_whole(tmp_path / "out", 8)
    plain = {row["id"]: same(row) for row in SpineBatch("lite", "onnx-cpu", 1).rows(scans)}
    assert {row["id"] for row in rows} == set(plain)
    for row in rows:
        for name, value in same(row).items():
            expected = plain[row["id"]][name]
            # NumPy's library adds in another order with another number of threads
            numbers = isinstance(value, float) or name in ROWS_OF_209
            assert value == (pytest.approx(expected, abs=1e-3) if numbers and value is not None else expected), name
    assert {row["model_engine"] for row in rows if row["status"] == "done"} == {"tensorrt"}
    assert len(list(notes.iterdir())) == (1 if fails_at is None else 2)


@pytest.mark.slow
def test_auto_that_finds_no_gpu_lets_each_worker_open_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(fake_gpu.NOTES, str(tmp_path))
    monkeypatch.setenv(fake_gpu.NAME, "onnx-cpu")
    monkeypatch.setattr(pool_module, "runs_on_gpu", lambda engine: engine == "auto")
    monkeypatch.setattr(pool_module, "_initialise", fake_gpu.initialise)
    with closing(ProcessPool(SpineBatch("lite", "auto", 1), 1)) as pool:
        pool.submit((Scan("A", str(BUNDLED)),))
        (finished,) = pool.wait(120)
    assert [row["model_engine"] for row in finished.rows] == ["onnx-cpu"]
