"""Workers on an existing Ray cluster: actors, each with its own loaded model."""

from __future__ import annotations

import socket
import threading
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_spine.bundle import load_bundle
from edge_spine.cohort.batch import SpineBatch, said
from edge_spine.cohort.manifest import Scan
from edge_spine.cohort.workers import Finished, Workers, rows_or_end
from edge_spine.engines import open_engine
from edge_spine.engines.base import losing
from edge_spine.engines.sharing import Gathered, Opened, Shared, SharedEngine
from edge_spine.errors import EdgeSpineError, UsageError

_PATIENCE_S = 10
# Calls that wait in an actor for its GPU.
_ASKING = 256


class RayWorkers(Workers):
    """Actors on the nodes of a Ray cluster, by default one for each processor.

    Where the engine is named and runs on a GPU, one more actor holds it on each GPU, and the others read, prepare and
    write scans for it.

    Raise UsageError where no cluster is at the address, one of `ray.init`, or the engine needs a GPU that the cluster
    lacks.
    """

    def __init__(self, batch: SpineBatch, address: str, count: int | None = None) -> None:
        import ray

        self._ray = ray
        try:
            _connect(address)
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        except (OSError, OverflowError, RuntimeError, ValueError) as error:
            raise UsageError(f"--ray {address}: no cluster answers there ({type(error).__name__})") from None
        threads = batch.threads or 1
        resources = ray.cluster_resources()
        self._gpus: list[Any] = []
        self._actors: list[Any] = []
        self._running: dict[Any, tuple[tuple[Scan, ...], int]] = {}
        batches = [batch]
        if batch.needs_gpu:
            try:
                shared = self._share(batch, int(resources.get("GPU", 0)), address)
            except BaseException:
                self.close()
                raise
            batches = [replace(batch, shared=each) for each in shared]
        self.count = count or max(1, int(resources.get("CPU", 1)) // threads)
        # Ray restarts a dead actor, on another node if necessary; the run sends its chunk again.
        actor = ray.remote(num_cpus=threads, max_restarts=-1, max_task_retries=0)(RayWorker)
        self._actors = [actor.remote(batches[number % len(batches)]) for number in range(self.count)]
        self._load = [0] * self.count

    def _share(self, batch: SpineBatch, gpus: int, address: str) -> list[Shared]:
        """Start an actor that holds the engine on each GPU."""
        if not gpus:
            raise UsageError(f"--ray {address}: the cluster has no GPU for {batch.engine}")
        several = {"num_cpus": 0, "num_gpus": 1, "max_restarts": -1, "max_task_retries": 0, "max_concurrency": _ASKING}
        actor = self._ray.remote(**several)(RayGpu)
        names = [f"edge-spine-{uuid.uuid4().hex}" for _ in range(gpus)]
        about = batch.model, batch.engine, batch.precision
        self._gpus = [actor.options(name=name).remote(*about) for name in names]
        try:
            opened = self._ray.get([gpu.opened.remote() for gpu in self._gpus])
        except self._ray.exceptions.RayError as error:
            raise EdgeSpineError(said(getattr(error, "cause", error))) from None
        return [_OfActor(told, name) for told, name in zip(opened, names, strict=True)]

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
                raise EdgeSpineError(said(error.cause)) from None
            except self._ray.exceptions.RayError:
                found.append(Finished(scans, lost=True))
        return found

    def close(self) -> None:
        """Kill the actors and disconnect; the cluster keeps running."""
        for actor in (*self._actors, *self._gpus):
            self._ray.kill(actor)
        self._actors, self._gpus = [], []
        self._ray.shutdown()


def _connect(address: str) -> None:
    """Raise an error unless the port accepts a connection; `ray.init` itself would retry for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), _PATIENCE_S).close()


class RayWorker:
    """The actor class; at module level, so that Ray pickles it by name."""

    def __init__(self, batch: SpineBatch) -> None:
        self._batch = batch

    def rows(self, scans: tuple[Scan, ...]) -> list[dict[str, Any]]:
        """Return the rows of a chunk."""
        return rows_or_end(self._batch, scans)


@dataclass(frozen=True)
class _OfActor(Shared):
    """An engine that an actor of this name has opened; a handle in its place would hinder the restart of workers."""

    opened: Opened
    name: str

    def connect(self) -> SharedEngine:
        import ray

        with losing(self.opened.name):
            gpu = ray.get_actor(self.name)
        return SharedEngine(self.opened, lambda images: ray.get(gpu.infer.remote(images)))


class RayGpu:
    """The actor that holds the engine on a GPU for others."""

    def __init__(self, model: str | Path | None, engine: str, precision: str) -> None:
        self._wanted = model, engine, precision
        self._opening = threading.Lock()
        self._gathered: Gathered | None = None

    def opened(self) -> Opened:
        """Open the engine and return what it is."""
        return Opened.of(self._gather().engine)

    def infer(self, images: Any) -> Any:
        """Map an image (1, 3, 224, 224) to (1, 1254); called by several threads."""
        return self._gather().infer(images)

    def _gather(self) -> Gathered:
        with self._opening:
            if self._gathered is None:
                model, engine, precision = self._wanted
                self._gathered = Gathered(open_engine(load_bundle(model), engine, precision=precision))
            return self._gathered
