"""Process one scan from its file to its outputs, and report what happened."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edge_spine.errors import EdgeSpineError, EngineLost, InputUnavailable, Refusal, reason_of
from edge_spine.reading.checks import printable, storable

if TYPE_CHECKING:
    from edge_spine.estimator import SpineEstimator
    from edge_spine.result import SpineResult
    from edge_spine.scan import Scan

_log = logging.getLogger(__name__)


@dataclass
class Report:
    """The outcome of one scan: the fields of a line of ``--json``, with bytes of names that are not UTF-8 as escapes.

    `status` is "done", "refused" (with the `code` of the refusal) or "failed"; `message` is a sentence that begins with
    the name of the scan, `source`; `path` is that of `edge_spine.scan.Scan`; `outputs` are the paths of the written
    files.
    """

    source: str
    status: str = "failed"
    code: str | None = None
    message: str = ""
    outputs: list[str] = field(default_factory=list)
    timing_ms: dict[str, float] = field(default_factory=dict)
    path: str = ""

    def line(self) -> str:
        """Return the outcome as a line of text."""
        code = f" ({self.code})" if self.code else ""
        place = f"; from {self.path}" if self.path not in ("", self.source) else ""
        # the folder of --out may hold a line break
        return printable(f"{self.status}{code}: {self.message}{place}")


def process(
    source: str,
    estimator: SpineEstimator,
    read: Callable[[], Scan],
    write: Callable[[SpineResult], tuple[SpineResult, Sequence[Path]]],
    *,
    path: str = "",
    raise_storage: bool = False,
) -> Report:
    """Read, estimate and write one scan; errors become a report.

    `source` names the scan in messages, `path` in the report. `write` returns the result with its times, and the
    written files. The report's message never quotes an unexpected exception, whose text may hold values of the file.
    With `raise_storage`, OSError and `InputUnavailable` are raised, for callers that wait until the storage works
    again; EngineLost always, where the engine works no more in this process.
    """
    from edge_spine.result import STAGES

    report = Report(source, timing_ms=dict.fromkeys(STAGES, 0.0), path=storable(path))
    started = time.perf_counter()
    writing = False
    # the caller repeats the scan: in a new process, or when the storage works again
    unreported = (EngineLost, OSError, InputUnavailable) if raise_storage else EngineLost
    try:
        scan = read()
        report.timing_ms["read"] = (time.perf_counter() - started) * 1000
        result = estimator(scan).with_timing(read=report.timing_ms["read"])
        writing = True
        result, paths = write(result)
    except Refusal as refusal:
        report.status, report.code = "refused", refusal.code
        report.message = _named(source, refusal.message)
    except unreported:
        raise
    except EdgeSpineError as error:
        report.message = _named(source, str(error))
    except Exception as error:
        what = type(error).__name__
        if isinstance(error, OSError) and writing:
            what = f"the results cannot be written ({reason_of(error)}); check the output folder and its free space"
            # of a renaming: another name is that of a folder or of a hidden file
            if isinstance(error, PermissionError) and error.filename2:
                what = f"{Path(error.filename2).name} cannot be replaced ({reason_of(error)}); "
                what += "close it where it is open, and check the rights of the output folder"
        elif isinstance(error, OSError) and error.strerror:
            what += f": {error.strerror}"
        report.message = f"{source}: {what}; -v shows where"
        _log.info("%s in\n%s", what, "".join(traceback.format_tb(error.__traceback__)).rstrip())
    else:
        place = f"; in {storable(str(paths[0].parent))}" if paths else ""
        report.status, report.message = "done", f"{source}: {_summary(result)}{place}"
        report.outputs = [storable(str(path)) for path in paths]
        report.timing_ms = dict(result.timing_ms)
    if report.status != "done":
        report.timing_ms["total"] = (time.perf_counter() - started) * 1000
    report.timing_ms = {stage: round(value, 3) for stage, value in report.timing_ms.items()}
    return report


def _named(source: str, message: str) -> str:
    return message if message.startswith(f"{source}: ") else f"{source}: {message}"


def _summary(result: SpineResult) -> str:
    measured = result.measurements
    angle, error = measured.max_cobb_deg, measured.max_cobb_error_90_deg
    text = f"{angle:.1f} degrees"
    if error is not None:
        text += f" (90 % interval {max(0.0, angle - error):.0f} to {angle + error:.0f})"
    if measured.scoliosis_curves:
        largest = measured.scoliosis_curves[0]
        text = f"largest curve {text}, convex {largest.side}, apex {largest.apex_level}"
    else:
        text = f"no lateral curve, vertebrae tilt by up to {text}"
    text += f" ({', '.join(result.quality.flags)})" if result.quality.flags else ""
    return "; ".join([text, *result.quality.notes])
