"""Workers on an existing Ray cluster: actors, each with its own loaded model."""

from __future__ import annotations

import socket
from typing import Any

from edge_spine.cohort.batch import SpineBatch
from edge_spine.cohort.manifest import Scan
from edge_spine.cohort.workers import Finished, Workers
from edge_spine.errors import EdgeSpineError, UsageError

_PATIENCE_S = 10


class RayWorkers(Workers):
    """Actors on the nodes of a Ray cluster.

    Parameters
    ----------
    batch : SpineBatch
        Work to do.
    address : str
        Address of the cluster, as for `ray.init`.
    count : int, optional
        Number of actors; one for each processor by default.

    Raises
    ------
    UsageError
        There is no cluster at this address.
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
        self.count = count or max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
        # Ray restarts a dead actor, on another node if necessary; the run sends its chunk again.
        actor = ray.remote(num_cpus=threads, max_restarts=-1, max_task_retries=0)(RayWorker)
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
        return self._batch.rows(scans)
