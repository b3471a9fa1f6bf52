"""The verb ``build``."""

from __future__ import annotations

import argparse
import time

from edge_spine.cli.common import DONE, Verbs, count, tell


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
    verb.add_argument(
        "--blocks",
        metavar="LIST",
        type=_sizes,
        help="also build and time plans that compute several scans at once, such as 4,8,16, and keep the fastest for"
        " `batch` if it gains 10 %%",
    )


def _sizes(text: str) -> list[int]:
    sizes = [count(part) for part in text.split(",")]
    if 1 in sizes:
        raise argparse.ArgumentTypeError("blocks have 2 scans or more")
    return sizes


def run(arguments: argparse.Namespace) -> int:
    """Build the TensorRT plan."""
    from edge_spine.bundle import load_bundle
    from edge_spine.engines.base import EngineName
    from edge_spine.engines.forms import tensorrt_form
    from edge_spine.engines.select import in_one_line
    from edge_spine.engines.tensorrt.engine import fastest_block, ready_plan
    from edge_spine.engines.tensorrt.verdict import in_words

    form = tensorrt_form(arguments.precision)
    bundle = load_bundle(arguments.model)
    started = time.perf_counter()
    with in_one_line(EngineName.TENSORRT):
        blocks = fastest_block(bundle, form, arguments.blocks, fresh=arguments.force) if arguments.blocks else None
        plan, verdict = ready_plan(bundle, form, fresh=arguments.force and blocks is None)
    took = time.perf_counter() - started
    report = {"form": form, "bytes": len(plan), "seconds": round(took, 1), "verdict": verdict, "blocks": blocks}
    text = f"{form}: a plan of {len(plan) / 1e6:.1f} MB after {took:.1f} s, which {in_words(verdict)}"
    if blocks is not None:
        text += f"\nkept for cohorts: blocks of {blocks['block']}; single scans: {blocks['single']} a second"
        for size, found in blocks["sizes"].items():
            rates = "{images_per_second} a second, {one_by_one} one by one" if len(found) > 1 else "{problem}"
            text += f"\nblocks of {size}: {rates.format(**found)}"
    tell(arguments, report, text)
    return DONE
