"""The verb ``batch``: from its arguments to a finished run."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from edge_spine.bundle import load_bundle
from edge_spine.cli.common import DONE, PARTLY, Verbs, add_spacing, count, formats_option, need
from edge_spine.cli.progress import Progress
from edge_spine.outputs.registry import FORMATS, parse_formats
from edge_spine.reading.checks import check_given_spacing
from edge_spine.runner import Report

if TYPE_CHECKING:
    from edge_spine.cohort.batch import SpineBatch
    from edge_spine.cohort.rows import Row
    from edge_spine.cohort.run import Outcome
    from edge_spine.cohort.workers import Workers


def add_to(verbs: Verbs) -> None:
    """Add the verb to the command."""
    verb = verbs.add(
        "batch",
        run,
        "estimate the spine in thousands of scans, into Parquet files",
        "edge-spine batch scans.csv --out cohort",
        verbs.engine,
        verbs.model,
    )
    verb.add_argument(
        "manifest", metavar="MANIFEST", type=Path, help="a CSV file with a column path, one path a line, or a folder"
    )
    verb.add_argument("--out", metavar="DIR", type=Path, required=True, help="the same again goes on where it ended")
    verb.add_argument("--write", **formats_option(default="", help=f"files for each scan too, of {', '.join(FORMATS)}"))
    verb.add_argument("--workers", metavar="N", type=count, help="processes, or Ray actors (default: all processors)")
    verb.add_argument("--retry-failed", action="store_true", help="do again what failed; refused scans stay refused")
    cluster = verb.add_mutually_exclusive_group()
    cluster.add_argument("--ray", metavar="ADDRESS", help="work on this Ray cluster instead; needs '.[ray]'")
    cluster.add_argument("--dask", metavar="ADDRESS", help="work on this Dask cluster instead; needs '.[dask]'")
    add_spacing(verb)


def run(arguments: argparse.Namespace) -> int:
    """Estimate the spine in the scans of a manifest."""
    need("batch", "pyarrow", "filelock")
    if arguments.ray:
        need("ray", "ray")
    if arguments.dask:
        need("dask", "distributed")
    outcome = _run_batch(arguments)
    print(json.dumps(outcome.to_dict()) if arguments.json else outcome.line())
    return DONE if outcome.all_done else PARTLY


def _run_batch(arguments: argparse.Namespace) -> Outcome:
    """Do what `edge-spine batch` was asked for.

    Returns
    -------
    Outcome
        Of all scans of the manifest, those of earlier runs too.

    Raises
    ------
    UsageError
        The manifest or the folder cannot be used, or there is no such cluster.
    EdgeSpineError
        No worker can work.
    """
    from edge_spine.cohort.batch import SpineBatch
    from edge_spine.cohort.manifest import read_manifest
    from edge_spine.cohort.run import Outcome, left_to_do, work_through
    from edge_spine.cohort.shards import Shards

    formats = parse_formats(arguments.write) if arguments.write else ()
    scans = read_manifest(arguments.manifest, check_given_spacing(arguments.pixel_spacing))
    bundle = load_bundle(arguments.model)
    note = {
        "schema": "edge-spine/cohort/1",
        "model": f"{bundle.name} {bundle.version}",
        "model_sha256": bundle.sha256,
        "precision": arguments.precision,
        "imager_spacing": arguments.imager_spacing,
    }
    with Shards(arguments.out, note) as shards:
        left, earlier = left_to_do(scans, shards, retry_failed=arguments.retry_failed)
        progress = Progress(len(left), quiet=arguments.verbosity < 0)
        ends: Counter[tuple[str, str]] = Counter()

        def seen(row: Row) -> None:
            ends[row["status"], row["code"] or ""] += 1
            progress.count(Report(row["path"], row["status"], row["code"]))
            progress.show(row["id"])

        if left:
            batch = SpineBatch(
                arguments.model,
                arguments.engine,
                _threads(arguments),
                arguments.precision,
                model_sha256=bundle.sha256,
                imager_spacing=arguments.imager_spacing,
                formats=formats,
                folder=str((arguments.out / "scans").absolute()) if formats else None,
            )
            with _workers(arguments, batch) as workers:
                work_through(left, workers, shards, seen)
            progress.clear()
            progress.summarise()
    return Outcome(earlier.ends + ends, earlier.earlier)


def _threads(arguments: argparse.Namespace) -> int | None:
    """One thread for each of several workers: together they use all processors, and nobody waits for anybody."""
    from edge_spine.cohort.pool import usable_cores

    if arguments.threads is not None or arguments.ray or arguments.dask:
        return arguments.threads or 1
    return 1 if (arguments.workers or usable_cores()) > 1 else None


def _workers(arguments: argparse.Namespace, batch: SpineBatch) -> Workers:
    if arguments.ray:
        from edge_spine.cohort.on_ray import RayWorkers

        return RayWorkers(batch, arguments.ray, arguments.workers)
    if arguments.dask:
        from edge_spine.cohort.on_dask import DaskWorkers

        return DaskWorkers(batch, arguments.dask)
    from edge_spine.cohort.pool import ProcessPool

    return ProcessPool(batch, arguments.workers)
