"""Measure GPU time with CUDA events, and energy with NVML, or with tegrastats on a Jetson.

Each function returns figures or the reason why there are none. CUDA events and NVML have been run on an H100;
tegrastats has not, and follows its documentation.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from inside import cuda_session
from measuring import quantiles
from numpy.typing import NDArray

_TEGRASTATS_MS = 100
# Rails and their power, mW: now/mean. Some Jetsons measure the input of the whole module, others its rails alone.
_TEGRA_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*) (\d+)(?:mW)?/\d+(?:mW)?(?![\w@%])")
_TEGRA_INPUTS = ("VDD_IN", "POM_5V_IN", "VIN")
_LEAST_SECONDS = 2.0

Found = dict[str, Any]


def device_times(engine: Any, image: NDArray[np.float32], runs: int) -> Found:
    """Return p50, p90 and p99 of the GPU time of copies and network (ms), or a ``reason``.

    Parameters
    ----------
    engine : Engine
        Engine of edge_spine.
    image : (1, 3, 224, 224) float32 array
        Network input.
    runs : int
        Number of inferences.
    """
    if engine.name != "tensorrt":
        return {"reason": f"{engine.name}: only the TensorRT engine has a CUDA stream for events"}
    from edge_spine.engines.tensorrt.cuda import import_pycuda
    from edge_spine.network import INPUT_NAME

    cuda, (session, enqueue) = import_pycuda(), cuda_session(engine)
    times = []
    engine.infer(image)
    for _ in range(runs):
        with session.current():
            session.host[INPUT_NAME][...] = image
            begin, end = cuda.Event(), cuda.Event()
            begin.record(session.stream)
            enqueue()
            end.record(session.stream)
            end.synchronize()
            times.append(begin.time_till(end))
    return {"by": "CUDA events", "ms": quantiles(times)}


def energy(engine_name: str, infer: Callable[[], object], seconds: float) -> Found:
    """Return the energy of one inference (mJ) and the mean power (W), or a ``reason``.

    Both are those of the whole device, idle power included. Inference is repeated for at least `seconds`.
    """
    if engine_name not in ("tensorrt", "onnx-cuda"):
        return {"reason": f"{engine_name} runs on the processor, which has no meter here"}
    try:
        return _by_nvml(infer, max(seconds, _LEAST_SECONDS))
    except Exception as error:  # Not installed, no driver, or no counter: the exception types differ.
        reason = f"NVML: {type(error).__name__}: {error}"
    if shutil.which("tegrastats") is None:
        return {"reason": f"{reason}; there is no tegrastats either"}
    return _by_tegrastats(infer, max(seconds, _LEAST_SECONDS))


def tegra_power_mw(line: str) -> int | None:
    """Return the module's power (mW) in a line of tegrastats, or None.

    Where its input is not measured, as on AGX modules, it is the sum of the rails.
    """
    rails = {name: int(power) for name, power in _TEGRA_RAIL.findall(line) if name not in ("RAM", "SWAP", "IRAM")}
    for name in _TEGRA_INPUTS:
        if name in rails:
            return rails[name]
    return sum(rails.values()) if rails else None


def _by_nvml(infer: Callable[[], object], seconds: float) -> Found:
    import pynvml

    pynvml.nvmlInit()
    try:
        gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
        before, started = pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu), time.perf_counter()
        count = _repeated(infer, seconds)
        passed, used = time.perf_counter() - started, pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) - before
    finally:
        pynvml.nvmlShutdown()
    return {"by": "NVML", "mj_per_inference": used / count, "watts": used / 1000 / passed, "inferences": count}


def _by_tegrastats(infer: Callable[[], object], seconds: float) -> Found:
    process = subprocess.Popen(
        ["tegrastats", "--interval", str(_TEGRASTATS_MS)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    powers: list[int] = []

    def listen() -> None:
        for line in process.stdout or ():
            if (power := tegra_power_mw(line)) is not None:
                powers.append(power)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    started = time.perf_counter()
    try:
        count = _repeated(infer, seconds)
        passed = time.perf_counter() - started
    finally:
        process.terminate()
        process.wait()
        listener.join(timeout=5)
    if not powers:
        return {"reason": "tegrastats reports no power of the whole module"}
    watts = sum(powers) / len(powers) / 1000
    return {"by": "tegrastats", "mj_per_inference": 1000 * watts * passed / count, "watts": watts, "inferences": count}


def _repeated(infer: Callable[[], object], seconds: float) -> int:
    end, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        infer()
        count += 1
    return count
