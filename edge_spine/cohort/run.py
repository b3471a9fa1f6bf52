"""A whole run: what is left to do goes to the workers, what comes back goes to the shards."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from edge_spine.cohort.manifest import Scan
from edge_spine.cohort.rows import Row, lost_row
from edge_spine.cohort.shards import Shards
from edge_spine.cohort.workers import Finished, Workers

SCANS_A_CHUNK = 8
# enough that no worker waits for the next, few enough that a crash repeats little
CHUNKS_A_WORKER = 2
# counted while a scan has the workers to itself, so that it is to blame
MOST_DEATHS = 3
_LOOK_S = 1.0


@dataclass(frozen=True)
class Outcome:
    """How many scans ended how, by (status, code), this run's and earlier ones'."""

    ends: Counter[tuple[str, str]]
    earlier: int

    def line(self) -> str:
        """Return it as a line for people."""
        said = ", ".join(
            f"{number} {status}" + (f" ({code})" if code else "") for (status, code), number in self._sorted()
        )
        return f"{self.ends.total()} scans: {said}" + (
            f"; {self.earlier} of them by earlier runs" if self.earlier else ""
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON: ``scans``, ``earlier``, and ``ends``, a list of status, code and count."""
        ends = [{"status": status, "code": code or None, "count": number} for (status, code), number in self._sorted()]
        return {"scans": self.ends.total(), "earlier": self.earlier, "ends": ends}

    def _sorted(self) -> list[tuple[tuple[str, str], int]]:
        return sorted(self.ends.items())

    @property
    def all_done(self) -> bool:
        """Whether every scan of the manifest is done."""
        return all(status == "done" for status, _ in self.ends)


def left_to_do(scans: Iterable[Scan], shards: Shards, *, retry_failed: bool) -> tuple[list[Scan], Outcome]:
    """Return the scans that have no row yet, and how those ended that have one.

    Parameters
    ----------
    scans : iterable of Scan
        The manifest.
    shards : Shards
        What is there.
    retry_failed : bool
        Do again what failed; what was refused stays refused.
    """
    ended = shards.ended()
    left = []
    ends: Counter[tuple[str, str]] = Counter()
    for scan in scans:
        found = ended.get((scan.id, scan.path), [])
        if not found or (retry_failed and any(end.failed for end in found)):
            left.append(scan)
        else:
            ends.update((end.status, end.code) for end in found)
    return left, Outcome(ends, ends.total())


def work_through(
    scans: Iterable[Scan], workers: Workers, shards: Shards, seen: Callable[[Row], None], chunk: int = SCANS_A_CHUNK
) -> None:
    """Do scans until none is left; nothing is lost where a worker dies.

    A chunk whose worker died is done again scan by scan, with nothing else under way, so that a scan that ends its
    worker is found; after `MOST_DEATHS` such ends it becomes a failed row.

    Parameters
    ----------
    scans : iterable of Scan
        Taken as they are needed.
    workers : Workers
        Who does them.
    shards : Shards
        Where the rows go.
    seen : callable
        Is told of every row.
    chunk : int
        Scans that a worker gets at a time.
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
