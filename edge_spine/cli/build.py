"""The verb ``build``."""

from __future__ import annotations

import argparse
import json
import time

from edge_spine.cli.common import DONE, Verbs


def add_to(verbs: Verbs) -> None:
    """Add the verb to the command."""
    verb = verbs.add(
        "build",
        run,
        "build TensorRT's plan for this machine's GPU, so that the first scan need not wait for it",
        "edge-spine build",
        verbs.exact,
        verbs.model,
    )
    verb.add_argument("--force", action="store_true", help="build even where a good plan is there")


def run(arguments: argparse.Namespace) -> int:
    """Build TensorRT's plan."""
    from edge_spine.bundle import load_bundle
    from edge_spine.engines.forms import tensorrt_form
    from edge_spine.engines.tensorrt.engine import ready_plan

    form = tensorrt_form(arguments.precision)
    started = time.perf_counter()
    plan = ready_plan(load_bundle(arguments.model), form, fresh=arguments.force)
    took = time.perf_counter() - started
    report = {"form": form, "bytes": len(plan), "seconds": round(took, 1)}
    print(json.dumps(report) if arguments.json else f"{form}: a plan of {len(plan) / 1e6:.1f} MB after {took:.1f} s")
    return DONE
