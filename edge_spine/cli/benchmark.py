"""The verb ``benchmark``: engines and models timed on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from edge_spine.bundle.load import MODELS
from edge_spine.cli.common import DONE, PARTLY, Verbs, complain, count, tell
from edge_spine.cli.probe import Crashed, probe
from edge_spine.engines import ENGINES

_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "pycuda")
_HEAD = ("model, engine", "p50 ms", "p90 ms", "scans a second", "peak MB", "mean difference mm", "references")


def add_to(verbs: Verbs) -> None:
    """Register the verb."""
    verb = verbs.add(
        "benchmark",
        run,
        "time every engine that runs here on the bundled scan, and compare it with the references",
        "edge-spine benchmark --runs 200",
        verbs.output,
    )
    verb.add_argument(
        "--model", metavar="MODEL", action="append", help="as in `run`; may be repeated (default: spine and lite)"
    )
    verb.add_argument("--runs", metavar="N", type=count, default=50, help="scans to time (default: %(default)s)")
    verb.add_argument("--threads", metavar="N", type=count, help="processor threads (default: all processors)")


def run(arguments: argparse.Namespace) -> int:
    """Print the table; 1 where no engine runs, or one misses a tolerance of the references."""
    from edge_spine.bundle import load_bundle
    from edge_spine.cli.measuring import machine

    rows = []
    models = arguments.model or MODELS
    for model in models:
        load_bundle(model)  # a damaged bundle is reported once, not by each engine
    for model in models:
        for engine in ENGINES:
            if engine != "auto":
                found = _timed(engine, model, arguments)
                rows.append({"model": model, "engine": engine, **found})
                if "problem" in found and arguments.verbosity >= 0:
                    complain(f"not timed: {model}, {found['problem']}")
    timed = [row for row in rows if "problem" not in row]
    report = {"machine": machine(*_PACKAGES), "runs": arguments.runs, "threads": arguments.threads, "rows": rows}
    tell(arguments, report, _table(report, timed))
    return DONE if timed and all(row["kept"] for row in timed) else PARTLY


def _timed(engine: str, model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Time an engine in a process of its own, whose peak memory is that of this engine alone."""
    try:
        found: dict[str, Any] = probe("time_scans", engine, model, arguments.threads, arguments.runs)
    except Crashed as how:
        return {"problem": f"{engine}: {how}"}
    return found


def _table(report: dict[str, Any], timed: list[dict[str, Any]]) -> str:
    from edge_spine.cli.measuring import described, laid_out

    lines = [
        [
            f"{row['model']}, {row['engine']} {row['precision']}",
            *(row["ms"][key] for key in ("p50", "p90")),
            *(row[key] for key in ("scans_a_second", "peak_mb", "mean_mm")),
            "passed" if row["kept"] else "MISSED",
        ]
        for row in timed
    ]
    what = f"one scan, read and estimated, {report['runs']} times one after another; difference from PyTorch float32"
    return f"{described(report['machine'])}\n{what}\n\n{laid_out(_HEAD, lines)}"
