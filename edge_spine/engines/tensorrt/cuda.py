"""Manage one network's buffers and stream with PyCUDA.

The GPU's primary context, which TensorRT uses as well, is pushed for each call and popped after it. So any thread
may call, and no context is left on PyCUDA's stack, which would abort the process at its end.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.engines.base import importing
from edge_spine.errors import UsageError

Shapes = Mapping[str, tuple[int, ...]]


class CudaSession:
    """Hold page-locked host buffers, device buffers at fixed addresses, and one stream.

    Parameters
    ----------
    inputs, outputs : mapping of str to shape
        Tensors by name; all float32.

    Raises
    ------
    EngineUnavailable
        PyCUDA is not installed or finds no usable driver.
    """

    def __init__(self, inputs: Shapes, outputs: Shapes) -> None:
        self._driver = import_pycuda()
        self.lock = threading.RLock()
        self._closed = False
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        self._driver.init()
        self._context = self._driver.Device(0).retain_primary_context()
        with self.current():
            self.stream: Any = self._driver.Stream()
            self.host: dict[str, NDArray[np.float32]] = {}
            self._device: dict[str, Any] = {}
            for name, shape in {**inputs, **outputs}.items():
                self.host[name] = self._driver.pagelocked_zeros(shape, np.float32)
                self._device[name] = self._driver.mem_alloc(self.host[name].nbytes)
            self._graph: _Graph | None = None

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread; other threads wait.

        Raises
        ------
        UsageError
            The session is closed.
        """
        with self.lock:
            if self._closed:
                raise UsageError("tensorrt: the engine is closed")
            self._context.push()
            try:
                yield
            finally:
                self._driver.Context.pop()

    def address(self, name: str) -> int:
        """Return the device address of a tensor."""
        return int(self._device[name])

    def run(self, enqueue: Any) -> None:
        """Copy the inputs to the GPU, run the network or its recorded graph, and copy the outputs back.

        Parameters
        ----------
        enqueue : callable
            Takes a stream handle, enqueues the network and returns whether that succeeded.
        """
        with self.current():
            if self._graph is not None:
                self._graph.launch(self.stream.handle)
            else:
                self._enqueue(enqueue)
            self.stream.synchronize()

    def record(self, enqueue: Any) -> bool:
        """Record the copies and the network as a CUDA graph, which `run` replays from then on.

        Needs cuda-bindings, since PyCUDA has no graphs. The network must have run once before.

        Returns
        -------
        bool
            False where cuda-bindings is not installed or the recording fails.
        """
        with self.current():
            self._graph = _Graph.record(self.stream.handle, lambda: self._enqueue(enqueue))
        return self._graph is not None

    def close(self) -> None:
        """Free the buffers and release the context; a second call does nothing."""
        with self.lock:
            if self._closed:
                return
            with self.current():
                self.stream.synchronize()
                if self._graph is not None:
                    self._graph.close()
                # freed while their context is current, which it is not in a later garbage collection
                for buffer in self._device.values():
                    buffer.free()
                self._device.clear()
                self.host.clear()
                self._graph = self.stream = None
            self._closed = True
            self._context.detach()

    def _enqueue(self, enqueue: Any) -> None:
        for name in self._inputs:
            self._driver.memcpy_htod_async(self._device[name], self.host[name], self.stream)
        if not enqueue(self.stream.handle):
            raise RuntimeError("the network could not be started on the GPU")
        for name in self._outputs:
            self._driver.memcpy_dtoh_async(self.host[name], self._device[name], self.stream)


class _Graph:
    """A recorded CUDA graph."""

    def __init__(self, bindings: Any, graph: Any, executable: Any) -> None:
        self._bindings, self._recorded, self._executable = bindings, graph, executable

    @classmethod
    def record(cls, stream: int, work: Any) -> _Graph | None:
        try:
            from cuda.bindings import driver as bindings
        except ImportError:
            return None
        mode = bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        try:
            if _failed(bindings.cuStreamBeginCapture(stream, mode)):
                return None
        except Exception:  # bindings of another CUDA than the driver's raise types of their own
            return None
        try:
            work()
        except Exception:  # PyCUDA raises many types; the network still runs without a recording
            bindings.cuStreamEndCapture(stream)
            return None
        status = bindings.cuStreamEndCapture(stream)
        if _failed(status):
            return None
        made = bindings.cuGraphInstantiate(status[1], 0)
        if _failed(made):
            bindings.cuGraphDestroy(status[1])
            return None
        return cls(bindings, status[1], made[1])

    def launch(self, stream: int) -> None:
        if _failed(self._bindings.cuGraphLaunch(self._executable, stream)):
            raise RuntimeError("the recorded network could not be started on the GPU")

    def close(self) -> None:
        self._bindings.cuGraphExecDestroy(self._executable)
        self._bindings.cuGraphDestroy(self._recorded)


def import_pycuda() -> Any:
    """Import PyCUDA's driver module without creating a context.

    Raises
    ------
    EngineUnavailable
        PyCUDA or the driver that it was built for is not installed.
    """
    with importing("tensorrt", "PyCUDA", "tensorrt"):
        import pycuda.driver as driver
    return driver


def _failed(status: tuple[Any, ...]) -> bool:
    return int(status[0]) != 0
