"""Workers on an existing Ray cluster: actors, each with its own loaded model."""

from __future__ import annotations

import socket
from typing import Any

from edge_spine.cohort.batch import SpineBatch
from edge_spine.cohort.manifest import Scan
from edge_spine.cohort.workers import GPU_WORKERS, Finished, Workers, rows_or_end
from edge_spine.engines import EngineName, runs_on_gpu
from edge_spine.errors import EdgeSpineError, UsageError

_PATIENCE_S = 10


class RayWorkers(Workers):
    """Actors on the nodes of a Ray cluster.

    By default one for each processor, or `GPU_WORKERS` for each GPU where the engine is named and runs on one. The
    address is that of `ray.init`.

    Raises
    ------
    UsageError
        There is no cluster at this address, or it has no GPU and the engine needs one.
    """

    def __init__(self, batch: SpineBatch, address: str, count: int | None = None) -> None:
        import ray

        self._ray = ray
        _check_answers(address)
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(f"--ray {address}: no cluster answers there ({type(error).__name__})") from None
        threads = batch.threads or 1
        resources = ray.cluster_resources()
        # "auto" takes processors here: the nodes may differ
        on_gpu = batch.engine != EngineName.AUTO and runs_on_gpu(batch.engine)
        gpus = int(resources.get("GPU", 0))
        if on_gpu and not gpus:
            ray.shutdown()
            raise UsageError(f"--ray {address}: the cluster has no GPU for {batch.engine}")
        usual = gpus * GPU_WORKERS if on_gpu else int(resources.get("CPU", 1)) // threads
        self.count = count or max(1, usual)
        share = 1 / GPU_WORKERS if on_gpu else None
        # Ray restarts a dead actor, on another node if necessary; the run sends its chunk again.
        actor = ray.remote(num_cpus=threads, num_gpus=share, max_restarts=-1, max_task_retries=0)(RayWorker)
        self._actors = [actor.remote(batch) for _ in range(self.count)]
        self._load = [0] * self.count
        self._running: dict[Any, tuple[tuple[Scan, ...], int]] = {}

    def submit(self, scans: tuple[Scan, ...]) -> None:
        """Submit a chunk to the actor with the fewest pending chunks."""
        chosen = self._load.index(min(self._load))
        self._load[chosen] += 1
        self._running[self._actors[chosen].rows.remote(scans)] = scans, chosen

    def wait(self, seconds: float) -> list[Finished]:
        """Return what has finished."""
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        found = []
        for reference in ready:
            scans, actor = self._running.pop(reference)
            self._load[actor] -= 1
            try:
                found.append(Finished(scans, self._ray.get(reference)))
            except self._ray.exceptions.RayTaskError as error:
                cause = error.cause
                raise EdgeSpineError(
                    str(cause) if isinstance(cause, EdgeSpineError) else type(cause).__name__
                ) from None
            except self._ray.exceptions.RayError:
                found.append(Finished(scans, lost=True))
        return found

    def close(self) -> None:
        """Kill the actors and disconnect; the cluster keeps running."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        self._ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise UsageError unless the port accepts a connection; `ray.init` itself would retry for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), _PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--ray {address}: no cluster answers there ({type(error).__name__})") from None


class RayWorker:
    """The actor class; at module level, so that Ray pickles it by name."""

    def __init__(self, batch: SpineBatch) -> None:
        self._batch = batch

    def rows(self, scans: tuple[Scan, ...]) -> list[dict[str, Any]]:
        """Return the rows of a chunk."""
        return rows_or_end(self._batch, scans)
