"""The verb ``compare``."""

from __future__ import annotations

import argparse
import json

from edge_spine.cli.common import DONE, Verbs, add_spacing, given, load_estimator, log, place, tell
from edge_spine.errors import EdgeSpineError, reason_of


def add_to(verbs: Verbs) -> None:
    """Register the verb."""
    verb = verbs.add(
        "compare",
        run,
        "compare two scans of one person, with the measurement error of each change",
        "edge-spine compare 2023.dcm 2024.dcm --out change",
        verbs.engine,
    )
    verb.add_argument("before", metavar="A", type=given, help="the earlier scan: DICOM, PNG or NPY")
    verb.add_argument("after", metavar="B", type=given, help="the later scan, of the same person")
    verb.add_argument("--out", metavar="DIR", type=place, help="write comparison.json and comparison.png there")
    add_spacing(verb)
    verb.add_argument(
        "--different-persons", action="store_true", help="compare although the files name different patients"
    )


def run(arguments: argparse.Namespace) -> int:
    """Compare two scans."""
    from edge_spine.comparison import compare, same_person
    from edge_spine.reading import read_scan

    before, after = (
        read_scan(path, pixel_spacing=arguments.pixel_spacing, imager_spacing=arguments.imager_spacing)
        for path in (arguments.before, arguments.after)
    )
    if same_person(before.header, after.header) == "different":
        if not arguments.different_persons:
            raise EdgeSpineError(
                "the two files name different patients; give two scans of one person, or --different-persons"
            )
        log.warning("the two scans are of different patients; the differences are not changes over time")
    same_uid = before.sop_instance_uid is not None and before.sop_instance_uid == after.sop_instance_uid
    if same_uid or before.sha256 == after.sha256:
        log.warning("both files hold the same scan; to see a change give two scans of one person")
    with load_estimator(arguments) as estimator:
        comparison = compare(estimator(before), estimator(after))
    if comparison.interval_days is not None and comparison.interval_days < 0:
        log.warning(
            "the second scan is %d days older than the first: each change is turned round; give the earlier scan first",
            -comparison.interval_days,
        )
    report = comparison.to_dict()
    if arguments.out is not None:
        from edge_spine.files import write_files
        from edge_spine.outputs.comparison_png import render

        try:
            content = f"{json.dumps(report)}\n".encode()
            write_files(arguments.out, {"comparison.json": content, "comparison.png": render(comparison)})
        except OSError as error:
            raise EdgeSpineError(f"--out {arguments.out}: cannot be written ({reason_of(error)})") from None
    tell(arguments, report, comparison.table())
    return DONE
