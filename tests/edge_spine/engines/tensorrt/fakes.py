"""FAKE versions of TensorRT, a FAKE GPU, and a FAKE PyCUDA that writes down the order of calls."""

from __future__ import annotations

import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from edge_spine.engines.driver import Gpu

MISSING = -1
GPU = Gpu(name="FAKE GPU", compute_capability="8.7", driver="12.6", integrated=False, multiprocessors=16)


class FakeTrt:
    """FAKE TensorRT module for what is asked of a version."""

    __name__, __version__ = "tensorrt", "10.3.0"

    def __init__(self, *, flags: tuple[str, ...], network: tuple[str, ...]) -> None:
        self.BuilderFlag = SimpleNamespace(**dict.fromkeys(flags, 1))
        self.NetworkDefinitionCreationFlag = SimpleNamespace(**{name: n for n, name in enumerate(network)})


# as a scan of the real bindings shows them
VERSIONS = {
    "8.6": FakeTrt(flags=("FP16", "INT8"), network=("EXPLICIT_BATCH",)),
    "10.3": FakeTrt(flags=("FP16", "INT8"), network=("EXPLICIT_BATCH", "STRONGLY_TYPED")),
    "10.11": FakeTrt(flags=("FP16", "INT8", "EDITABLE_TIMING_CACHE"), network=("EXPLICIT_BATCH", "STRONGLY_TYPED")),
    "10.13": FakeTrt(flags=("FP16", "INT8", "DISTRIBUTIVE_INDEPENDENCE"), network=("EXPLICIT_BATCH", "STRONGLY_TYPED")),
    "11.4": FakeTrt(flags=("TF32", "DISTRIBUTIVE_INDEPENDENCE"), network=("STRONGLY_TYPED",)),
}


class FakeCuda(ModuleType):
    """FAKE pycuda.driver: host memory for a GPU, and a context stack for each thread, checked at every call."""

    def __init__(self) -> None:
        super().__init__("pycuda.driver")
        self.said: list[str] = []
        self.stacks = threading.local()
        self.live: set[int] = set()
        self.refs = 0
        self.free = 8 << 30
        self.fails: dict[str, Exception] = {}
        self.Context = SimpleNamespace(pop=lambda: self._pop())
        self.Stream = lambda flags: self._made(
            f"stream {flags}", handle=7, synchronize=lambda: self._need("synchronize")
        )
        self.library = FakeLibrary(self)

    def init(self) -> None:
        self.said.append("init")

    def Device(self, number: int) -> Any:
        return SimpleNamespace(retain_primary_context=self._retain)

    def _retain(self) -> Any:
        self.refs += 1
        # PyCUDA's `detach` is wrong for such a context, so there is none here
        return SimpleNamespace(push=self._push)

    def mem_get_info(self) -> tuple[int, int]:
        assert self.depth > 0
        return self.free, 8 << 30

    def pagelocked_zeros(self, shape: tuple[int, ...], dtype: Any, mem_flags: int = 0) -> Any:
        self._need("host")
        base = np.zeros(int(np.prod(shape)), dtype).view(FakeHost)
        return base.reshape(shape)

    def mem_alloc(self, size: int) -> Any:
        self._need("alloc")
        number = len(self.live) + 100
        self.live.add(number)
        return FakeBuffer(self, number)

    def memcpy_htod_async(self, *_: Any) -> None:
        self._need("to device")

    def memcpy_dtoh_async(self, *_: Any) -> None:
        self._need("to host")

    @property
    def depth(self) -> int:
        return getattr(self.stacks, "depth", 0)

    def _push(self) -> None:
        assert self.refs > 0, "pushed after it was released"
        self.stacks.depth = self.depth + 1

    def _pop(self) -> None:
        assert self.depth > 0
        self.stacks.depth = self.depth - 1

    def _need(self, what: str) -> None:
        assert self.depth > 0, f"{what} without a context"
        self.said.append(what)
        if what in self.fails:
            raise self.fails[what]

    def _made(self, what: str, **more: Any) -> Any:
        self._need(what)
        return SimpleNamespace(**more)


class FakeLibrary:
    """FAKE libcuda: the functions that are called through ctypes; `fails` holds the status of those that fail."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.fails = cuda, dict[str, int]()

    def __getattr__(self, name: str) -> Any:
        if self.fails.get(name) == MISSING:
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            if name == "cuDevicePrimaryCtxRelease_v2":
                self.cuda.refs -= 1
            elif name == "cuStreamEndCapture":
                arguments[1]._obj.value = 88
            elif name == "cuGraphInstantiateWithFlags":
                arguments[0]._obj.value = 99
            self.cuda.said.append(name)
            return self.fails.get(name, 0)

        return call


class FakeHost(np.ndarray):
    pass


class FakeBuffer:
    def __init__(self, cuda: FakeCuda, number: int) -> None:
        self.cuda, self.number = cuda, number

    def __int__(self) -> int:
        return self.number

    def free(self) -> None:
        self.cuda._need("free")
        self.cuda.live.discard(self.number)


def fake_tensorrt(
    cuda: FakeCuda, *, loads: bool = True, starts: bool = True, block: int = 1, **needs: int | None
) -> Any:
    """FAKE TensorRT: an engine that starts nothing, with a second profile where `block` is not 1.

    `needs` is what a version says of the memory of a context.
    """

    class Part:
        def __init__(self, name: str, **more: Any) -> None:
            self.name = name
            self.__dict__.update(more)

        def __del__(self) -> None:
            assert cuda.depth > 0, f"{self.name} destroyed without a context"
            cuda.said.append(f"destroyed {self.name}")

    def enqueue(stream: int) -> bool:
        cuda._need(f"enqueue on {stream}")
        return starts

    def context() -> Any:
        def said(what: str) -> Any:
            return lambda *values: cuda.said.append(f"{what} {' '.join(map(str, values))}") or True

        return Part(
            "context",
            set_tensor_address=said("address"),
            execute_async_v3=enqueue,
            set_optimization_profile_async=said("profile"),
            set_input_shape=said("shape"),
        )

    def engine(plan: bytes) -> Any:
        if not loads:
            return None
        return Part(
            "engine",
            create_execution_context=context,
            **needs,
            get_tensor_dtype=lambda name: "float32",
            num_optimization_profiles=1 if block == 1 else 2,
            get_tensor_profile_shape=lambda name, profile: [((1, block)[profile], 3, 224, 224)] * 3,
        )

    class Logger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    return SimpleNamespace(
        __name__="tensorrt",
        __version__="10.3.0",
        BuilderFlag=SimpleNamespace(FP16=1),
        ILogger=Logger,
        DataType=SimpleNamespace(FLOAT="float32"),
        Runtime=lambda logger: Part("runtime", deserialize_cuda_engine=engine),
    )
