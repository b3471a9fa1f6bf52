"""One scan from its file to its outputs, whatever happens on the way: the step that every verb repeats."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edge_spine.errors import EdgeSpineError, Refusal

if TYPE_CHECKING:
    from edge_spine.estimator import SpineEstimator
    from edge_spine.result import SpineResult
    from edge_spine.scan import Scan

_log = logging.getLogger(__name__)


@dataclass
class Report:
    """What became of one scan: the fields of a line of ``--json``."""

    source: str
    status: str = "failed"
    code: str | None = None
    message: str = ""
    outputs: list[str] = field(default_factory=list)
    timing_ms: dict[str, float] = field(default_factory=dict)

    def line(self) -> str:
        """Return it as a line for people; `message` names the file already."""
        code = f" ({self.code})" if self.code else ""
        return f"{self.status}{code}: {self.message}"


def process(
    source: str,
    estimator: SpineEstimator,
    read: Callable[[], Scan],
    write: Callable[[SpineResult], tuple[SpineResult, Sequence[Path]]],
    place: object = "",
    *,
    raise_storage: bool = False,
) -> Report:
    """Take one scan from its file to its outputs; only an interruption gets out, and an OSError where that is wanted.

    Parameters
    ----------
    source : str
        What messages call it.
    estimator : SpineEstimator
        Loaded.
    read, write : callable
        The first and the last step; `write` returns the result with its times, and the files.
    place : object
        Where the outputs are, for the message; nothing where that says nothing.
    raise_storage : bool
        Let an OSError of `write` out, for callers that can wait until there is room again.

    Returns
    -------
    Report
        With status "done", "refused" (and a code) or "failed". Its message never quotes an exception's own words,
        which may hold what stands in the file.
    """
    from edge_spine.result import STAGES

    report = Report(source, timing_ms=dict.fromkeys(STAGES, 0.0))
    started = time.perf_counter()
    try:
        scan = read()
        report.timing_ms["read"] = (time.perf_counter() - started) * 1000
        result = estimator(scan).with_timing(read=report.timing_ms["read"])
        result, paths = write(result)
    except Refusal as refusal:
        report.status, report.code = "refused", refusal.code
        report.message = _named(source, refusal.message)
    except EdgeSpineError as error:
        report.message = _named(source, str(error))
    except Exception as error:
        if raise_storage and isinstance(error, OSError):
            raise
        what = type(error).__name__ + (f": {error.strerror}" if isinstance(error, OSError) else "")
        report.message = f"{source}: {what}; -v shows where"
        _log.info("%s in\n%s", what, "".join(traceback.format_tb(error.__traceback__)).rstrip())
    else:
        report.status, report.message = "done", f"{source}: {_summary(result)}" + (f"; in {place}" if place else "")
        report.outputs = [str(path) for path in paths]
        report.timing_ms = dict(result.timing_ms)
    if report.status != "done":
        report.timing_ms["total"] = (time.perf_counter() - started) * 1000
    report.timing_ms = {stage: round(value, 3) for stage, value in report.timing_ms.items()}
    return report


def _named(source: str, message: str) -> str:
    return message if message.startswith(source) else f"{source}: {message}"


def _summary(result: SpineResult) -> str:
    curves = result.measurements.scoliosis_curves
    if curves:
        largest = curves[0]
        text = f"largest curve {largest.cobb_deg:.1f} degrees, convex {largest.side}, apex {largest.apex_level}"
    else:
        text = "no lateral curve"
    if not result.quality.accepted:
        text += ", quality not accepted"
    return text + (f" ({', '.join(result.quality.flags)})" if result.quality.flags else "")
