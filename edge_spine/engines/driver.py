"""Choose and find the NVIDIA GPU through the driver's own library.

Called before any other use of CUDA: without a usable driver some versions of TensorRT end the process with a
segmentation fault when a runtime is created.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_spine.errors import EngineUnavailable, UsageError

_MANAGEMENT = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
# where a Jetson notes its power mode
_POWER_MODE = Path("/var/lib/nvpmodel/status")
_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
# numbers of cuda.h's CUdevice_attribute
_CAPABILITY_MAJOR, _CAPABILITY_MINOR, _INTEGRATED, _MULTIPROCESSORS = 75, 76, 18, 16
_NAME_LENGTH = 256
# oldest drivers of NVIDIA's release notes, by CUDA
_DRIVERS = {"12": "525", "12.2": "535 (on Windows 537)", "13": "580"}
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Gpu:
    """Properties of a GPU: the driver's name for it, and the compute capability, such as "8.7"."""

    name: str
    compute_capability: str
    # the newest CUDA version that the driver supports, such as "12.6"
    driver: str
    # whether it shares the memory of the processor, as on a Jetson
    integrated: bool
    multiprocessors: int


class NoGpu(Exception):
    """No usable GPU; the message says why."""


def choose_gpu(number: int) -> None:
    """Let this process and those that it starts see one GPU only, by its place in nvidia-smi's list, from 0.

    Called before any use of CUDA. Builder, runtime and every other library then have it as their first. UsageError
    where CUDA_VISIBLE_DEVICES leaves fewer GPUs.
    """
    chosen = str(number)
    if (visible := os.environ.get(_VISIBLE)) is not None:
        names = [name.strip() for name in visible.split(",") if name.strip()]
        if number >= len(names):
            raise UsageError(f"device {number} is asked for, but {_VISIBLE} leaves {len(names)} GPUs")
        chosen = names[number]
    # CUDA's own order puts the fastest first
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    os.environ[_VISIBLE] = chosen


def load_driver() -> Any:
    """Load the driver's library, or raise NoGpu; its functions return a status, 0 for success."""
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError:
        raise NoGpu("no NVIDIA driver was found on this machine") from None


def find_gpu() -> Gpu:
    """Return the first GPU, or raise NoGpu: there is no driver, it does not start, or it has no GPU."""
    driver = load_driver()
    _ask(driver, "cuInit", 0)
    if _number(driver, "cuDeviceGetCount") < 1:
        raise NoGpu("the NVIDIA driver has no GPU")
    device = _number(driver, "cuDeviceGet", 0)
    name = ctypes.create_string_buffer(_NAME_LENGTH)
    _ask(driver, "cuDeviceGetName", name, _NAME_LENGTH, device)
    version = _number(driver, "cuDriverGetVersion")
    attributes = (_CAPABILITY_MAJOR, _CAPABILITY_MINOR, _INTEGRATED, _MULTIPROCESSORS)
    major, minor, integrated, count = (_number(driver, "cuDeviceGetAttribute", which, device) for which in attributes)
    return Gpu(
        name=name.value.decode("utf-8", "replace"),
        compute_capability=f"{major}.{minor}",
        driver=f"{version // 1000}.{version % 1000 // 10}",
        integrated=bool(integrated),
        multiprocessors=count,
    )


def require_gpu(engine: str) -> Gpu:
    """Return the first GPU, or raise EngineUnavailable for an engine."""
    try:
        return find_gpu()
    except NoGpu as problem:
        raise EngineUnavailable(f"{engine}: {problem}") from None


def driver_state() -> dict[str, str]:
    """Return the ``driver`` version and ``power`` state of the first GPU, "unknown" where they cannot be read."""
    state = {"driver": "unknown", "power": "unknown"}
    with suppress(OSError, ValueError):
        state["power"] = _POWER_MODE.read_text(encoding="utf-8").strip()[:100]
    with suppress(OSError, AttributeError), ExitStack() as stack:
        management: Any = ctypes.CDLL(_MANAGEMENT)
        if management.nvmlInit_v2() != 0:
            return state
        stack.callback(management.nvmlShutdown)
        first = os.environ.get(_VISIBLE, "").split(",")[0]
        text, device = ctypes.create_string_buffer(_NAME_LENGTH), ctypes.c_void_p()
        if management.nvmlSystemGetDriverVersion(text, _NAME_LENGTH) == 0:
            state["driver"] = text.value.decode("utf-8", "replace")
        level, milliwatts = ctypes.c_uint(), ctypes.c_uint()
        if (
            management.nvmlDeviceGetHandleByIndex_v2(int(first) if first.isdigit() else 0, ctypes.byref(device)) == 0
            and management.nvmlDeviceGetPerformanceState(device, ctypes.byref(level)) == 0
            and management.nvmlDeviceGetEnforcedPowerLimit(device, ctypes.byref(milliwatts)) == 0
        ):
            state["power"] = f"P{level.value}, limit {milliwatts.value / 1000:.0f} W"
    return state


def require_cuda(engine: str, gpu: Gpu, package: str, cuda: str, instead: str) -> None:
    """Raise EngineUnavailable where the driver supports an older CUDA than a package needs: "12", "12.2" or "13"."""
    if _numbers(gpu.driver) < _numbers(cuda):
        version = driver_state()["driver"]
        raise EngineUnavailable(
            f"{engine}: {package} needs a driver for CUDA {cuda}, {_DRIVERS[cuda]} or newer; found is driver "
            f"{version} for CUDA {gpu.driver}; update the driver or {instead}"
        )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _number(driver: Any, function: str, *arguments: Any) -> int:
    value = ctypes.c_int(0)
    _ask(driver, function, ctypes.byref(value), *arguments)
    return value.value


def _ask(driver: Any, function: str, *arguments: Any) -> None:
    try:
        status = getattr(driver, function)(*arguments)
    except AttributeError:
        raise NoGpu(f"the NVIDIA driver is too old: it has no {function}") from None
    if status != 0:
        said = ctypes.c_char_p()
        with suppress(AttributeError):
            driver.cuGetErrorString(status, ctypes.byref(said))
        words = f" ({said.value.decode('utf-8', 'replace')})" if said.value else ""
        seen = f"; {_VISIBLE} is {os.environ[_VISIBLE]!r}" if _VISIBLE in os.environ else ""
        raise NoGpu(f"the NVIDIA driver does not work: {function} returned {status}{words}{seen}")
