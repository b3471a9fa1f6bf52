"""Process the scans of a spool one after another."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from edge_spine.errors import InputUnavailable, reason_of
from edge_spine.node.records import Audit
from edge_spine.node.spool import Claim, Spool
from edge_spine.reading.checks import printable
from edge_spine.runner import Report

_IDLE_S = 1.0
_RETRY_S, _LONGEST_RETRY_S, _STORAGE_WAIT_S = 1.0, 900.0, 10.0
# A file with several scans has failed if one has failed, else it is done if one is done.
_ENDS = ("failed", "done", "refused")
_log = logging.getLogger(__name__)


@dataclass
class _Postponed:
    """A scan that could not be read, to be tried again at a time of `time.monotonic`."""

    claim: Claim
    pause_s: float
    due: float


class Worker:
    """Processing loop of the node and the watch folder.

    The scans are in `spool`, and `audit` records the outcome of each. `handle` processes a claim, given its key, and
    returns a report of each scan in it; `on_report` gets each report. `key_of` returns the name of a claim in the
    audit, by default the SHA-256 of its content.
    """

    def __init__(
        self,
        spool: Spool,
        audit: Audit,
        handle: Callable[[Claim, str], list[Report]],
        on_report: Callable[[Report], None],
        key_of: Callable[[Claim], str] | None = None,
    ) -> None:
        self._spool, self._audit, self._handle, self._on_report = spool, audit, handle, on_report
        self._key_of = key_of or _content_hash
        self._postponed: dict[str, _Postponed] = {}
        self.arrival, self.stop = threading.Event(), threading.Event()

    def run(self, waiting: Callable[[], Iterable[Path]], *, idle_s: float = _IDLE_S, once: bool = False) -> None:
        """Process scans until `end` is called or, with `once`, until none waits.

        `waiting` returns the scans that may be claimed now, oldest first; it is called again after `idle_s` where there
        are none. `once` leaves scans that cannot be read now to the next process.
        """
        for claim in self._spool.interrupted():
            self._work(claim)
            if self.stop.is_set():
                return
        while not self.stop.is_set():
            # Cleared before looking, so that a later arrival is not missed.
            self.arrival.clear()
            idle = True
            for claim in chain(() if once else self._due(), self._claims(waiting())):
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

    def _due(self) -> Iterator[Claim]:
        """Claim again the postponed scans that are due."""
        now = time.monotonic()
        for name, postponed in list(self._postponed.items()):
            if self.stop.is_set():
                return
            if postponed.due <= now and (claim := self._spool.retry(postponed.claim)):
                yield claim
            elif postponed.claim.path.parent.is_dir() and not postponed.claim.path.exists():
                del self._postponed[name]

    def _postpone(self, claim: Claim, problem: str) -> None:
        """Postpone a scan that cannot be read now, so that the worker continues with the others."""
        known = self._postponed.get(claim.name)
        pause = _RETRY_S if known is None else min(2 * known.pause_s, _LONGEST_RETRY_S)
        self._postponed[claim.name] = _Postponed(self._spool.give_back(claim), pause, time.monotonic() + pause)
        if known is None:
            _log.warning("a scan cannot be read now (%s); it is tried again", problem)
            name = printable(claim.name)
            self._on_report(Report(name, message=f"{name}: {problem}; it is tried again"))

    def _work(self, claim: Claim) -> None:
        while True:
            try:
                try:
                    key = self._key_of(claim)
                except OSError as error:
                    raise InputUnavailable(f"the file cannot be read now ({reason_of(error)})") from None
                reports = self._handle(claim, key)
                end = min(reports, key=lambda report: _ENDS.index(report.status))
                if end.status == "failed" and (again := self._spool.retry(claim)):
                    _log.warning("scan %s: attempt %d failed", key[:12], claim.attempt)
                    claim, pause = again, _RETRY_S * 2.0 ** (claim.attempt - 1)
                else:
                    self._end(claim, key, end)
                    self._postponed.pop(claim.name, None)
                    break
            except (OSError, InputUnavailable) as error:
                if claim.path.parent.is_dir() and not claim.path.exists():
                    _log.warning("a claimed scan was removed by another program; skipping it")
                    return
                if isinstance(error, InputUnavailable):
                    self._postpone(claim, str(error))
                    return
                # The scan stays in the spool while the disk is full or absent.
                _log.error("storage: %s; retrying", reason_of(error))
                pause = _STORAGE_WAIT_S
            if self.stop.wait(pause):
                self._spool.give_back(claim)
                return
        for report in reports:
            self._on_report(report)

    def _end(self, claim: Claim, key: str, end: Report) -> None:
        self._audit.note(end.status, scan=key, code=end.code, attempt=claim.attempt)
        if end.status == "done":
            self._spool.finish(claim)
        else:
            self._spool.reject(claim, end.status, end.code, end.message)


def _content_hash(claim: Claim) -> str:
    digest = hashlib.sha256()
    with claim.path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
