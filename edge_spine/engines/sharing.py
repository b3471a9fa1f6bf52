"""One process that holds the GPU, and the engine with which others use it.

Processes that read, prepare and write scans send their images to it. What waits there is computed together, in blocks
of the engine's size.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from multiprocessing.util import get_temp_dir
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.bundle.load import load_bundle
from edge_spine.engines.base import Engine, first_line, losing
from edge_spine.engines.select import open_engine, runs_on_gpu
from edge_spine.errors import EdgeSpineError, EngineUnavailable
from edge_spine.network import INPUT_SHAPE, OUTPUT_SHAPE

Images = NDArray[np.float32]
_KEY_BYTES = 32
_MOST_AT_ONCE = 64
# A process that has ended may still be counted as alive for this long.
_ENDING_S = 0.5
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """What an engine that another process has opened is: `name`, `precision`, `graph` and `block` of `Engine`."""

    name: str
    precision: str
    graph: bool
    block: int

    @classmethod
    def of(cls, engine: Engine) -> Opened:
        """Return what an engine is."""
        return cls(engine.name, engine.precision, engine.graph, engine.block)


class Shared(ABC):
    """An engine that another process has opened; picklable and hashable."""

    @abstractmethod
    def connect(self) -> SharedEngine:
        """Return the engine for this process."""


@dataclass(frozen=True)
class _Listening(Shared):
    """An engine of another process on this machine: where it listens, and what a client must know."""

    opened: Opened
    address: Any
    key: bytes

    def connect(self) -> SharedEngine:
        # the process may have ended before this one needs it
        with losing(self.opened.name):
            connection = Client(self.address, authkey=self.key)
        lock = threading.Lock()

        def ask(images: Images) -> Images:
            with lock:
                connection.send_bytes(images.tobytes())
                return _array(connection.recv_bytes(), OUTPUT_SHAPE)

        return SharedEngine(self.opened, ask, connection.close)


class SharedEngine(Engine):
    """Send images to the process that holds the GPU.

    `ask` maps images (1, 3, 224, 224) to curves (1, 1254) there, and whatever it raises becomes EngineLost; `close`
    calls `end`.
    """

    def __init__(
        self, opened: Opened, ask: Callable[[Images], Images], end: Callable[[], object] = lambda: None
    ) -> None:
        self.name, self.precision, self.graph = opened.name, opened.precision, opened.graph
        self._ask, self._end = ask, end

    def _infer_block(self, images: Images) -> Images:
        with losing(self.name):
            return self._ask(images)

    def close(self) -> None:
        """End the connection."""
        self._end()


class Gathered:
    """Compute what several threads ask for together, in the blocks of an engine.

    An engine that fails ends the process: those who wait find that out, and a new process is needed in any case.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._waiting: SimpleQueue[tuple[Images, Future[Images]]] = SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def infer(self, image: Images) -> Images:
        """Map an image (1, 3, 224, 224) to (1, 1254)."""
        answer: Future[Images] = Future()
        self._waiting.put((image, answer))
        return answer.result()

    def _run(self) -> None:
        while True:
            group = [self._waiting.get()]
            while len(group) < self.engine.block and not self._waiting.empty():
                group.append(self._waiting.get())
            try:
                curves = self.engine.infer(np.concatenate([image for image, _ in group]))
            except BaseException as error:
                _log.warning("%s; the process that holds the GPU ends", first_line(error))
                os._exit(1)
            for (_, answer), row in zip(group, curves, strict=True):
                answer.set_result(row[None])


class GpuProcess:
    """A process that holds the GPU for others; the new process calls `initialise` first.

    Attributes
    ----------
    shared : Shared or None
        For the other processes; None where "auto" chose an engine on the processor, which each opens for itself.

    Raises
    ------
    EngineUnavailable
        The engine cannot run here.
    """

    def __init__(
        self,
        context: Any,
        model: str | Path | None,
        engine: str,
        precision: str,
        initialise: Callable[[], object] | None = None,
    ) -> None:
        # made here, so that the socket in it is removed at the end of this process
        get_temp_dir()
        told, tell = context.Pipe(duplex=False)
        work = tell, secrets.token_bytes(_KEY_BYTES), model, engine, precision, initialise
        self._process = context.Process(target=_hold, args=work, daemon=True)
        self._process.start()
        tell.close()
        try:
            found = told.recv()
        except EOFError:
            found = EngineUnavailable(f"{engine}: the process that opens it ended without a word")
        finally:
            told.close()
        if isinstance(found, EdgeSpineError):
            self.close()
            raise found
        self.opened: Opened
        self.shared: Shared | None
        self.opened, self.shared = found

    def alive(self) -> bool:
        """Return whether the process still runs."""
        self._process.join(_ENDING_S)
        return bool(self._process.is_alive())

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def _hold(
    tell: Connection,
    key: bytes,
    model: str | Path | None,
    engine: str,
    precision: str,
    initialise: Callable[[], object] | None,
) -> None:
    """Open the engine and serve it until the process is ended."""
    if initialise is not None:
        initialise()
    try:
        opened = open_engine(load_bundle(model), engine, precision=precision)
    except EdgeSpineError as error:
        tell.send(error)
        return
    told = Opened.of(opened)
    if not runs_on_gpu(opened.name):
        tell.send((told, None))
        return
    try:
        listener = Listener(backlog=_MOST_AT_ONCE, authkey=key)
    except OSError:  # a socket's name has little room for the folder of temporary files
        listener = Listener(("127.0.0.1", 0), backlog=_MOST_AT_ONCE, authkey=key)
    tell.send((told, _Listening(told, listener.address, key)))
    tell.close()
    gathered = Gathered(opened)
    while True:
        try:
            connection = listener.accept()
        except (AuthenticationError, ConnectionError, EOFError):
            continue
        threading.Thread(target=_answer, args=(connection, gathered), daemon=True).start()


def _answer(connection: Connection, gathered: Gathered) -> None:
    with connection:
        while True:
            try:
                image = _array(connection.recv_bytes(), INPUT_SHAPE)
                connection.send_bytes(gathered.infer(image).tobytes())
            except (EOFError, OSError):
                return


def _array(content: bytes, shape: tuple[int, ...]) -> Images:
    return np.frombuffer(content, np.float32).reshape(shape)
