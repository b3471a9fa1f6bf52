"""Run a cohort: send the remaining scans to the workers, and write their rows to the shards."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from edge_spine.bundle import load_bundle
from edge_spine.cohort.batch import SpineBatch, entry_of
from edge_spine.cohort.manifest import Scan, read_manifest
from edge_spine.cohort.pool import ProcessPool
from edge_spine.cohort.rows import End, Row, end_of, lost_row
from edge_spine.cohort.shards import Shards
from edge_spine.cohort.tables import participants, remove_tables, write_tables
from edge_spine.cohort.workers import Finished, Workers
from edge_spine.errors import EdgeSpineError, reason_of
from edge_spine.outputs.registry import FORMATS
from edge_spine.processors import usable_cores
from edge_spine.reading.checks import storable
from edge_spine.reading.files import find_scans

SCANS_A_CHUNK = 8
# Enough that no worker is idle, few enough that a crash repeats little work.
CHUNKS_A_WORKER = 2
# Deaths are counted only while the scan is processed alone, so that the cause is certain.
MOST_DEATHS = 3
_LOOK_S = 1.0


@dataclass(frozen=True)
class Outcome:
    """Number of scans by (status, code), earlier runs included, and the reason why tables were not written."""

    ends: Counter[End]
    earlier: int
    problem: str | None = None

    def line(self) -> str:
        """Return a one-line summary."""
        counts = sorted(self.ends.items())
        ends = [f"{n} {status}" + (f" ({code})" if code not in ("", status) else "") for (status, code), n in counts]
        earlier = f"; {self.earlier} of them by earlier runs" if self.earlier else ""
        total = self.ends.total()
        return f"{total} scan{'' if total == 1 else 's'}: {', '.join(ends)}{earlier}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: ``scans``, ``earlier``, ``problem``, and ``ends``, a list of counts."""
        counts = sorted(self.ends.items())
        ends = [{"status": status, "code": code or None, "count": number} for (status, code), number in counts]
        return {"scans": self.ends.total(), "earlier": self.earlier, "problem": self.problem, "ends": ends}

    def good(self, *, refusals_ok: bool = False) -> bool:
        """Return whether the tables are written and every scan is done, or with `refusals_ok` refused."""
        accepted = {"done", "refused"} if refusals_ok else {"done"}
        return self.problem is None and {status for status, _ in self.ends} <= accepted


def run_cohort(
    manifest: Path,
    out: Path,
    batch: SpineBatch,
    began: Callable[[int], None],
    seen: Callable[[Row], None],
    *,
    pixel_spacing_mm: tuple[float, float] | None = None,
    workers: int | None = None,
    ray: str | None = None,
    dask: str | None = None,
    retry_failed: bool = False,
    bids: bool = False,
) -> Outcome:
    """Estimate the spine in the scans of a manifest, and return the counts of them all.

    Parameters
    ----------
    out : Path
        Folder of the results; an unfinished run there is continued.
    batch : SpineBatch
        Work to do. With several workers, `threads` is 1 where it is not given.
    began, seen : callable
        Called once with the number of scans that are left to do, and with each new row.
    workers : int, optional
        Number of processes or Ray actors; all processors by default.
    ray, dask : str, optional
        Address of a cluster to use instead of processes on this machine.
    bids : bool
        Write the participants of a BIDS data set too.

    Raises
    ------
    UsageError
        The manifest or the folder cannot be used, no cluster answers at the address, or as
        `edge_spine.cohort.tables.participants`.
    EdgeSpineError
        No worker can work.
    """
    scans = read_manifest(manifest, pixel_spacing_mm)
    if bids:
        participants(scans)
    bundle = load_bundle(batch.model)
    note = {
        "schema": "edge-spine/cohort/1",
        "model": f"{bundle.name} {bundle.version}",
        "model_sha256": bundle.sha256,
        "precision": batch.precision,
        "imager_spacing": batch.imager_spacing,
    }
    threads = batch.threads
    if threads is None and (ray or dask or (workers or usable_cores()) > 1):
        # Several workers use all processors together; more threads would compete for them.
        threads = 1
    batch = replace(batch, threads=threads, model_sha256=bundle.sha256)
    with closing(Shards(out, note)) as shards:
        left, earlier = left_to_do(scans, shards, batch, retry_failed=retry_failed)
        began(len(left))
        ends: Counter[End] = Counter()

        def count(row: Row) -> None:
            ends[end_of(row)] += 1
            seen(row)

        if left:
            remove_tables(out)
            with closing(_workers(batch, workers, ray, dask)) as opened:
                work_through(left, opened, shards, count)
        shards.write()
        problem = None
        try:
            write_tables(out, scans, bids=bids)
        except OSError as error:
            place = Path(error.filename2 or error.filename or "").name or "the tables"
            why = reason_of(error)
            problem = f"{place} cannot be written ({why}); all results are kept; run the same command again"
    return Outcome(earlier.ends + ends, earlier.earlier, problem)


def _workers(batch: SpineBatch, count: int | None, ray: str | None, dask: str | None) -> Workers:
    if ray:
        from edge_spine.cohort.on_ray import RayWorkers

        return RayWorkers(batch, ray, count)
    if dask:
        from edge_spine.cohort.on_dask import DaskWorkers

        return DaskWorkers(batch, dask)
    return ProcessPool(batch, count)


def left_to_do(
    scans: Iterable[Scan], shards: Shards, batch: SpineBatch, *, retry_failed: bool
) -> tuple[list[Scan], Outcome]:
    """Return the scans that have no valid row in `shards`, and the counts of those that have one.

    A row is valid where it was made by the model and options of `batch`, the files of a scan that is done exist, and
    its own file was not modified since; for a folder, where it holds the same scans. `retry_failed` returns failed
    scans too; a scan whose rows all failed is returned by nothing else.
    """
    ended = shards.ended()
    left = []
    ends: Counter[End] = Counter()
    for scan in scans:
        found = ended.get((storable(scan.id), storable(scan.path)), [])
        valid = bool(found) and all(_is_valid(row, scan, batch) for row in found) and not _has_changed(scan, found)
        if not valid or (retry_failed and any(row["status"] == "failed" for row in found)):
            left.append(scan)
        else:
            ends.update(map(end_of, found))
    return left, Outcome(ends, ends.total())


def _is_valid(row: Row, scan: Scan, batch: SpineBatch) -> bool:
    # rows of a worker that died have no decision
    if row["decided_by"] not in (None, batch.decided_by(scan)):
        return False
    if row["status"] != "done" or batch.folder is None:
        return True
    return bool(row["folder"]) and all(
        Path(batch.folder, row["folder"], FORMATS[name].filename).is_file() for name in batch.formats
    )


def _has_changed(scan: Scan, found: list[Row]) -> bool:
    """Return whether files were modified, or came to a folder or went from it, since their rows were written."""
    if all(row["status"] == "failed" for row in found):
        return False
    # without those from clocks that are fast, which would be done again each time
    span = min(row["written"] for row in found), time.time()
    try:
        files = [Path(scan.path)]
        if os.path.isdir(scan.path):  # noqa: PTH112  # False where it cannot be looked at
            listed = find_scans(files)
            if {storable(entry_of(scan, file) or "") for file in listed} != {row["entry"] or "" for row in found}:
                return True
            files = [file.path for file in listed]
        return any(span[0] < path.stat().st_mtime <= span[1] for path in files)
    except (EdgeSpineError, OSError):
        # what is away now does not make its results wrong
        return False


def work_through(
    scans: Iterable[Scan], workers: Workers, shards: Shards, seen: Callable[[Row], None], chunk: int = SCANS_A_CHUNK
) -> None:
    """Process all scans; no scan is lost when a worker dies.

    The scans of a chunk whose worker died are repeated one by one with no other work running, which identifies a scan
    that crashes its worker; after `MOST_DEATHS` such crashes it gets a row with the code "worker-died". `scans` are
    consumed lazily, and `seen` is called with each row.
    """
    source = iter(scans)
    suspects: deque[Scan] = deque()
    deaths: Counter[Scan] = Counter()
    alone: Scan | None = None
    under_way = 0

    def keep(rows: list[Row]) -> None:
        shards.add(rows)
        for row in rows:
            seen(row)

    def take(finished: Finished) -> None:
        if not finished.lost:
            keep(finished.rows)
            return
        for scan in finished.scans:
            deaths[scan] += scan is alone
            if deaths[scan] < MOST_DEATHS:
                suspects.append(scan)
            else:
                keep([lost_row(scan.id, scan.path, MOST_DEATHS)])

    while True:
        if suspects and not under_way:
            alone = suspects.popleft()
            workers.submit((alone,))
            under_way = 1
        elif not suspects and alone is None:
            while under_way < CHUNKS_A_WORKER * workers.count and (following := tuple(islice(source, chunk))):
                workers.submit(following)
                under_way += 1
        if not under_way:
            return
        for finished in workers.wait(_LOOK_S):
            under_way -= 1
            take(finished)
        if not under_way:
            alone = None
        shards.write_if_due()
