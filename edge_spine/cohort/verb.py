"""The verb ``batch``: from its arguments to a finished run."""

from __future__ import annotations

import argparse
from collections import Counter

from edge_spine.bundle import load_bundle
from edge_spine.cohort.batch import SpineBatch
from edge_spine.cohort.manifest import read_manifest
from edge_spine.cohort.pool import ProcessPool, usable_cores
from edge_spine.cohort.rows import Row
from edge_spine.cohort.run import Outcome, left_to_do, work_through
from edge_spine.cohort.shards import Shards
from edge_spine.cohort.workers import Workers
from edge_spine.outputs import parse_formats
from edge_spine.processing import Report
from edge_spine.progress import Progress
from edge_spine.reading.checks import check_given_spacing


def run_batch(arguments: argparse.Namespace) -> Outcome:
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
    return ProcessPool(batch, arguments.workers)
