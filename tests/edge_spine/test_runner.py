"""One scan from its file to its outputs, and what is reported of each end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from edge_spine.errors import EngineLost, InputUnavailable, OutputError, Refusal
from edge_spine.quality import Quality
from edge_spine.result import STAGES
from edge_spine.runner import Report, process
from tests.edge_spine.fake_result import fake_curves, fake_result

PATIENT = "SECRET^NAME"


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


def processed(estimator: Any = None, read: Any = None, write: Any = None, **more: Any) -> Report:
    """FAKE steps that succeed, but for those that are given."""
    return process(
        "a.dcm",
        estimator or (lambda scan: fake_result()),
        read or (lambda: "FAKE scan"),
        write or (lambda result: (result.with_timing(write=2.0), [Path("out/result.json")])),
        **more,
    )


def test_a_scan_that_is_done() -> None:
    report = processed()
    assert (report.status, report.code, report.outputs) == ("done", None, [str(Path("out/result.json"))])
    assert report.message.startswith("a.dcm: largest curve ") and report.message.endswith("; in out")
    assert tuple(report.timing_ms) == STAGES and report.timing_ms["write"] == 2.0
    assert report.line() == f"done: {report.message}"


def test_the_line_says_where_the_scan_is() -> None:
    for read in (None, raising(Refusal("no-spine", "no spine")), raising(ValueError())):
        report = processed(read=read, path="p1/ä b.zip!s\n/a.dcm")
        assert report.path == "p1/ä b.zip!s\n/a.dcm" and report.line().endswith("; from p1/ä b.zip!s?/a.dcm")
    assert "from" not in processed(path="a.dcm").line()


@pytest.mark.parametrize("patient", [True, False])
def test_what_cannot_be_read_now_is_no_verdict(patient: bool) -> None:
    away = InputUnavailable("a.dcm: the file cannot be read now (Stale file handle)")
    if patient:
        with pytest.raises(InputUnavailable):
            processed(read=raising(away), raise_storage=True)
    else:
        report = processed(read=raising(away))
        assert (report.status, report.code) == ("failed", None) and report.message == str(away)


def test_the_line_says_what_was_found() -> None:
    straight = processed(lambda scan: fake_result(curves=fake_curves(lateral_mm=0.0)))
    assert straight.message == "a.dcm: no lateral curve, vertebrae tilt by up to 0.0 degrees; in out"
    doubtful = Quality(True, ("low-confidence", "trunk-leans"), ("with figures",))
    message = processed(lambda scan: fake_result(quality=doubtful)).message
    assert message.endswith(" (low-confidence, trunk-leans); with figures; in out")
    plain = fake_result()
    known = replace(plain.measurements, max_cobb_deg=12.0, max_cobb_error_90_deg=4.0)
    message = processed(lambda scan: replace(plain, measurements=known)).message
    assert message.startswith("a.dcm: largest curve 12.0 degrees (90 % interval 8 to 16), convex ")


@pytest.mark.parametrize("step", ["read", "estimator", "write"])
@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Refusal("no-spine", "no spine"), "refused (no-spine): a.dcm: no spine"),
        (Refusal("no-spine", "a.dcm: no spine"), "refused (no-spine): a.dcm: no spine"),
        (OutputError("needs a DICOM scan"), "failed: a.dcm: needs a DICOM scan"),
        (OSError(28, "No space left on device"), "failed: a.dcm: OSError: No space left on device; -v shows where"),
        (ValueError(PATIENT), "failed: a.dcm: ValueError; -v shows where"),
    ],
)
def test_an_error_of_any_step_becomes_a_report(step: str, error: Exception, line: str) -> None:
    report = processed(**{step: raising(error)})
    if step == "write" and isinstance(error, OSError):
        why = "the results cannot be written (No space left on device); check the output folder and its free space"
        line = f"failed: a.dcm: {why}; -v shows where"
    assert report.line() == line and PATIENT not in repr(report)
    assert report.outputs == [] and report.timing_ms["total"] >= report.timing_ms["read"]


def test_a_line_is_one_line_wherever_the_results_go() -> None:
    report = processed(write=lambda result: (result, [Path("a\nb/result.json")]), path="c\nd.dcm")
    assert report.line().endswith("; in a?b; from c?d.dcm")


def test_bytes_of_names_that_are_not_utf_8_are_escapes() -> None:
    """So that a line of --json holds no lone surrogate, which most readers of JSON refuse."""
    report = processed(write=lambda result: (result, [Path("o\udce9/result.json")]), path="caf\udce9.dcm")
    assert report.path == "caf\\udce9.dcm" and report.outputs == [str(Path("o\\udce9/result.json"))]
    json.dumps(asdict(report), ensure_ascii=False).encode("utf-8")


def test_an_error_of_the_system_without_words_is_named_by_its_type() -> None:
    assert "cannot be written (OSError); check" in processed(write=raising(OSError("odd"))).message
    assert processed(read=raising(OSError("odd"))).message == "a.dcm: OSError; -v shows where"


def test_a_file_that_is_open_elsewhere_is_named() -> None:
    error = PermissionError(13, "Permission denied", "out/a/.spine.ply.1.partial", None, "out/a/spine.ply")
    message = processed(write=raising(error)).message
    assert message.startswith("a.dcm: spine.ply cannot be replaced (Permission denied); close it where")


@pytest.mark.parametrize("name", ["out", "out/a/.spine.ply.1.partial", "out/a/.scan.json"])
def test_a_folder_without_rights_is_not_called_open(name: str) -> None:
    message = processed(write=raising(PermissionError(13, "Permission denied", name))).message
    assert message.startswith("a.dcm: the results cannot be written (Permission denied); check the output folder")


def test_a_scan_whose_name_begins_the_reason_is_named() -> None:
    report = process("the", lambda scan: fake_result(), raising(Refusal("too-small", "the image is small")), tuple)
    assert report.line() == "refused (too-small): the: the image is small"


def test_storage_that_fails_is_raised_where_someone_waits_for_it() -> None:
    with pytest.raises(OSError):
        processed(write=raising(OSError(28, "No space left on device")), raise_storage=True)
    assert processed(read=raising(ValueError()), raise_storage=True).status == "failed"


def test_an_interruption_is_no_report() -> None:
    with pytest.raises(KeyboardInterrupt):
        processed(raising(KeyboardInterrupt()))


def test_a_lost_engine_is_no_word_on_the_scan() -> None:
    with pytest.raises(EngineLost):
        processed(raising(EngineLost("tensorrt: the GPU failed")))
