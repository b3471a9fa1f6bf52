"""Every engine that runs on this machine, checked and timed side by side.

`python benchmarks/engines.py [--runs 200] [--json FILE] [--model BUNDLE]` takes each engine and precision in turns, a
few inferences at a time, so that a drift of the machine meets all of them alike. Each is first compared with PyTorch's
float32 answers: a fast engine that is wrong is named, not ranked. Where PyTorch is installed, it runs beside them, on
the GPU too; weights do not matter to its time. What cannot run is listed with its reason.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edge_spine.bundle import Bundle, load_bundle  # noqa: E402
from edge_spine.engines import open_engine  # noqa: E402
from edge_spine.engines.driver import NoGpu, find_gpu  # noqa: E402
from edge_spine.errors import EdgeSpineError  # noqa: E402
from edge_spine.verification import crop_tensor, read_references, verify  # noqa: E402

CANDIDATES = (
    ("onnx-cpu", "int8"),
    ("onnx-cpu", "fp32"),
    ("onnx-cuda", "fp16"),
    ("onnx-cuda", "fp32"),
    ("tensorrt", "int8"),
    ("tensorrt", "fp16"),
)
ROUND = 5
PACKAGES = ("onnxruntime", "onnxruntime-gpu", "tensorrt", "pycuda", "cuda-bindings", "torch", "numpy")

Infer = Callable[[], object]


def open_all(bundle: Bundle, stack: ExitStack, image: Any, rows: list[dict[str, Any]]) -> dict[str, Infer]:
    """Open what opens; fills one row for each candidate, and returns what to time by name."""
    timed: dict[str, Infer] = {}
    for engine, precision in CANDIDATES:
        row: dict[str, Any] = {"name": f"{engine} {precision}"}
        rows.append(row)
        start = time.perf_counter()
        try:
            opened = stack.enter_context(open_engine(bundle, engine, precision=precision))
        except EdgeSpineError as error:
            row["problem"] = str(error)
            continue
        row["ready_s"] = time.perf_counter() - start
        checked = verify(bundle, opened)
        row |= {"accuracy": checked.to_dict(), "passed": checked.passed}
        timed[row["name"]] = lambda opened=opened: opened.infer(image)
    return timed


def peers(image: Any, rows: list[dict[str, Any]]) -> dict[str, Infer]:
    """PyTorch eager, as the published code runs."""
    try:
        import torch

        from export.regressor import SpineRegressor
    except ImportError as error:
        rows.append({"name": "torch", "problem": str(error)})
        return {}
    timed: dict[str, Infer] = {}
    for device in ("cpu", "cuda"):
        name = f"torch {device} fp32"
        if device == "cuda" and not torch.cuda.is_available():
            rows.append({"name": name, "problem": "PyTorch sees no GPU"})
            continue
        network = SpineRegressor().init_().eval().to(device)

        def infer(network: Any = network, device: str = device) -> object:
            with torch.inference_mode():
                return network(torch.from_numpy(image).to(device)).cpu().numpy()

        infer()
        rows.append({"name": name})
        timed[name] = infer
    return timed


def take_turns(timed: dict[str, Infer], runs: int) -> dict[str, list[float]]:
    """Time each in rounds of a few inferences, ms from input on the host to output on the host."""
    times: dict[str, list[float]] = {name: [] for name in timed}
    for infer in timed.values():
        for _ in range(ROUND):
            infer()
    for _ in range(-(-runs // ROUND)):
        for name, infer in timed.items():
            for _ in range(ROUND):
                start = time.perf_counter()
                infer()
                times[name].append(1000 * (time.perf_counter() - start))
    return times


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    try:
        gpu: Any = find_gpu().__dict__
    except NoGpu as problem:
        gpu = str(problem)
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": versions,
        "commit": commit.stdout.strip() or None,
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> int:
    """Print the table; 1 where an engine that runs misses its tolerance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="inferences of each (default 200)")
    parser.add_argument("--model", type=Path, help="a model bundle (default: the packaged one)")
    parser.add_argument("--json", type=Path, help="write everything here too")
    options = parser.parse_args()
    bundle = load_bundle(options.model)
    image = crop_tensor(read_references(bundle)[0][0])
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        timed = open_all(bundle, stack, image, rows) | peers(image, rows)
        times = take_turns(timed, options.runs)
    for row in rows:
        if row["name"] in times:
            values = np.array(times[row["name"]])
            row["ms"] = {f"p{share}": float(np.percentile(values, share)) for share in (10, 50, 90, 99)}
    report = {"machine": machine(), "model": f"{bundle.name} {bundle.version}", "runs": options.runs, "engines": rows}
    print(table(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return int(any(row.get("passed") is False for row in rows))


def table(report: dict[str, Any]) -> str:
    """Lay the figures out: times, and how often each is as fast as eager PyTorch on the same device."""
    found = report["machine"]
    gpu = found["gpu"] if isinstance(found["gpu"], str) else "{name}, CUDA {driver}".format(**found["gpu"])
    lines = [f"{report['model']}; {found['system']}; {gpu}; {report['runs']} inferences of each, in turns"]
    lines.append(
        f"{'engine':18}{'p10 ms':>9}{'p50 ms':>9}{'p90 ms':>9}{'p99 ms':>9}{'ready s':>9}{'mean mm':>9}  accuracy"
    )
    for row in report["engines"]:
        if "problem" in row:
            lines.append(f"{row['name']:18}not run: {row['problem']}")
            continue
        line = f"{row['name']:18}" + "".join(f"{row['ms'][key]:9.2f}" for key in ("p10", "p50", "p90", "p99"))
        if "accuracy" in row:
            line += f"{row['ready_s']:9.2f}{row['accuracy']['deviations'][-1]['mean_mm']:9.3f}"
            line += "  passed" if row["passed"] else "  MISSED"
        lines.append(line)
    for device, names in (("cpu", ("onnx-cpu int8",)), ("cuda", ("tensorrt int8", "tensorrt fp16", "onnx-cuda fp16"))):
        times = {row["name"]: row["ms"]["p50"] for row in report["engines"] if "ms" in row}
        eager = times.get(f"torch {device} fp32")
        ratios = [f"{name} {eager / times[name]:.1f} times" for name in names if eager and name in times]
        if ratios:
            lines.append(f"as fast as eager PyTorch on {device}: " + ", ".join(ratios))
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
