"""Functions shared by the benchmarks: options, machine description, alternating timing, intervals, tables, JSON.

Each script imports it before edge_spine and export, which it makes importable from a clone.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # `python benchmarks/NAME.py` adds only the folder of the script.
    sys.path.insert(0, str(ROOT))

SCAN = ROOT / "edge_spine/data/synthetic_whole_body.dcm"
_INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm")
_RESAMPLES = 2000


def options_of(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the option that all scripts have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    return parser


def machine(*packages: str) -> dict[str, Any]:
    """Return processor, cores, system, versions of `packages`, commit and date."""
    from edge_spine.engines.driver import NoGpu, find_gpu
    from edge_spine.processors import usable_cores

    model, flags = _processor()
    try:
        gpu: Any = find_gpu().__dict__
    except NoGpu as problem:
        gpu = str(problem)
    versions = {}
    for name in ("numpy", "opencv-python-headless", *packages):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": model,
        "cores": usable_cores(),
        "instructions": [name for name in _INSTRUCTIONS if name in flags],
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _commit() -> str | None:
    """Return the commit of this clone, or None where there is no clone or no git."""
    try:
        told = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return told.stdout.strip() or None


def described(found: Mapping[str, Any]) -> str:
    """Return a description of a machine in one or two lines."""
    gpu = found["gpu"] if isinstance(found["gpu"], str) else "{name}, CUDA {driver}".format(**found["gpu"])
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    first = (
        f"{found['processor']}, {found['cores']} cores ({', '.join(found['instructions']) or 'no vector units named'})"
    )
    return f"{first}, {found['system']}, Python {found['python']}, {found['date']}; {gpu}\n{versions}"


def take_turns(
    timed: Mapping[str, Callable[[], object]], runs: int, in_a_row: int = 5
) -> dict[str, NDArray[np.float64]]:
    """Time callables alternately, a few calls at a time, so that drift of the machine affects all equally.

    Returns
    -------
    dict
        Times (ms) by name, (rounds, in_a_row).
    """
    for call in timed.values():
        for _ in range(in_a_row):
            call()
    rounds = -(-runs // in_a_row)
    times = {name: np.empty((rounds, in_a_row)) for name in timed}
    names = list(timed)
    for turn in range(rounds):
        # Reverse the order, so that each is first as often as last.
        for name in names if turn % 2 == 0 else reversed(names):
            for again in range(in_a_row):
                start = time.perf_counter()
                timed[name]()
                times[name][turn, again] = 1000 * (time.perf_counter() - start)
    return times


def quantiles(values: ArrayLike) -> dict[str, float]:
    """Return p50, p90 and p99."""
    return {f"p{share}": float(np.percentile(values, share)) for share in (50, 90, 99)}


def ratio(over: NDArray[np.float64], under: NDArray[np.float64]) -> dict[str, float]:
    """Return the ratio of two medians with its 95 % interval, from bootstrap resampling of rounds.

    Parameters
    ----------
    over, under : (rounds, calls) array
        Times of two names from one `take_turns`.
    """
    generator = np.random.default_rng(0)
    rounds = len(over)
    drawn = generator.integers(rounds, size=(_RESAMPLES, rounds))
    found = [np.median(over[rows]) / np.median(under[rows]) for rows in drawn]
    low, high = np.percentile(found, (2.5, 97.5))
    return {"ratio": float(np.median(over) / np.median(under)), "low": float(low), "high": float(high)}


def with_interval(found: Mapping[str, float]) -> str:
    """Format the result of `ratio`."""
    return f"{found['ratio']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def verdicts(targets: Iterable[tuple[str, str, bool]]) -> str:
    """Return a line for each target: what is wanted, what was measured, and whether it is met."""
    return "".join(f"\n{wanted}: {found} {'met' if met else 'MISSED'}" for wanted, found, met in targets)


def laid_out(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as text; the first column is left-aligned, numbers have three digits."""
    cells = [list(head), *([_shown(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        first, *others = (
            f"{cell:<{w}}" if not k else f"{cell:>{w}}" for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines)


def write_json(path: Path | None, report: Mapping[str, Any]) -> None:
    """Write a report if a path is given."""
    if path is not None:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def memory_mb() -> float | None:
    """Return the memory of this process, MB, or None if unknown."""
    try:
        import psutil
    except ImportError:
        return status_mb("VmRSS")
    return float(psutil.Process().memory_info().rss) / 1e6


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
    return used.ru_maxrss / 1e6 if sys.platform == "darwin" else used.ru_maxrss * 1024 / 1e6


def status_mb(key: str, process: int | str = "self") -> float | None:
    """Return a size in /proc/PROCESS/status, MB: VmRSS is memory now, VmHWM its peak. None where it is not known."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{key}:")), None)


def folder_mb(folder: Path) -> float:
    """Return the size of the files below a folder, MB."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink()) / 1e6


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _processor() -> tuple[str, set[str]]:
    """Return the processor's name and flags, as far as known."""
    name, flags = platform.processor() or platform.machine(), set()
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
