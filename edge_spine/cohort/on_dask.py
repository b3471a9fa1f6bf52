"""Workers of an existing Dask cluster; each process keeps its loaded model."""

from __future__ import annotations

from typing import Any

from edge_spine.cohort.batch import SpineBatch, said
from edge_spine.cohort.manifest import Scan
from edge_spine.cohort.workers import Finished, Workers, rows_or_end
from edge_spine.errors import EdgeSpineError, UsageError


class DaskWorkers(Workers):
    """All workers of a Dask cluster; the threads of a worker share one model.

    For an engine on a GPU that is named, those with the resource GPU, of which each thread takes one: the threads of a
    worker read, prepare and write scans, and share its GPU.

    Raise UsageError where no scheduler is at the address, such as "tcp://10.0.0.5:8786", or it has no workers.
    """

    def __init__(self, batch: SpineBatch, address: str) -> None:
        import distributed

        self._distributed = distributed
        try:
            self._client = distributed.Client(address, timeout="10s")
        except (OSError, TimeoutError, ValueError) as error:
            raise UsageError(f"--dask {address}: no scheduler answers there ({type(error).__name__})") from None
        self._batch = batch
        self._resources = {"GPU": 1} if batch.needs_gpu else None
        found = self._client.scheduler_info(n_workers=-1)["workers"].values()
        threads = [int(worker["nthreads"]) for worker in found]
        if batch.needs_gpu:
            gpus = [int(worker["resources"].get("GPU", 0)) for worker in found]
            threads = [min(pair) for pair in zip(threads, gpus, strict=True)]
        self.count = sum(threads)
        if not self.count:
            self._client.close()
            start = "dask worker --nthreads 8 --resources GPU=8" if batch.needs_gpu else "dask worker"
            raise UsageError(f"--dask {address}: the scheduler has no workers; start some with {start}")
        self._running: dict[Any, tuple[Scan, ...]] = {}

    def submit(self, scans: tuple[Scan, ...]) -> None:
        """Submit a chunk; Dask reschedules it when its worker dies."""
        future = self._client.submit(rows_or_end, self._batch, scans, pure=False, resources=self._resources)
        self._running[future] = scans

    def wait(self, seconds: float) -> list[Finished]:
        """Return what has finished."""
        try:
            ready = self._distributed.wait(list(self._running), timeout=seconds, return_when="FIRST_COMPLETED").done
        except (TimeoutError, self._distributed.TimeoutError):
            return []
        found = []
        for future in ready:
            scans = self._running.pop(future)
            error = future.exception()
            if error is None:
                found.append(Finished(scans, future.result()))
            elif isinstance(error, (self._distributed.KilledWorker, self._distributed.client.FutureCancelledError)):
                found.append(Finished(scans, lost=True))
            else:
                raise EdgeSpineError(said(error))
            future.release()
        return found

    def close(self) -> None:
        """Cancel running chunks and disconnect; the cluster keeps running."""
        self._client.cancel(list(self._running))
        self._running = {}
        self._client.close()
