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
        "build the TensorRT plan for this machine's GPU before the first scan, and check it",
        "edge-spine build",
        verbs.precision,
    )
    verb.add_argument("--force", action="store_true", help="rebuild even if a valid plan exists")


def run(arguments: argparse.Namespace) -> int:
    """Build the TensorRT plan."""
    from edge_spine.bundle import load_bundle
    from edge_spine.engines.forms import tensorrt_form
    from edge_spine.engines.tensorrt.engine import judged_plan
    from edge_spine.engines.tensorrt.verdict import in_words

    form = tensorrt_form(arguments.precision)
    started = time.perf_counter()
    plan, verdict = judged_plan(load_bundle(arguments.model), form, fresh=arguments.force)
    took = time.perf_counter() - started
    report = {"form": form, "bytes": len(plan), "seconds": round(took, 1), "verdict": verdict}
    text = f"{form}: a plan of {len(plan) / 1e6:.1f} MB after {took:.1f} s, which {in_words(verdict)}"
    tell(json.dumps(report) if arguments.json else text)
    return DONE
