"""Process the scans of a spool one after another."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from edge_spine.node.records import Audit
from edge_spine.node.spool import Claim, Spool
from edge_spine.runner import Report

_IDLE_S = 1.0
_RETRY_S, _STORAGE_WAIT_S = 1.0, 10.0
_log = logging.getLogger(__name__)


class Worker:
    """Processing loop of the node and the watch folder.

    Parameters
    ----------
    spool : Spool
        Spool of the scans.
    audit : Audit
        Records the outcome of each scan.
    handle : callable
        Processes a claim, given the SHA-256 of its content, and returns a report of each scan in it.
    on_report : callable
        Called with each report.
    """

    def __init__(
        self,
        spool: Spool,
        audit: Audit,
        handle: Callable[[Claim, str], list[Report]],
        on_report: Callable[[Report], None],
    ) -> None:
        self._spool, self._audit, self._handle, self._on_report = spool, audit, handle, on_report
        self.arrival, self.stop = threading.Event(), threading.Event()

    def run(self, waiting: Callable[[], Iterable[Path]], *, idle_s: float = _IDLE_S, once: bool = False) -> None:
        """Process scans until `end` is called.

        Parameters
        ----------
        waiting : callable
            Returns the scans that may be claimed now, oldest first.
        idle_s : float
            Longest wait before looking for scans again.
        once : bool
            Return when `waiting` is empty.
        """
        for claim in self._spool.interrupted():
            self._work(claim)
            if self.stop.is_set():
                return
        while not self.stop.is_set():
            # Cleared before looking, so that a later arrival is not missed.
            self.arrival.clear()
            idle = True
            for claim in self._claims(waiting()):
                self._work(claim)
                idle = False
            if idle:
                if once:
                    return
                self.arrival.wait(idle_s)

    def end(self) -> None:
        """Stop after the current scan."""
        self.stop.set()
        self.arrival.set()

    def _claims(self, paths: Iterable[Path]) -> Iterator[Claim]:
        for path in paths:
            if self.stop.is_set():
                return
            claim = self._spool.claim(path)
            if claim is not None:
                yield claim

    def _work(self, claim: Claim) -> None:
        """Process a claim, with retries."""
        while True:
            try:
                content = _content_hash(claim.path)
                reports = self._handle(claim, content)
                end = next((report for report in reports if report.status == "done"), reports[0])
                if end.status == "failed" and (again := self._spool.retry(claim)):
                    _log.warning("scan %s: attempt %d failed", content[:12], claim.attempt)
                    claim, pause = again, _RETRY_S
                else:
                    self._end(claim, content, end)
                    break
            except OSError as error:
                if claim.path.parent.is_dir() and not claim.path.exists():
                    _log.warning("a claimed scan was removed by another program; skipping it")
                    return
                # The scan stays in the spool while the disk is full or absent.
                _log.error("storage: %s; retrying", error.strerror or type(error).__name__)
                pause = _STORAGE_WAIT_S
            if self.stop.wait(pause):
                self._spool.give_back(claim)
                return
        for report in reports:
            self._on_report(report)

    def _end(self, claim: Claim, content: str, end: Report) -> None:
        self._audit.note(end.status, scan=content, code=end.code, attempt=claim.attempt)
        if end.status == "done":
            self._spool.finish(claim)
        else:
            self._spool.reject(claim, end.status, end.code, end.message)


def _content_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
