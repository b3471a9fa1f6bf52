"""Run the command ``edge-spine``: one line per scan on stdout, messages on stderr.

Exit status 0: all scans done. 1: a scan was refused or failed, or the model or engine is not usable. 2: wrong usage or
nothing to do. 130: interrupted. 143: ended by SIGTERM. Lines on stdout that cannot be written do not change it, except
for verbs that do nothing else.
"""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from edge_spine.cli import batch, benchmark, build, compare, demo, doctor, export_graph, model, node, run, verify, watch
from edge_spine.cli.common import INTERRUPTED, PARTLY, USAGE, Verbs, complain
from edge_spine.cli.signals import TERMINATED, Terminated, orderly_signals
from edge_spine.engines.driver import choose_gpu
from edge_spine.errors import EdgeSpineError, Refusal, UsageError, reason_of
from edge_spine.streams import close_streams, open_streams, say
from edge_spine.version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with arguments, by default those of `sys.argv`, and return the exit status."""
    open_streams()
    try:
        return _run(argv)
    finally:
        close_streams()


def _run(argv: Sequence[str] | None) -> int:
    try:
        # what is imported for the command alone does not matter to others
        arguments = _parser().parse_args(argv, argparse.Namespace(own_process=argv is None))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else USAGE
    except OSError:  # help that cannot be printed
        return PARTLY
    try:
        if getattr(arguments, "device", None) is not None:
            choose_gpu(arguments.device)
        with orderly_signals(), _logging(arguments.verbosity):
            status: int = arguments.verb(arguments)
            return status
    except UsageError as error:
        complain(error)
        return USAGE
    except EdgeSpineError as error:
        complain(f"refused ({error.code}): {error}" if isinstance(error, Refusal) else error)
        return PARTLY
    except OSError as error:
        # a path that the system does not let a verb look at, such as one below a folder without rights
        why = reason_of(error)
        complain(f"{error.filename or 'a file'}: cannot be used ({why}); -v shows where")
        if arguments.verbosity > 0:
            say(traceback.format_exc().rstrip(), sys.stderr)
        return PARTLY
    except Terminated:
        complain("terminated")
        return TERMINATED
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-spine",
        description="Estimate the 3D spine from one whole-body DXA scan. Research use only. Not for diagnosis.",
        epilog="edge-spine VERB -h shows an example of each verb.",
    )
    parser.add_argument("--version", action="version", version=f"edge-spine {__version__}")
    verbs = Verbs(parser)
    for verb in (run, demo, compare, node, watch, batch, verify, benchmark, build, export_graph, model, doctor):
        verb.add_to(verbs)
    return parser


class _ToStderr(logging.Handler):
    """Log to stderr, and drop what cannot be written there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        say(self.format(record), sys.stderr)


@contextmanager
def _logging(verbosity: int) -> Iterator[None]:
    """Log to stderr; silence the DICOM packages, whose messages may quote patient data."""
    ours = logging.getLogger("edge_spine")
    theirs = [logging.getLogger(name) for name in ("pydicom", "pynetdicom", "highdicom")]
    handler, silence = _ToStderr(), logging.NullHandler()
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
