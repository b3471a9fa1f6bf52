"""DICOM node: receive scans by C-STORE, process them, send the results by C-STORE."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from edge_spine.errors import EdgeSpineError, reason_of
from edge_spine.estimator import SpineEstimator
from edge_spine.node.config import NodeConfig
from edge_spine.node.courier import Courier
from edge_spine.node.listener import Listener
from edge_spine.node.monitor import HealthServer, Monitor
from edge_spine.node.outbox import Outbox
from edge_spine.node.records import Audit
from edge_spine.node.spool import Claim, Spool, files_in
from edge_spine.node.worker import Worker
from edge_spine.outputs.dicom.identity import flagged, identify
from edge_spine.outputs.registry import FORMATS
from edge_spine.reading import read_scan
from edge_spine.reading.dicom import quiet_pydicom
from edge_spine.result import SpineResult
from edge_spine.runner import Report, process

_PURGE_EVERY_S = 3600.0
_log = logging.getLogger(__name__)


class Node:
    """A running node: spool, engine, worker, courier, listener and health server.

    `on_report` is called with the report of each scan. Raise EdgeSpineError where a part cannot start; none then
    is left running.
    """

    def __init__(self, config: NodeConfig, on_report: Callable[[Report], None]) -> None:
        self._config, self._on_report = config, on_report
        # Files that libraries write must be readable by this user alone, too.
        os.umask(0o077)
        self._purged = time.monotonic() - _PURGE_EVERY_S
        self._resources = ExitStack()
        try:
            self._start()
        except BaseException:
            self._resources.close()
            raise

    def _start(self) -> None:
        config, keep = self._config, self._resources.enter_context
        # pydicom's warnings of invalid values quote them, on any thread.
        keep(quiet_pydicom())
        self._spool = keep(closing(Spool(config.spool, keep_done=False)))
        self._queue = config.spool / "queue"
        try:
            self._queue.mkdir(exist_ok=True)
            self._audit = Audit(config.spool / "audit.jsonl")
            self._outbox = Outbox(config.spool, config.backoff)
        except OSError as error:
            raise EdgeSpineError(f"{config.spool}: the folder cannot be used ({reason_of(error)})") from None
        self._monitor = Monitor()
        self._estimator = keep(SpineEstimator(config.engine, config.model, config.threads, precision=config.precision))
        # the listener has named each scan by its hash
        self._worker = Worker(
            self._spool, self._audit, self._handle, self._on_report, key_of=lambda claim: Path(claim.name).stem
        )
        self._courier = Courier(config, self._outbox, self._audit, self._monitor)
        gauge = self._monitor.gauge
        gauge("queue_scans", "Scans that wait for processing", lambda: len(files_in(self._queue)))
        gauge("outbox_scans", "Scans whose results wait for delivery", lambda: self._outbox.counts()[0])
        gauge("dead_letters", "Scans whose results could not be delivered", lambda: self._outbox.counts()[1])
        gauge("quarantine_scans", "Scans that crashed the process", lambda: self._spool.count("quarantine"))
        gauge("disk_free_bytes", "Free bytes on the disk of the spool", self._free)
        if config.health_port:
            keep(closing(HealthServer(config.health_port, self._monitor, self.health)))
        keep(closing(Listener(config, self._queue, self._audit, self._monitor, self._worker.arrival.set)))
        self._courier.start()
        self._resources.callback(self._courier.close)

    def run(self) -> None:
        """Process scans until `end` is called."""
        self._audit.note("started", model=self._estimator.model["sha256"], engine=self._estimator.model["engine"])
        self._worker.run(self._waiting)
        self._audit.note("stopped")

    def end(self) -> None:
        """Stop after the current scan."""
        self._worker.end()

    def health(self) -> dict[str, Any]:
        """Return health status; "ok" means that scans are accepted and delivery is running."""
        waiting, dead = self._outbox.counts()
        free = self._free()
        room = free >= self._config.least_free_mb * 2**20
        return {
            "ok": room and self._courier.alive and not self._worker.stop.is_set(),
            "queue": len(files_in(self._queue)),
            "outbox": waiting,
            "dead_letters": dead,
            "quarantine": self._spool.count("quarantine"),
            "disk_free_mb": free >> 20,
            "delivery_problem": self._courier.problem,
            "engine": self._estimator.model["engine"],
            "model_sha256": self._estimator.model["sha256"],
        }

    def close(self) -> None:
        """Stop all parts."""
        self._resources.close()

    def _waiting(self) -> list[Path]:
        if time.monotonic() - self._purged >= _PURGE_EVERY_S:
            self._purged = time.monotonic()
            gone = self._spool.purge(self._config.keep_days)
            if gone:
                self._audit.note("purged", files=gone)
        return files_in(self._queue)

    def _handle(self, claim: Claim, key: str) -> list[Report]:
        def write(result: SpineResult) -> tuple[SpineResult, list[Path]]:
            result = flagged(result)
            objects = {f"{n}-{name}": FORMATS[name].render(result) for n, name in enumerate(self._config.results)}
            lost = ", ".join(identify(result).lost_links)
            self._outbox.put(key, objects, f"cannot carry {lost}" if lost else "")
            if lost:
                self._courier.note_dead(key, f"cannot carry {lost}")
            return result, []

        started = time.perf_counter()
        report = process(key[:12], self._estimator, lambda: read_scan(claim.path), write, raise_storage=True)
        self._monitor.scans.labels(report.status, report.code or "").inc()
        self._monitor.seconds.observe(time.perf_counter() - started)
        self._courier.wake()
        return [report]

    def _free(self) -> int:
        return shutil.disk_usage(self._config.spool).free
