"""Exit statuses, parent parsers, argument types and output functions shared by the verbs."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_spine.engines import ENGINES, PRECISIONS
from edge_spine.errors import EdgeSpineError, UsageError
from edge_spine.outputs.registry import DEFAULT_FORMATS, FORMATS
from edge_spine.runner import Report
from edge_spine.streams import say

if TYPE_CHECKING:
    from edge_spine.estimator import SpineEstimator

log = logging.getLogger("edge_spine.cli")
DONE, PARTLY, USAGE, INTERRUPTED = 0, 1, 2, 130


class Verbs:
    """Sub-parsers of the command, and parent parsers with the options common to several verbs."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._verbs = parser.add_subparsers(metavar="VERB", required=True)
        self.output = argparse.ArgumentParser(add_help=False)
        self.output.add_argument("--json", action="store_true", help="print JSON on stdout instead of text")
        loud = self.output.add_mutually_exclusive_group()
        loud.add_argument(
            "-v", "--verbose", dest="verbosity", action="store_const", const=1, default=0, help="log more to stderr"
        )
        loud.add_argument("-q", "--quiet", dest="verbosity", action="store_const", const=-1, help="log errors only")
        self.model = argparse.ArgumentParser(add_help=False, parents=[self.output])
        self.model.add_argument(
            "--model",
            metavar="MODEL",
            type=given,
            help="spine (default), lite (smaller and faster, slightly less accurate), or the folder of a model bundle",
        )
        self.precision = argparse.ArgumentParser(add_help=False, parents=[self.model])
        self.precision.add_argument(
            "--precision",
            choices=PRECISIONS,
            default="auto",
            help="of the network (default: auto, int8 on processors); fp16 and fp32 are made from the int8 weights "
            "where the model has no float file",
        )
        of_gpu = partial(count, least=0)
        self.precision.add_argument(
            "--device", metavar="N", type=of_gpu, help="GPU to use, from 0 (default: the first)"
        )
        self.engine = argparse.ArgumentParser(add_help=False, parents=[self.precision])
        self.engine.add_argument(
            "--engine",
            choices=ENGINES,
            default="auto",
            help="default: auto, the first that runs here of tensorrt, onnx-cuda, openvino and onnx-cpu",
        )
        self.engine.add_argument(
            "--threads",
            metavar="N",
            type=count,
            help="processor threads (default: all; in batch 1 for each of several workers)",
        )
        self.writing = argparse.ArgumentParser(add_help=False)
        self.writing.add_argument("--out", metavar="DIR", type=place, required=True, help="results go to DIR/<name>/")
        self.writing.add_argument("--write", **formats_option())

    def add(
        self,
        name: str,
        run: Callable[[argparse.Namespace], int],
        help_text: str,
        example: str,
        *parents: argparse.ArgumentParser,
    ) -> argparse.ArgumentParser:
        """Register a verb and return its parser; without `parents` its options are those of `output`."""
        verb: argparse.ArgumentParser = self._verbs.add_parser(
            name,
            help=help_text,
            description=help_text[0].upper() + help_text[1:] + ".",
            epilog=f"example:\n  {example}",
            parents=parents or (self.output,),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.set_defaults(verb=run)
        return verb


def formats_option(**changes: str) -> dict[str, Any]:
    """Return the arguments of an option that takes a list of output formats."""
    return {
        "metavar": "LIST",
        "default": ",".join(DEFAULT_FORMATS),
        "help": f"what to write, of {', '.join(FORMATS)} (default: %(default)s)",
        **changes,
    }


def add_spacing(verb: argparse.ArgumentParser) -> None:
    """Add ``--pixel-spacing`` and ``--imager-spacing``."""
    verb.add_argument(
        "--pixel-spacing",
        metavar="ROW,COL",
        type=_spacing,
        help="mm between rows and between columns of the stored image, before what a file states; needed for PNG, NPY",
    )
    verb.add_argument(
        "--imager-spacing",
        action="store_true",
        help="use ImagerPixelSpacing, that of the detector, where there is no other; lengths come out too large",
    )


def given(text: str) -> str:
    """Parse a name that is not empty: a variable of a script that is not set would mean the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty name found, a file or a folder expected")
    return text


def place(text: str) -> Path:
    """Parse the path of a file or a folder."""
    return Path(given(text))


def count(text: str, least: int = 1) -> int:
    """Parse a whole number that is at least `least`."""
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} found, a whole number from {least} expected")
    return int(text)


def seconds(text: str) -> float:
    """Parse seconds from 0.01 to 3600."""
    try:
        parsed = float(text)
    except ValueError:
        parsed = 0.0
    if not 0.01 <= parsed <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} found, seconds from 0.01 to 3600 expected")
    return parsed


def _spacing(text: str) -> tuple[float, float]:
    from edge_spine.reading.checks import check_given_spacing

    try:
        row, column = (float(part) for part in text.split(","))
        check_given_spacing((row, column))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} found, two numbers such as 2.4,2.4 expected") from None
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return row, column


def load_estimator(arguments: argparse.Namespace) -> SpineEstimator:
    """Load model and engine as given on the command line."""
    from edge_spine.estimator import with_threads

    return with_threads(arguments.engine, arguments.model, arguments.threads, arguments.precision)


def print_report(arguments: argparse.Namespace, report: Report) -> None:
    """Print the report of one scan; if stdout cannot be written, log that once and continue."""
    problem = say(json.dumps(asdict(report)) if arguments.json else report.line())
    if problem and not getattr(arguments, "silent", False):
        arguments.silent = True
        log.warning("stdout cannot be written (%s): reports are lost there, and the work goes on", problem)


def tell(arguments: argparse.Namespace, report: Mapping[str, Any], text: str) -> None:
    """Print a verb's report, as JSON or text; raise EdgeSpineError where stdout cannot be written."""
    if problem := say(json.dumps(report) if arguments.json else text):
        raise EdgeSpineError(f"stdout cannot be written ({problem})")


def complain(what: object) -> None:
    """Print one line on stderr."""
    say(f"edge-spine: {what}", sys.stderr)


def need(extra: str, *modules: str) -> None:
    """Raise UsageError if packages of a verb are missing."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise UsageError(f"missing packages: {', '.join(missing)}; pip install '.[{extra}]'")
