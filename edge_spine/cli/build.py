"""The verb ``build``."""

from __future__ import annotations

import argparse
import json
import time

from edge_spine.cli.common import DONE, Verbs, tell


def add_to(verbs: Verbs) -> None:
    """Register the verb."""
    verb = verbs.add(
        "build",
        run,
        "build the TensorRT plan for this machine's GPU before the first scan",
        "edge-spine build",
        verbs.precision,
    )
    verb.add_argument("--force", action="store_true", help="rebuild even if a valid plan exists")


def run(arguments: argparse.Namespace) -> int:
    """Build the TensorRT plan."""
    from edge_spine.bundle import load_bundle
    from edge_spine.engines.forms import tensorrt_form
    from edge_spine.engines.tensorrt.engine import ready_plan

    form = tensorrt_form(arguments.precision)
    started = time.perf_counter()
    plan = ready_plan(load_bundle(arguments.model), form, fresh=arguments.force)
    took = time.perf_counter() - started
    report = {"form": form, "bytes": len(plan), "seconds": round(took, 1)}
    tell(json.dumps(report) if arguments.json else f"{form}: a plan of {len(plan) / 1e6:.1f} MB after {took:.1f} s")
    return DONE
