"""Process pool on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection

from edge_spine.cohort.batch import SpineBatch
from edge_spine.cohort.manifest import Scan
from edge_spine.cohort.rows import Row
from edge_spine.cohort.workers import Finished, Workers, rows_or_end
from edge_spine.engines import runs_on_gpu
from edge_spine.engines.sharing import GpuProcess
from edge_spine.processors import usable_cores

# Limit of WaitForMultipleObjects, as in concurrent.futures.
_MOST_ON_WINDOWS = 61
# Longest time for the rows of a chunk to be sent.
_SENDING_S = 10.0
# Held by a worker, except while it computes: then it may end at once.
_not_computing = threading.Lock()
_not_computing.acquire()


class ProcessPool(Workers):
    """`count` worker processes on this machine, by default one for each of its processors.

    Where the engine runs on a GPU, one more process holds it, and the workers read, prepare and write scans for it.
    Raise EngineUnavailable where it cannot run here.
    """

    def __init__(self, batch: SpineBatch, count: int | None = None) -> None:
        most = _MOST_ON_WINDOWS if sys.platform == "win32" else sys.maxsize
        self.count = min(count or usable_cores(), most)
        self._batch = batch
        self._running: dict[Future[list[Row]], tuple[Scan, ...]] = {}
        self._context = multiprocessing.get_context("spawn")
        # The workers end when the writing end is closed: by `close`, or by the death of this process.
        self._lifeline, self._writer = self._context.Pipe(duplex=False)
        self._gpu: GpuProcess | None = None
        self._pool = self._start()

    def submit(self, scans: tuple[Scan, ...]) -> None:
        """Submit a chunk."""
        try:
            future = self._pool.submit(_rows, self._batch, scans)
        except BrokenProcessPool:
            # The pool broke since the last call of `wait`, which will report this chunk as lost.
            future = Future()
            future.set_exception(BrokenProcessPool())
        self._running[future] = scans

    def wait(self, seconds: float) -> list[Finished]:
        """Return finished chunks; when one process dies, the pool is restarted and all running chunks are lost."""
        ready, _ = wait(self._running, seconds, return_when=FIRST_COMPLETED)
        if any(isinstance(future.exception(), BrokenProcessPool) for future in ready):
            ready, _ = wait(self._running, seconds)
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = self._start()
        found = []
        for future in ready:
            scans = self._running.pop(future)
            lost = isinstance(future.exception(), BrokenProcessPool)
            found.append(Finished(scans, lost=True) if lost else Finished(scans, future.result()))
        return found

    def close(self) -> None:
        """End the processes."""
        self._writer.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._gpu is not None:
            self._gpu.close()
        self._lifeline.close()

    def _start(self) -> ProcessPoolExecutor:
        batch = self._batch
        if runs_on_gpu(batch.engine) and not (self._gpu is not None and self._gpu.alive()):
            begin = partial(_initialise, self._lifeline)
            self._gpu = gpu = GpuProcess(self._context, batch.model, batch.engine, batch.precision, begin)
            # "auto" that finds no GPU is decided once, for all workers
            self._batch = replace(batch, engine=batch.engine if gpu.shared else gpu.opened.name, shared=gpu.shared)
        return ProcessPoolExecutor(
            self.count, self._context, initializer=_initialise, initargs=(self._lifeline, _SENDING_S)
        )


def _initialise(lifeline: Connection, sending_s: float = 0.0) -> None:
    # On Ctrl-C the run writes the finished rows, and then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_run, args=(lifeline, sending_s), daemon=True).start()


def _end_with_the_run(lifeline: Connection, sending_s: float) -> None:
    """End this process when the run's end of the pipe is closed, or `sending_s` later where it may be sending rows.

    The executor would wait for the rest of a message, for ever.
    """
    with suppress(EOFError, OSError):
        lifeline.recv_bytes()
    _not_computing.acquire(timeout=sending_s)
    os._exit(1)


def _rows(batch: SpineBatch, scans: tuple[Scan, ...]) -> list[Row]:
    _not_computing.release()
    try:
        return rows_or_end(batch, scans)
    finally:
        _not_computing.acquire()
