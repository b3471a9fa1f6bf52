"""One scan from its file to its report, with FAKE steps: every ending, its message and its times."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_spine.errors import EdgeSpineError, Refusal
from edge_spine.result import STAGES, SpineResult
from edge_spine.runner import Report, process
from tests.edge_spine.fake_result import fake_bands, fake_curves, fake_result

PATIENT = "SECRET^NAME"


def run(
    answer: SpineResult | Exception, *, written: Exception | None = None, place: object = "", **options: Any
) -> Report:
    """Process a FAKE scan whose estimate, or whose writing, ends as told."""

    def estimate(_scan: object) -> SpineResult:
        if isinstance(answer, Exception):
            raise answer
        return answer

    def write(result: SpineResult) -> tuple[SpineResult, list[Path]]:
        if written is not None:
            raise written
        return result.with_timing(write=1.0), [Path("out/result.json")]

    return process("a.dcm", estimate, lambda: None, write, place, **options)  # type: ignore[arg-type, return-value]


def curved(**changes: Any) -> SpineResult:
    return fake_result(curves=fake_curves(lateral_mm=60.0), band_90=fake_bands(), **changes)


def test_a_scan_that_is_done() -> None:
    flags = SimpleNamespace(flags=("trunk-leans", "inverted"))
    result = curved(quality=flags)
    report = run(result, place=Path("out"))
    largest = result.measurements.scoliosis_curves[0]
    assert (report.status, report.code, report.outputs) == ("done", None, [str(Path("out/result.json"))])
    assert report.message == (
        f"a.dcm: largest curve {largest.cobb_deg:.1f} degrees, convex {largest.side}, apex {largest.apex_level}"
        " (trunk-leans, inverted); in out"
    )
    assert report.line() == f"done: {report.message}"
    assert set(report.timing_ms) == set(STAGES) and report.timing_ms["write"] == 1.0
    assert 0 <= report.timing_ms["read"] < report.timing_ms["total"]


def test_a_straight_spine_has_no_lateral_curve() -> None:
    straight = fake_result(curves=fake_curves(lateral_mm=0.0), quality=SimpleNamespace(flags=("low-confidence",)))
    assert run(straight).message == "a.dcm: no lateral curve (low-confidence)"


@pytest.mark.parametrize("source", [None, "a.dcm"])
def test_a_refusal_keeps_its_code_and_names_the_scan_once(source: str | None) -> None:
    report = run(Refusal("no-spine", "no spine was found", source))
    assert (report.status, report.code) == ("refused", "no-spine")
    assert report.line() == "refused (no-spine): a.dcm: no spine was found"
    assert report.outputs == [] and report.timing_ms["total"] > 0 and report.timing_ms["write"] == 0


def test_our_errors_are_quoted() -> None:
    report = run(curved(), written=EdgeSpineError("it cannot be written"))
    assert report.line() == "failed: a.dcm: it cannot be written" and report.code is None


def test_no_unexpected_exception_is_quoted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "edge_spine"):
        report = run(ValueError(PATIENT))
    assert report.line() == "failed: a.dcm: ValueError; -v shows where"
    # The log shows the place in the code, and not the text either.
    assert "test_runner.py" in caplog.text and "ValueError" in caplog.text and PATIENT not in caplog.text


def test_a_problem_of_the_storage_has_its_reason_or_is_raised() -> None:
    full = OSError(28, "No space left on device", PATIENT)
    assert run(curved(), written=full).message == "a.dcm: OSError: No space left on device; -v shows where"
    with pytest.raises(OSError, match="No space"):
        run(curved(), written=full, raise_storage=True)
    # Only problems of the storage are raised.
    assert run(ValueError(), raise_storage=True).status == "failed"
