"""The verb ``batch``."""

from __future__ import annotations

import argparse
import json

from edge_spine.cli.common import DONE, PARTLY, Verbs, add_spacing, complain, count, formats_option, need, place
from edge_spine.cli.progress import Progress
from edge_spine.outputs.registry import FORMATS, parse_formats
from edge_spine.runner import Report
from edge_spine.streams import say


def add_to(verbs: Verbs) -> None:
    """Register the verb."""
    verb = verbs.add(
        "batch",
        run,
        "estimate the spine in thousands of scans, into Parquet files",
        "edge-spine batch scans.csv --out cohort",
        verbs.engine,
    )
    verb.add_argument(
        "manifest", metavar="MANIFEST", type=place, help="a CSV file with a column path, one path a line, or a folder"
    )
    verb.add_argument(
        "--out",
        metavar="DIR",
        type=place,
        required=True,
        help="folder for the results; an unfinished run there is continued",
    )
    verb.add_argument("--write", **formats_option(default="", help=f"also files for each scan: {', '.join(FORMATS)}"))
    verb.add_argument("--workers", metavar="N", type=count, help="processes, or Ray actors (default: all processors)")
    verb.add_argument("--retry-failed", action="store_true", help="repeat failed scans; refused scans are not repeated")
    verb.add_argument("--refusals-ok", action="store_true", help="exit with 0 where scans were refused but none failed")
    verb.add_argument("--bids", action="store_true", help="write bids/ too: participants.tsv, dataset_description.json")
    cluster = verb.add_mutually_exclusive_group()
    cluster.add_argument("--ray", metavar="ADDRESS", help="use this Ray cluster; needs pip install '.[ray]'")
    cluster.add_argument("--dask", metavar="ADDRESS", help="use this Dask cluster; needs pip install '.[dask]'")
    add_spacing(verb)


def run(arguments: argparse.Namespace) -> int:
    """Estimate the spine in the scans of a manifest."""
    need("batch", "pyarrow", "filelock")
    if arguments.ray:
        need("ray", "ray")
    if arguments.dask:
        need("dask", "distributed")
    from edge_spine.cohort import SpineBatch
    from edge_spine.cohort.rows import Row
    from edge_spine.cohort.run import run_cohort

    formats = parse_formats(arguments.write) if arguments.write else ()
    batch = SpineBatch(
        arguments.model,
        arguments.engine,
        arguments.threads,
        arguments.precision,
        imager_spacing=arguments.imager_spacing,
        formats=formats,
        folder=str((arguments.out / "scans").absolute()) if formats else None,
    )
    progress = Progress(quiet=arguments.verbosity < 0)

    def seen(row: Row) -> None:
        progress.count(Report(row["path"], row["status"], row["code"]))
        progress.show(row["id"])

    outcome = run_cohort(
        arguments.manifest,
        arguments.out,
        batch,
        progress.begin,
        seen,
        pixel_spacing_mm=arguments.pixel_spacing,
        workers=arguments.workers,
        ray=arguments.ray,
        dask=arguments.dask,
        retry_failed=arguments.retry_failed,
        bids=arguments.bids,
    )
    progress.clear()
    progress.summarise()
    say(json.dumps(outcome.to_dict()) if arguments.json else outcome.line())
    if outcome.problem is not None:
        complain(outcome.problem)
    return DONE if outcome.good(refusals_ok=arguments.refusals_ok) else PARTLY
