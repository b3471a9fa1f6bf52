"""Compare the free memory of a GPU with what an engine needs, and tell where it is short."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_spine.engines.base import EngineName, first_line
from edge_spine.errors import GpuMemoryShort

_MIB = 1 << 20
_SYSTEM = Path("/proc/meminfo")
_HELP = "end other processes that use the GPU, or take --model lite, no --blocks, or --engine onnx-cpu"
# of PyCUDA and CUDA, and of ONNX Runtime's own allocator
_RAN_OUT = ("out of memory", "failed to allocate memory")


def require_memory(engine: str, what: str, needed: int, free: int) -> None:
    """Raise GpuMemoryShort where fewer bytes are free than `what`, such as "running the plan", needs."""
    if free < needed:
        found = f"{what} needs about {-(-needed // _MIB)} MiB of the GPU's memory, of which {free // _MIB} MiB are free"
        raise memory_short(engine, found)


def memory_short(engine: str, found: str) -> GpuMemoryShort:
    """Return the error to raise where memory of the GPU is short, with what helps."""
    return GpuMemoryShort(f"{engine}: {GpuMemoryShort.code}: {found}; {_HELP}")


def ran_out(engine: str, error: BaseException) -> GpuMemoryShort | None:
    """Return the error to raise where a library of a GPU says that memory ran out, else None."""
    said = first_line(error)
    if engine not in (EngineName.TENSORRT, EngineName.ONNX_CUDA) or not any(word in said.lower() for word in _RAN_OUT):
        return None
    return memory_short(engine, f"the GPU ran out of memory ({said})")


@contextmanager
def naming_shortage(engine: str) -> Iterator[None]:
    """Turn what a library of a GPU raises in the block where memory runs out into GpuMemoryShort."""
    try:
        yield
    except Exception as error:
        if (short := ran_out(engine, error)) is not None:
            raise short from None
        raise


def shared_memory(free: int) -> int:
    """Return the bytes that a GPU which shares the processor's memory can have, at least the driver's `free`.

    The driver of a Jetson does not count what the system gives back on demand, such as cached files.
    """
    with suppress(OSError, ValueError, IndexError):
        for line in _SYSTEM.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return max(free, int(line.split()[1]) * 1024)
    return free
