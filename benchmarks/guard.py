"""Fail on regressions above 15 % of each stage's cost, measured as ratios against guard.json.

`python benchmarks/guard.py [--update] [--json FILE]`; `tests/benchmarks/test_guard.py` runs it too. For each stage of
one scan, without the network and the localiser's, there are three figures:

- ratio: its time divided by that of a fixed reference workload with the same libraries and similar calls and sizes.
  Both are minima of many alternating runs, so load on the machine prolongs the benchmark but does not change the ratio.
- calls: number of Python and C function calls; deterministic.
- peak, KB: peak memory as measured by tracemalloc; deterministic.

Calls and peak are compared at 15 % if Python, NumPy, OpenCV and pydicom have the minor versions of the baseline, and
not compared otherwise. Ratios are compared at 15 % if the processor is also the same, at 50 % on another processor of
the same architecture or with other versions, and only shown on other systems. `--update` rewrites the baseline, after
an intended change, on a machine like the one that tests run on.
"""

from __future__ import annotations

import gc
import io
import json
import os
import platform
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Set before NumPy is imported, to exclude waiting threads from the timing.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import cv2
import numpy as np
import pydicom
from inside import answer_with_the_last, engine_of, localiser_of
from measuring import SCAN, laid_out, machine, options_of, write_json

from edge_spine import SpineEstimator, read_scan
from edge_spine.bundle import load_bundle
from edge_spine.locate import locate
from edge_spine.measure import measure
from edge_spine.outputs.drawing.palette import BACKGROUND
from edge_spine.outputs.drawing.panels import draw_panels
from edge_spine.outputs.drawing.raster import RasterCanvas
from edge_spine.outputs.preview_png import PAGE
from edge_spine.preprocessing import prepare
from edge_spine.quality import judge
from edge_spine.reconstruct import curves_from_output, reconstruct
from edge_spine.refine import refined

BASELINE = Path(__file__).with_name("guard.json")
STAGES = ("read", "preprocess", "refine", "locate", "reconstruct", "measure", "judge", "json", "preview")
LOSS, LOSS_ELSEWHERE = 0.15, 0.5
ATTEMPTS, LEAST_ATTEMPTS, SECONDS = 8, 2, 2.0
# Runs in a row; the first one after another stage has cold caches.
IN_A_ROW = 6
# Share of time that `--slower` adds.
SLOWER = 0.3

Work = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes
    ----------
    stage, figure : str
        Stage and figure that are compared.
    found, before : float
        Measured value, and that of the baseline.
    limit : float or None
        Largest permitted growth, as a fraction; None if the figure is only shown.
    """

    stage: str
    figure: str
    found: float
    before: float
    limit: float | None

    @property
    def change(self) -> float:
        """Growth over the baseline, as a fraction."""
        return self.found / self.before - 1

    @property
    def lost(self) -> bool:
        """Whether the growth exceeds the limit."""
        return self.limit is not None and self.change > self.limit


def stages() -> dict[str, Work]:
    """Return a callable for each stage of the bundled scan."""
    scan = read_scan(SCAN)
    with SpineEstimator("onnx-cpu", threads=1) as estimator:
        result = estimator(scan)
        localiser, output = localiser_of(estimator), engine_of(estimator).infer(result.prepared.tensor)[0]
    answer_with_the_last(localiser)
    bundle = load_bundle()
    if bundle.refinement is None or bundle.level_network is None:
        raise SystemExit("the packaged model has no refinement or no network that finds vertebrae")
    refinement, level_network = bundle.refinement, bundle.level_network
    prepared, curves, spine, measured = result.prepared, result.curves, result.spine, result.measurements
    return {
        "read": lambda: read_scan(SCAN),
        "preprocess": lambda: prepare(scan, localiser),
        "refine": lambda: refined(prepared.tensor, output, refinement),
        "locate": lambda: locate(prepared.tensor, output, level_network).levels(prepared),
        "reconstruct": lambda: reconstruct(curves_from_output(output, prepared)),
        "measure": lambda: measure(spine, result.levels),
        "judge": lambda: judge(scan, prepared, curves, spine, measured, result.levels),
        "json": result.to_json,
        "preview": lambda: draw_panels(RasterCanvas(PAGE.width, PAGE.height, BACKGROUND), PAGE.cards(), result),
    }


def yardsticks() -> dict[str, Work]:
    """Return the reference workload of each stage; a change invalidates the baseline."""
    arrays, sampling, imaging = _small_arrays(), _sampling(), _imaging()
    return {
        "read": _reading(),
        "preprocess": imaging,
        "refine": sampling,
        "locate": sampling,
        "reconstruct": arrays,
        "measure": arrays,
        "judge": arrays,
        "json": _printing(),
        "preview": imaging,
    }


def _reading() -> Work:
    content = SCAN.read_bytes()

    def work() -> None:
        header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
        for keyword in ("Rows", "Columns", "Manufacturer", "Modality", "ExposedArea", "PatientOrientation"):
            header.get(keyword)
        np.frombuffer(content[-200_000:], np.uint8).astype(np.float32).max()

    return work


def _imaging() -> Work:
    y, x = np.mgrid[:800, :270]
    grey = (120 + 80 * np.sin(x / 9) * np.cos(y / 25) - 0.8 * np.abs(x - 135)).clip(0, 255).astype(np.uint8)
    image, table = grey.astype(np.float32), np.linspace(0, 1, 256, dtype=np.float32)
    to_image = np.array([[0.9, 0, 20.3], [0, 0.9, 120.7]])

    def work() -> None:
        above = (cv2.GaussianBlur(image, (3, 3), 0) > 90).view(np.uint8)
        _, labels = cv2.connectedComponents(above, connectivity=8)
        mask = (labels > 0).view(np.uint8)
        cv2.calcHist([grey], [0], mask, [256], [0, 256])
        shown = cv2.LUT(grey, table)
        cv2.resize(shown, (93, 274), interpolation=cv2.INTER_AREA)
        cv2.warpAffine(shown, to_image, (224, 224), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)

    return work


def _small_arrays() -> Work:
    row = np.linspace(-1, 1, 209)
    columns = np.stack([np.sin(3 * row), np.cos(2 * row)], axis=1)
    basis = np.vander(row, 31)

    def work() -> None:
        for _ in range(4):
            kept = basis.T @ columns
            slope = np.arctan(basis[:, :11] @ kept[:11] / 1e6)
            np.cumsum(np.sqrt(1 + (slope**2).sum(axis=1)))
            np.concatenate([slope[:5], np.diff(columns, axis=0)])
            bool(np.all(np.isfinite(slope))), float(np.abs(slope).max()), slope[:, 0].mean()
            sum(value > 0.1 for value in slope[:, 0].tolist())

    return work


def _sampling() -> Work:
    crop = np.random.default_rng(0).random((224, 224), np.float32)
    columns, rows = (np.linspace(20, 200, 105 * 49, dtype=np.float32).reshape(105, 49) for _ in range(2))
    wide, weight = np.ones((112, 192), np.float32), np.ones((192, 64), np.float32)

    def work() -> None:
        for _ in range(4):
            seen = cv2.remap(crop, columns, rows, cv2.INTER_LINEAR) + (columns - rows)
            (seen / np.maximum(seen.mean(axis=1), 0.1)[:, np.newaxis]).clip(-1, 2)
            for _ in range(2):
                np.maximum(wide @ weight + weight[0], 0)
            np.concatenate([wide[:, :64], wide[:, 64:]], axis=1).max(axis=0)

    return work


def _printing() -> Work:
    values = np.random.default_rng(0).normal(0, 100, (209, 9))

    def work() -> str:
        return json.dumps({"rows": (np.round(values, 3) + 0.0).tolist()}, allow_nan=False)

    return work


def calls_of(work: Work) -> int:
    """Return the number of function calls of a workload."""
    count = 0

    def note(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def peak_of(work: Work) -> float:
    """Return the peak memory of a workload, KB."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        work()
        return (tracemalloc.get_traced_memory()[1] - before) / 1000
    finally:
        tracemalloc.stop()


def least_times(works: Mapping[str, Work], fixed: Mapping[str, Work], least: dict[str, list[float]]) -> None:
    """Run stages and reference workloads alternately for `SECONDS`, and update their minimum times (ms)."""
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        for name, work in works.items():
            for place, timed in enumerate((fixed[name], work)):
                for _ in range(IN_A_ROW):
                    started = time.perf_counter()
                    timed()
                    least[name][place] = min(least[name][place], 1000 * (time.perf_counter() - started))


def compared(found: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[Row]:
    """Compare figures with the baseline, with the limits that apply to this machine."""
    here, there = found["made_on"], baseline["made_on"]
    same_versions = here["versions"] == there["versions"]
    same_kind = here["system"] == there["system"]
    same_processor = same_kind and here["processor"] == there["processor"]
    counted = LOSS if same_versions and same_kind else None
    timed = (LOSS if same_versions and same_processor else LOSS_ELSEWHERE) if same_kind else None
    limits = {"ratio": timed, "calls": counted, "peak_kb": counted}
    return [
        Row(stage, figure, found["stages"][stage][figure], baseline["stages"][stage][figure], limits[figure])
        for stage in STAGES
        for figure in limits
    ]


def made_on() -> dict[str, Any]:
    """Return processor, system and versions, which decide the limits of the comparison."""
    here = machine("pydicom")
    minor = {name: ".".join(version.split(".")[:2]) for name, version in sorted(here["versions"].items())}
    return {
        "processor": f"{here['processor']} ({', '.join(here['instructions'])})",
        "system": here["system"],
        "versions": {"python": ".".join(platform.python_version_tuple()[:2]), **minor},
        "date": here["date"],
    }


def guard(slower: str | None = None, baseline: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Measure each stage, and repeat while a figure exceeds the baseline's limit."""
    cv2.setNumThreads(1)
    works, fixed = stages(), yardsticks()
    for _ in range(3):
        for work in (*works.values(), *fixed.values()):
            work()
    counted = {name: {"calls": calls_of(work), "peak_kb": round(peak_of(work), 1)} for name, work in works.items()}
    if slower:
        works[slower] = _slowed(works[slower])
    found: dict[str, Any] = {"made_on": made_on(), "stages": {}, "least_ms": {}}
    least = {name: [np.inf, np.inf] for name in works}
    gc.disable()
    try:
        for attempt in range(ATTEMPTS):
            least_times(works, fixed, least)
            for name, (yardstick, stage) in least.items():
                found["stages"][name] = {"ratio": round(stage / yardstick, 4), **counted[name]}
                found["least_ms"][name] = {"stage": round(stage, 4), "yardstick": round(yardstick, 4)}
            lost = baseline is not None and any(row.lost for row in compared(found, baseline) if row.figure == "ratio")
            if attempt + 1 >= LEAST_ATTEMPTS and not lost and baseline is not None:
                break
    finally:
        gc.enable()
    return found


def _slowed(work: Work) -> Work:
    def longer() -> None:
        started = time.perf_counter()
        work()
        end = time.perf_counter() + SLOWER * (time.perf_counter() - started)
        while time.perf_counter() < end:
            pass

    return longer


def text(rows: list[Row]) -> str:
    """Return the comparisons as a table."""
    cells = []
    for row in rows:
        verdict = "only shown" if row.limit is None else f"LOST, at most {row.limit:+.0%}" if row.lost else "kept"
        cells.append((f"{row.stage}, {row.figure}", row.before, row.found, f"{row.change:+.1%}", verdict))
    return laid_out(("figure", "baseline", "now", "change", ""), cells)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return 1 on a regression."""
    parser = options_of(__doc__)
    parser.add_argument("--update", action="store_true", help="rewrite the baseline")
    parser.add_argument("--slower", choices=STAGES, help="make a stage 30 %% slower, to check that it is detected")
    options = parser.parse_args(arguments)
    if options.update:
        found = guard()
        write_json(BASELINE, {key: found[key] for key in ("made_on", "stages")})
        print(f"{BASELINE.name} now holds the figures of this machine")
        return 0
    baseline = json.loads(BASELINE.read_text(encoding="utf-8"))
    found = guard(options.slower, baseline)
    rows = compared(found, baseline)
    write_json(options.json, {**found, "lost": [f"{row.stage}, {row.figure}" for row in rows if row.lost]})
    print(text(rows))
    if found["made_on"]["versions"] != baseline["made_on"]["versions"]:
        print("the baseline is of other versions, so calls and peak are not compared; --update rewrites it")
    return int(any(row.lost for row in rows))


if __name__ == "__main__":
    sys.exit(main())
