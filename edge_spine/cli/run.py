"""The verb ``run``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from types import ModuleType

from edge_spine.cli.common import DONE, PARTLY, Verbs, add_spacing, given, load_estimator, log, print_report
from edge_spine.errors import UsageError
from edge_spine.outputs.folders import write_in_own_folder
from edge_spine.outputs.registry import parse_formats
from edge_spine.reading.files import ScanFile, find_scans
from edge_spine.reading.left_out import LeftOut
from edge_spine.runner import process

# pydicom's decoders, which run in a process of their own here, and what its downloader of examples needs
_BESIDE_PYDICOM = ("PIL", "gdcm", "jpeg_ls", "libjpeg", "openjpeg", "pylibjpeg", "requests", "rle", "tqdm")


def add_to(verbs: Verbs) -> None:
    """Register the verb."""
    verb = verbs.add(
        "run",
        run,
        "estimate the spine in scans",
        "edge-spine run scan.dcm --out results",
        verbs.writing,
        verbs.engine,
    )
    verb.add_argument(
        "inputs",
        metavar="INPUT",
        type=given,
        nargs="+",
        help="a DICOM, PNG or NPY file, a folder, or a UK Biobank field-20158 zip",
    )
    add_spacing(verb)
    verb.add_argument("--show-date", action="store_true", help="show the scan's date in png, html and pdf")


def run(arguments: argparse.Namespace) -> int:
    """Estimate the spine in the given scans."""
    left_out = LeftOut()
    scans = find_scans(arguments.inputs, left_out)
    if left_out:
        log.warning("left out: %s", left_out)
    return run_scans(arguments, scans, show_date=arguments.show_date)


def run_scans(arguments: argparse.Namespace, scans: Sequence[ScanFile], *, show_date: bool = False) -> int:
    """Estimate the spine in scans and print a line for each."""
    from edge_spine.cli.progress import Progress

    formats = parse_formats(arguments.write)
    if arguments.out.exists() and not arguments.out.is_dir():
        raise UsageError(f"--out {arguments.out.name}: this is a file, a folder is expected")
    started = time.perf_counter()
    # scans without a given spacing are DICOM files
    if arguments.own_process and arguments.pixel_spacing is None:
        import_pydicom_alone()
    all_done = True
    with load_estimator(arguments) as estimator:
        log.info("model loaded in %.0f ms", (time.perf_counter() - started) * 1000)
        progress = Progress(quiet=arguments.verbosity < 0)
        progress.begin(len(scans))
        for scan_file in scans:
            progress.show(scan_file.source)
            report = process(
                scan_file.source,
                estimator,
                partial(scan_file.read, arguments.pixel_spacing, arguments.imager_spacing),
                partial(
                    write_in_own_folder,
                    parent=arguments.out,
                    name=scan_file.name,
                    formats=formats,
                    show_date=show_date,
                ),
                path=scan_file.whole_path,
            )
            all_done &= report.status == "done"
            progress.count(report)
            progress.clear()
            print_report(arguments, report)
        progress.summarise()
    return DONE if all_done else PARTLY


def import_pydicom_alone() -> None:
    """Import pydicom without the optional packages that it imports where they are installed, which take longer."""
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    hidden = [name for name in _BESIDE_PYDICOM if name not in modules]
    modules.update(dict.fromkeys(hidden))
    try:
        import pydicom  # noqa: F401
    finally:
        for name in hidden:
            del modules[name]
