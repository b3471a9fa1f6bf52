"""The command ``edge-spine``: one line a scan on stdout, everything else on stderr, honest exit statuses.

0: all scans done. 1: a scan was refused or failed, or the model or engine is not usable. 2: wrong usage or
nothing to do. 130: interrupted.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_spine import __version__
from edge_spine.errors import EdgeSpineError, UsageError
from edge_spine.processing import Report, process

if TYPE_CHECKING:
    from edge_spine.estimator import SpineEstimator
    from edge_spine.inputs import ScanFile

DONE, PARTLY, USAGE, INTERRUPTED = 0, 1, 2, 130
_DEMO_SCAN = "synthetic_whole_body.dcm"
_log = logging.getLogger("edge_spine.cli")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process where they are not given.

    Returns
    -------
    int
        The exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        # A file name that the terminal's encoding lacks must not end the run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else USAGE
    try:
        with _logging(arguments.verbosity):
            status: int = arguments.verb(arguments)
            sys.stdout.flush()
            return status
    except UsageError as error:
        _complain(error)
        return USAGE
    except EdgeSpineError as error:
        _complain(error)
        return PARTLY
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read stdout has left; the interpreter must not try to flush to it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PARTLY


def _parser() -> argparse.ArgumentParser:
    from edge_spine.engines import ENGINES, PRECISIONS
    from edge_spine.outputs import DEFAULT_FORMATS, FORMATS

    talk = argparse.ArgumentParser(add_help=False)
    talk.add_argument("--json", action="store_true", help="print JSON instead of text")
    loud = talk.add_mutually_exclusive_group()
    loud.add_argument(
        "-v", "--verbose", dest="verbosity", action="store_const", const=1, default=0, help="more on stderr"
    )
    loud.add_argument("-q", "--quiet", dest="verbosity", action="store_const", const=-1, help="only errors")

    model = argparse.ArgumentParser(add_help=False, parents=[talk])
    model.add_argument(
        "--model",
        metavar="MODEL",
        help="spine (default), lite (smaller and faster, a little less exact), or the folder of a model bundle",
    )

    exact = argparse.ArgumentParser(add_help=False)
    exact.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="default: int8; fp16 and fp32 need a model with floats"
    )

    engine = argparse.ArgumentParser(add_help=False, parents=[exact])
    engine.add_argument("--engine", choices=ENGINES, default="auto", help="default: the best that runs here")
    engine.add_argument("--threads", metavar="N", type=_count, help="processor threads to use")

    writing = argparse.ArgumentParser(add_help=False)
    writing.add_argument("--out", metavar="DIR", type=Path, required=True, help="results go to DIR/<name>/")
    formats: dict[str, Any] = {
        "metavar": "LIST",
        "default": ",".join(DEFAULT_FORMATS),
        "help": f"what to write, of {', '.join(FORMATS)} (default: %(default)s)",
    }
    writing.add_argument("--write", **formats)

    parser = argparse.ArgumentParser(
        prog="edge-spine",
        description="The 3D spine from one whole-body DXA scan. Research use only. Not for diagnosis.",
        epilog="edge-spine VERB -h shows an example of each verb.",
    )
    parser.add_argument("--version", action="version", version=f"edge-spine {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, help_text: str, example: str, *parents: argparse.ArgumentParser) -> Any:
        return verbs.add_parser(
            name,
            help=help_text,
            description=help_text[0].upper() + help_text[1:] + ".",
            epilog=f"example:\n  {example}",
            parents=parents,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    run = verb(
        "run",
        "estimate the spine in scans",
        "edge-spine run scan.dcm --out results",
        writing,
        engine,
        model,
    )
    run.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="a DICOM, PNG or NPY file, a folder, or a UK Biobank field-20158 zip",
    )
    _add_spacing(run)
    run.set_defaults(verb=_run)

    demo = verb(
        "demo",
        "estimate the spine in the bundled synthetic scan",
        "edge-spine demo --out results",
        writing,
        engine,
        model,
    )
    demo.set_defaults(verb=_demo, pixel_spacing=None, imager_spacing=False)

    compare = verb(
        "compare",
        "show what has changed between two scans of one person, beside the measurement error",
        "edge-spine compare 2023.dcm 2024.dcm --out change",
        engine,
        model,
    )
    compare.add_argument("before", metavar="A", help="the earlier scan: DICOM, PNG or NPY")
    compare.add_argument("after", metavar="B", help="the later scan")
    compare.add_argument("--out", metavar="DIR", type=Path, help="write comparison.json and comparison.png there")
    _add_spacing(compare)
    compare.set_defaults(verb=_compare)

    node = verb(
        "node",
        "serve as a DICOM node: scans in by C-STORE, results out by C-STORE",
        "edge-spine node --config node.toml",
        talk,
    )
    node.add_argument("--config", metavar="FILE", type=Path, required=True, help="see edge_spine/node/README.md")
    node.set_defaults(verb=_node)

    watch = verb(
        "watch",
        "estimate the spine in scans as they appear in a folder",
        "edge-spine watch incoming results",
        engine,
        model,
    )
    watch.add_argument("folder", metavar="IN", type=Path, help="scans appear here; when done they move to IN/done")
    watch.add_argument("out", metavar="OUT", type=Path, help="results go to OUT/<name>-<hash>/")
    watch.add_argument("--write", **formats)
    _add_spacing(watch)
    watch.add_argument("--poll", metavar="SECONDS", type=_seconds, default=2.0, help="default: %(default)g")
    watch.add_argument("--once", action="store_true", help="end when nothing is left to do")
    watch.set_defaults(verb=_watch)

    batch = verb(
        "batch",
        "estimate the spine in thousands of scans, into Parquet files",
        "edge-spine batch scans.csv --out cohort",
        engine,
        model,
    )
    batch.add_argument(
        "manifest", metavar="MANIFEST", type=Path, help="a CSV file with a column path, one path a line, or a folder"
    )
    batch.add_argument("--out", metavar="DIR", type=Path, required=True, help="the same again goes on where it ended")
    batch.add_argument(
        "--write", **{**formats, "default": "", "help": f"files for each scan too, of {', '.join(FORMATS)}"}
    )
    batch.add_argument("--workers", metavar="N", type=_count, help="processes, or Ray actors (default: all processors)")
    batch.add_argument("--retry-failed", action="store_true", help="do again what failed; refused scans stay refused")
    cluster = batch.add_mutually_exclusive_group()
    cluster.add_argument("--ray", metavar="ADDRESS", help="work on this Ray cluster instead; needs '.[ray]'")
    cluster.add_argument("--dask", metavar="ADDRESS", help="work on this Dask cluster instead; needs '.[dask]'")
    _add_spacing(batch)
    batch.set_defaults(verb=_batch)

    check = verb(
        "verify",
        "compare the engine's output with the PyTorch reference",
        "edge-spine verify --engine onnx-cpu",
        engine,
        model,
    )
    check.set_defaults(verb=_verify)

    build = verb(
        "build",
        "build TensorRT's plan for this machine's GPU, so that the first scan need not wait for it",
        "edge-spine build",
        exact,
        model,
    )
    build.add_argument("--force", action="store_true", help="build even where a good plan is there")
    build.set_defaults(verb=_build)

    doctor = verb(
        "doctor",
        "tell what is installed, which engines run, and whether the model is whole",
        "edge-spine doctor --json",
        model,
    )
    doctor.set_defaults(verb=_doctor)
    return parser


def _add_spacing(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--pixel-spacing",
        metavar="ROW,COL",
        type=_spacing,
        help="mm between rows and between columns, for files that hold none",
    )
    verb.add_argument(
        "--imager-spacing",
        action="store_true",
        help="take ImagerPixelSpacing where there is no other: the detector's, which makes lengths too large",
    )


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} found, a whole number from 1 expected")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.01 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} found, seconds from 0.01 to 3600 expected")
    return seconds


def _spacing(text: str) -> tuple[float, float]:
    try:
        row, column = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} found, two numbers such as 2.4,2.4 expected") from None
    return row, column


def _run(arguments: argparse.Namespace) -> int:
    from edge_spine.inputs import find_scans

    return _run_scans(arguments, find_scans(arguments.inputs))


def _demo(arguments: argparse.Namespace) -> int:
    from importlib.resources import as_file, files

    from edge_spine.inputs import find_scans

    with as_file(files("edge_spine").joinpath("data").joinpath(_DEMO_SCAN)) as path:
        if not path.is_file():
            raise EdgeSpineError(f"{path.name}: the bundled scan is missing; install edge-spine again")
        return _run_scans(arguments, find_scans([path]))


def _run_scans(arguments: argparse.Namespace, scans: Sequence[ScanFile]) -> int:
    from edge_spine.outputs import parse_formats, write_outputs
    from edge_spine.reading.checks import check_given_spacing

    formats = parse_formats(arguments.write)
    check_given_spacing(arguments.pixel_spacing)
    if arguments.out.exists() and not arguments.out.is_dir():
        raise UsageError(f"--out {arguments.out.name}: this is a file, a folder is expected")
    from edge_spine.progress import Progress

    started = time.perf_counter()
    all_done = True
    with _estimator(arguments) as estimator:
        _log.info("model loaded in %.0f ms", (time.perf_counter() - started) * 1000)
        progress = Progress(len(scans), quiet=arguments.verbosity < 0)
        for scan_file in scans:
            progress.show(scan_file.source)
            folder = arguments.out / scan_file.name
            report = process(
                scan_file.source,
                estimator,
                partial(scan_file.read, arguments.pixel_spacing, arguments.imager_spacing),
                partial(write_outputs, folder=folder, formats=formats),
                folder,
            )
            all_done &= report.status == "done"
            progress.count(report)
            progress.clear()
            _print(arguments, report)
        progress.summarise()
    return DONE if all_done else PARTLY


def _compare(arguments: argparse.Namespace) -> int:
    from edge_spine.comparison import compare
    from edge_spine.reading.checks import check_given_spacing
    from edge_spine.scan import read_scan

    spacing = check_given_spacing(arguments.pixel_spacing)
    with _estimator(arguments) as estimator:
        before, after = (
            estimator(read_scan(path, pixel_spacing=spacing, imager_spacing=arguments.imager_spacing))
            for path in (arguments.before, arguments.after)
        )
    comparison = compare(before, after)
    if comparison.person == "different":
        _log.warning("the two scans name different persons: what follows is no change")
    table = json.dumps(comparison.to_dict())
    if arguments.out is not None:
        from edge_spine.outputs.atomic import write_files
        from edge_spine.outputs.comparison_png import render

        try:
            write_files(arguments.out, {"comparison.json": f"{table}\n".encode(), "comparison.png": render(comparison)})
        except OSError as error:
            raise EdgeSpineError(f"--out {arguments.out}: cannot be written ({error.strerror})") from None
    print(table if arguments.json else comparison.table())
    return DONE


def _node(arguments: argparse.Namespace) -> int:
    _need("node", "pynetdicom", "highdicom", "prometheus_client", "filelock")
    from edge_spine.node.config import load_config
    from edge_spine.node.service import Node
    from edge_spine.node.signals import until_signal

    config = load_config(arguments.config)
    with Node(config, partial(_print, arguments)) as node, until_signal(node.end) as was_interrupted:
        where = config.destination
        _log.warning(
            "%s listens on %s:%d; results go to %s at %s:%d",
            config.ae_title,
            config.host,
            config.port,
            where.ae_title,
            where.host,
            where.port,
        )
        node.run()
        return INTERRUPTED if was_interrupted() else DONE


def _watch(arguments: argparse.Namespace) -> int:
    _need("node", "filelock")
    from edge_spine.inputs import ScanFile
    from edge_spine.node.signals import until_signal
    from edge_spine.node.watch import WatchFolder
    from edge_spine.outputs import parse_formats
    from edge_spine.reading.checks import check_given_spacing

    formats = parse_formats(arguments.write)
    spacing = check_given_spacing(arguments.pixel_spacing)
    read = partial(ScanFile.read, pixel_spacing=spacing, imager_spacing=arguments.imager_spacing)
    all_done = True

    def show(report: Report) -> None:
        nonlocal all_done
        all_done &= report.status == "done"
        _print(arguments, report)

    with (
        _estimator(arguments) as estimator,
        WatchFolder(arguments.folder, arguments.out, estimator, formats, read, show) as watch,
        until_signal(watch.end) as was_interrupted,
    ):
        watch.run(poll_s=arguments.poll, once=arguments.once)
        if was_interrupted():
            return INTERRUPTED
        return DONE if all_done or not arguments.once else PARTLY


def _batch(arguments: argparse.Namespace) -> int:
    _need("batch", "pyarrow", "filelock")
    if arguments.ray:
        _need("ray", "ray")
    if arguments.dask:
        _need("dask", "distributed")
    from edge_spine.cohort.verb import run_batch

    outcome = run_batch(arguments)
    print(json.dumps(outcome.to_dict()) if arguments.json else outcome.line())
    return DONE if outcome.all_done else PARTLY


def _estimator(arguments: argparse.Namespace) -> SpineEstimator:
    from edge_spine.estimator import SpineEstimator

    if arguments.threads is not None:
        import cv2

        cv2.setNumThreads(arguments.threads)
    return SpineEstimator(arguments.engine, arguments.model, arguments.threads, precision=arguments.precision)


def _print(arguments: argparse.Namespace, report: Report) -> None:
    print(json.dumps(asdict(report)) if arguments.json else report.line(), flush=True)


def _need(extra: str, *modules: str) -> None:
    """Stop before anything else where a verb's packages are missing."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise UsageError(f"{', '.join(missing)} not installed; add it with: pip install 'edge-spine[{extra}]'")


def _verify(arguments: argparse.Namespace) -> int:
    from edge_spine.bundle import load_bundle
    from edge_spine.engines import open_engine
    from edge_spine.verification import verify

    bundle = load_bundle(arguments.model)
    with open_engine(bundle, arguments.engine, threads=arguments.threads, precision=arguments.precision) as engine:
        verification = verify(bundle, engine)
    print(json.dumps(verification.to_dict()) if arguments.json else verification.table())
    return DONE if verification.passed else PARTLY


def _build(arguments: argparse.Namespace) -> int:
    from edge_spine.bundle import load_bundle
    from edge_spine.engines.forms import tensorrt_form
    from edge_spine.engines.tensorrt import ready_plan

    form = tensorrt_form(arguments.precision)
    started = time.perf_counter()
    plan = ready_plan(load_bundle(arguments.model), form, fresh=arguments.force)
    seconds = time.perf_counter() - started
    report = {"form": form, "bytes": len(plan), "seconds": round(seconds, 1)}
    print(json.dumps(report) if arguments.json else f"{form}: a plan of {len(plan) / 1e6:.1f} MB after {seconds:.1f} s")
    return DONE


def _doctor(arguments: argparse.Namespace) -> int:
    from edge_spine.doctor import as_text, examine

    findings = examine(arguments.model)
    print(json.dumps(findings) if arguments.json else as_text(findings))
    if findings["bundle"]["problem"]:
        _complain(findings["bundle"]["problem"])
    return DONE if findings["usable"] else PARTLY


def _complain(what: object) -> None:
    print(f"edge-spine: {what}", file=sys.stderr)


@contextmanager
def _logging(verbosity: int) -> Iterator[None]:
    """Send our log to stderr, and keep the DICOM packages' away: they quote values, which may name a patient."""
    ours = logging.getLogger("edge_spine")
    theirs = [logging.getLogger(name) for name in ("pydicom", "pynetdicom", "highdicom")]
    handler, silence = logging.StreamHandler(sys.stderr), logging.NullHandler()
    handler.setFormatter(logging.Formatter("edge-spine: %(levelname)s: %(message)s"))
    before = ours.level, [logger.propagate for logger in theirs]
    ours.addHandler(handler)
    ours.setLevel({-1: logging.ERROR, 0: logging.WARNING, 1: logging.DEBUG}[verbosity])
    for logger in theirs:
        logger.addHandler(silence)
        logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ours.removeHandler(handler)
        ours.level = before[0]
        for logger, propagate in zip(theirs, before[1], strict=True):
            logger.removeHandler(silence)
            logger.propagate = propagate
