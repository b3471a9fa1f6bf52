"""The verb ``watch``."""

from __future__ import annotations

import argparse
from contextlib import closing
from functools import partial

from edge_spine.cli.common import (
    DONE,
    INTERRUPTED,
    PARTLY,
    Verbs,
    add_spacing,
    formats_option,
    load_estimator,
    need,
    place,
    print_report,
    seconds,
)
from edge_spine.runner import Report


def add_to(verbs: Verbs) -> None:
    """Register the verb."""
    verb = verbs.add(
        "watch",
        run,
        "estimate the spine in scans as they appear in a folder",
        "edge-spine watch incoming results",
        verbs.engine,
    )
    verb.add_argument("folder", metavar="IN", type=place, help="folder to watch; processed scans are moved to IN/done")
    verb.add_argument("out", metavar="OUT", type=place, help="results are written to OUT/<name>-<hash>/")
    verb.add_argument("--write", **formats_option())
    add_spacing(verb)
    verb.add_argument(
        "--poll",
        metavar="SECONDS",
        type=seconds,
        default=2.0,
        help="time between two looks at IN (default: %(default)g)",
    )
    verb.add_argument("--once", action="store_true", help="exit when no scan is left")


def run(arguments: argparse.Namespace) -> int:
    """Watch a folder until a signal arrives or, with ``--once``, until no scan is left."""
    need("node", "filelock")
    from edge_spine.node.signals import until_signal
    from edge_spine.node.watch import WatchFolder
    from edge_spine.outputs.registry import parse_formats
    from edge_spine.reading.files import ScanFile

    formats = parse_formats(arguments.write)
    read = partial(ScanFile.read, pixel_spacing=arguments.pixel_spacing, imager_spacing=arguments.imager_spacing)
    options = (arguments.pixel_spacing, arguments.imager_spacing)
    all_done = True

    def show(report: Report) -> None:
        nonlocal all_done
        all_done &= report.status == "done"
        print_report(arguments, report)

    with (
        load_estimator(arguments) as estimator,
        closing(WatchFolder(arguments.folder, arguments.out, estimator, formats, read, show, options)) as watch,
        until_signal(watch.end) as was_interrupted,
    ):
        watch.run(poll_s=arguments.poll, once=arguments.once)
        if was_interrupted():
            return INTERRUPTED
        return DONE if all_done or not arguments.once else PARTLY
