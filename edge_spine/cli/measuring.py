"""Describe this machine, time an engine on it, and lay figures out as a table."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from edge_spine.engines.driver import NoGpu, find_gpu
from edge_spine.processors import usable_cores

_INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm")


def time_scans(engine: str, model: str, threads: int | None, runs: int) -> dict[str, Any]:
    """Time the bundled scan in this process, and compare the engine with the model's references.

    After two that warm up, `runs` scans are timed; each is read from its file and estimated. Return a dict: ``model``
    with its version, and ``precision``; ``ms``, see `quantiles`; ``scans_a_second`` one after another; ``peak_mb`` of
    this process, or None; ``mean_mm``, the mean difference from PyTorch float32, and whether all tolerances are
    ``kept``. Or a ``problem``.
    """
    from edge_spine.bundle import load_bundle
    from edge_spine.cli.demo import DEMO_SCAN
    from edge_spine.engines import open_engine
    from edge_spine.engines.verification import verify
    from edge_spine.errors import EdgeSpineError
    from edge_spine.estimator import SpineEstimator
    from edge_spine.reading import read_scan

    times = []
    try:
        with SpineEstimator(engine, model, threads) as estimator:
            used = estimator.model
            for _ in range(2 + runs):
                started = time.perf_counter()
                estimator(read_scan(DEMO_SCAN))
                times.append(time.perf_counter() - started)
        peak_mb, bundle = peak_memory_mb(), load_bundle(model)
        with open_engine(bundle, engine, threads=threads) as opened:
            found = verify(bundle, opened)
    except EdgeSpineError as error:
        return {"problem": str(error)}
    return {
        "model": f"{used['name']} {used['version']}",
        "precision": used["precision"],
        "ms": quantiles(1000 * np.array(times[2:])),
        "scans_a_second": runs / sum(times[2:]),
        "peak_mb": peak_mb,
        "mean_mm": found.to_dict()["deviations"][-1]["mean_mm"],
        "kept": found.passed,
    }


def machine(*packages: str) -> dict[str, Any]:
    """Return processor, cores, system, versions of `packages`, and date."""
    model, flags = _processor()
    try:
        gpu: Any = find_gpu().__dict__
    except NoGpu as problem:
        gpu = str(problem)
    versions = {}
    for name in ("numpy", "opencv-python-headless", *packages):
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "processor": model,
        "cores": usable_cores(),
        "instructions": [name for name in _INSTRUCTIONS if name in flags],
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "date": time.strftime("%Y-%m-%d"),
    }


def described(found: Mapping[str, Any]) -> str:
    """Return a description of a machine in one or two lines."""
    gpu = found["gpu"] if isinstance(found["gpu"], str) else "{name}, CUDA {driver}".format(**found["gpu"])
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    units = ", ".join(found["instructions"]) or "no vector units named"
    first = f"{found['processor']}, {found['cores']} cores ({units})"
    return f"{first}, {found['system']}, Python {found['python']}, {found['date']}; {gpu}\n{versions}"


def quantiles(values: ArrayLike) -> dict[str, float]:
    """Return p50, p90 and p99."""
    return {f"p{share}": float(np.percentile(np.asarray(values, dtype=np.float64), share)) for share in (50, 90, 99)}


def laid_out(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as text; the first column is left-aligned, numbers have three digits."""
    cells = [list(head), *([_shown(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    aligned = ["<", *[">"] * (len(head) - 1)]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, aligned, widths, strict=True)).rstrip()
        for row in cells
    )


def peak_memory_mb() -> float | None:
    """Return the peak memory of this process, MB, or None if unknown."""
    # On Linux, ru_maxrss of a child includes memory of its parent.
    if (found := status_mb("VmHWM")) is not None:
        return found
    try:
        import resource
    except ImportError:  # Windows
        return None
    return rusage_mb(resource.getrusage(resource.RUSAGE_SELF))


def rusage_mb(used: Any) -> float:
    """Return the peak memory in a `resource.struct_rusage`, MB."""
    return float(used.ru_maxrss) / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


def status_mb(key: str, process: int | str = "self") -> float | None:
    """Return a size in /proc/PROCESS/status, MB: VmRSS is memory now, VmHWM its peak. None where it is not known."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{key}:")), None)


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _processor() -> tuple[str, set[str]]:
    name, flags = platform.processor() or platform.machine(), set[str]()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return name, flags
    for line in lines:
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name":
            name = value
        elif key in ("flags", "Features"):
            flags = set(value.split())
            break
    return name, flags
