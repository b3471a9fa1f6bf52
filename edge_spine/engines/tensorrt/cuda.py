"""Manage one network's buffers and stream with PyCUDA.

The process keeps one reference to the GPU's primary context, which TensorRT and other CUDA libraries use as well. It is
pushed for each call and popped after it, so that any thread may call, and is released at the end of the process.
PyCUDA's own release is never used: it leaves the context on the driver's stack in the thread that retained it, and does
nothing in any other.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.engines.base import TENSORRT_EXTRAS, importing
from edge_spine.engines.driver import load_driver
from edge_spine.engines.memory import shared_memory
from edge_spine.errors import UsageError
from edge_spine.network import INPUT_NAME, INPUT_SHAPE, OUTPUT_NAME, OUTPUT_SHAPE

# numbers of cuda.h: CU_STREAM_NON_BLOCKING and CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
_NON_BLOCKING, _THREAD_LOCAL = 1, 1
_DEVICE = 0


class PrimaryContext:
    """The one reference of this process to the primary context of the GPU; from `primary_context`."""

    def __init__(self, driver: Any) -> None:
        driver.init()
        self._driver = driver
        self._context = driver.Device(_DEVICE).retain_primary_context()
        # PyCUDA's object would release by itself when it is destroyed
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._context))
        # runs at the end of the process, after the finalizers of the sessions, which are younger
        weakref.finalize(self, load_driver().cuDevicePrimaryCtxRelease_v2, _DEVICE)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread."""
        self._context.push()
        try:
            yield
        finally:
            self._driver.Context.pop()


_retained: PrimaryContext | None = None
_retaining = threading.Lock()


def primary_context(driver: Any) -> PrimaryContext:
    """Return the context of this process, retained at the first call."""
    global _retained
    with _retaining:
        if _retained is None:
            _retained = PrimaryContext(driver)
        return _retained


def free_memory(integrated: bool) -> int:
    """Return the free bytes of the GPU; for an integrated one, of the memory that it shares with the processor."""
    driver = import_pycuda()
    with primary_context(driver).current():
        free = int(driver.mem_get_info()[0])
    return shared_memory(free) if integrated else free


class CudaSession:
    """Hold page-locked host buffers, device buffers at fixed addresses, and one stream, for a number of images.

    Raise EngineUnavailable where PyCUDA is not installed or finds no usable driver.
    """

    def __init__(self, images: int) -> None:
        self._driver = import_pycuda()
        self.lock = threading.RLock()
        self._closed = False
        self.stream: Any = None
        self.host: dict[str, NDArray[np.float32]] = {}
        self._device: dict[str, Any] = {}
        self._graph: _Graph | None = None
        self._context = primary_context(self._driver)
        with self.current():
            try:
                # another library's work on the default stream must not hold this one up
                self.stream = self._driver.Stream(_NON_BLOCKING)
                for name, (_, *shape) in ((INPUT_NAME, INPUT_SHAPE), (OUTPUT_NAME, OUTPUT_SHAPE)):
                    self.host[name] = self._driver.pagelocked_zeros((images, *shape), np.float32)
                    self._device[name] = self._driver.mem_alloc(self.host[name].nbytes)
            except BaseException:
                self._free()
                raise

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread; other threads wait. UsageError if the session is closed."""
        with self.lock:
            if self._closed:
                raise UsageError("tensorrt: the engine is closed")
            with self._context.current():
                yield

    def address(self, name: str) -> int:
        """Return the device address of a tensor."""
        return int(self._device[name])

    def run(self, enqueue: Any) -> None:
        """Copy the input to the GPU, run the network or its recorded graph, and copy the output back.

        `enqueue` takes a stream handle, enqueues the network and returns whether that succeeded.
        """
        with self.current():
            if self._graph is not None:
                self._graph.launch(self.stream.handle)
            else:
                self._enqueue(enqueue)
            self.stream.synchronize()

    def record(self, enqueue: Any) -> bool:
        """Record the copies and the network as a CUDA graph, which `run` replays from then on.

        The network must have run once before. Returns False where the driver has no graphs or the recording fails.
        """
        with self.current():
            self._graph = _Graph.record(self.stream.handle, lambda: self._enqueue(enqueue))
        return self._graph is not None

    def close(self) -> None:
        """Free the buffers; a second call does nothing. After an error of the GPU, what cannot be freed is left."""
        with self.lock:
            if self._closed:
                return
            with self.current():
                with suppress(Exception):
                    self.stream.synchronize()
                self._free()
            self._closed = True

    def _free(self) -> None:
        """Free everything while the context is current, which it is not in a later garbage collection."""
        if self._graph is not None:
            self._graph.close()
        for buffer in self._device.values():
            with suppress(Exception):
                buffer.free()
        self._device.clear()
        self.host.clear()
        self._graph = self.stream = None

    def _enqueue(self, enqueue: Any) -> None:
        self._driver.memcpy_htod_async(self._device[INPUT_NAME], self.host[INPUT_NAME], self.stream)
        if not enqueue(self.stream.handle):
            raise RuntimeError("the network could not be started on the GPU")
        self._driver.memcpy_dtoh_async(self.host[OUTPUT_NAME], self._device[OUTPUT_NAME], self.stream)


class _Graph:
    """A recorded CUDA graph, through the driver's own functions, since PyCUDA has none."""

    def __init__(self, library: Any, graph: ctypes.c_void_p, executable: ctypes.c_void_p) -> None:
        self._library, self._recorded, self._executable = library, graph, executable

    @classmethod
    def record(cls, stream: int, work: Any) -> _Graph | None:
        library = load_driver()
        try:
            begin, end = library.cuStreamBeginCapture_v2, library.cuStreamEndCapture
            instantiate = library.cuGraphInstantiateWithFlags
        except AttributeError:  # a driver older than CUDA 11.4
            return None
        graph, executable, handle = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p(stream)
        if begin(handle, _THREAD_LOCAL) != 0:
            return None
        try:
            work()
            failed = False
        except Exception:  # PyCUDA raises many types; the network still runs without a recording
            failed = True
        failed = end(handle, ctypes.byref(graph)) != 0 or failed
        if failed or instantiate(ctypes.byref(executable), graph, ctypes.c_ulonglong(0)) != 0:
            if graph.value:
                library.cuGraphDestroy(graph)
            return None
        return cls(library, graph, executable)

    def launch(self, stream: int) -> None:
        status = self._library.cuGraphLaunch(self._executable, ctypes.c_void_p(stream))
        if status != 0:
            raise RuntimeError(f"the recorded network could not be started on the GPU: cuGraphLaunch returned {status}")

    def close(self) -> None:
        self._library.cuGraphExecDestroy(self._executable)
        self._library.cuGraphDestroy(self._recorded)


def import_pycuda() -> Any:
    """Import PyCUDA's driver module without creating a context; raise EngineUnavailable where it does not load."""
    with importing("tensorrt", "PyCUDA", *TENSORRT_EXTRAS):
        import pycuda.driver as driver
    return driver
