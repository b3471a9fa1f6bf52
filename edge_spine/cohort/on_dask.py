"""Workers of an existing Dask cluster; each process keeps its loaded model."""

from __future__ import annotations

from typing import Any

from edge_spine.cohort.batch import SpineBatch
from edge_spine.cohort.manifest import Scan
from edge_spine.cohort.workers import Finished, Workers
from edge_spine.errors import EdgeSpineError, UsageError


class DaskWorkers(Workers):
    """All workers of a Dask cluster; the threads of a worker share one model.

    Parameters
    ----------
    batch : SpineBatch
        Work to do.
    address : str
        Address of the scheduler, such as "tcp://10.0.0.5:8786".

    Raises
    ------
    UsageError
        There is no scheduler at this address, or it has no workers.
    """

    def __init__(self, batch: SpineBatch, address: str) -> None:
        import distributed

        self._distributed = distributed
        try:
            self._client = distributed.Client(address, timeout="10s")
        except (OSError, TimeoutError, ValueError) as error:
            raise UsageError(f"--dask {address}: no scheduler answers there ({type(error).__name__})") from None
        self._batch = batch
        self.count = len(self._client.scheduler_info(n_workers=-1)["workers"])
        if not self.count:
            self._client.close()
            raise UsageError(f"--dask {address}: the scheduler has no workers; start some with dask worker")
        self._running: dict[Any, tuple[Scan, ...]] = {}

    def submit(self, scans: tuple[Scan, ...]) -> None:
        """Submit a chunk; Dask reschedules it when its worker dies."""
        self._running[self._client.submit(self._batch.rows, scans, pure=False)] = scans

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
                raise EdgeSpineError(str(error) if isinstance(error, EdgeSpineError) else type(error).__name__)
            future.release()
        return found

    def close(self) -> None:
        """Cancel running chunks and disconnect; the cluster keeps running."""
        self._client.cancel(list(self._running))
        self._running = {}
        self._client.close()
