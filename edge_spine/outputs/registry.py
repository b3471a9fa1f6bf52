"""The table of output formats, and how they are written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from edge_spine.errors import UsageError

if TYPE_CHECKING:
    from edge_spine.result import SpineResult


def _json(result: SpineResult) -> bytes:
    from edge_spine.outputs.result_json import render

    return render(result)


def _ply(result: SpineResult) -> bytes:
    from edge_spine.outputs.ply import render

    return render(result)


def _png(result: SpineResult) -> bytes:
    from edge_spine.outputs.preview_png import render

    return render(result)


def _stl(result: SpineResult) -> bytes:
    from edge_spine.outputs.stl import render

    return render(result)


def _glb(result: SpineResult) -> bytes:
    from edge_spine.outputs.glb import render

    return render(result)


def _csv(result: SpineResult) -> bytes:
    from edge_spine.outputs.curves_csv import render

    return render(result)


def _html(result: SpineResult) -> bytes:
    from edge_spine.outputs.report_html import render

    return render(result)


def _pdf(result: SpineResult) -> bytes:
    from edge_spine.outputs.report_pdf import render

    return render(result)


def _structured_report(result: SpineResult) -> bytes:
    from edge_spine.outputs.structured_report import render

    return render(result)


def _secondary_capture(result: SpineResult) -> bytes:
    from edge_spine.outputs.secondary_capture import render

    return render(result)


def _encapsulated_stl(result: SpineResult) -> bytes:
    from edge_spine.outputs.encapsulated import encapsulated_stl

    return encapsulated_stl(result)


def _encapsulated_report(result: SpineResult) -> bytes:
    from edge_spine.outputs.encapsulated import encapsulated_pdf

    return encapsulated_pdf(result, FORMATS["pdf"].render(result))


@dataclass(frozen=True)
class OutputFormat:
    """One way to write a result: the name of its file, the function that fills it, and what that function needs.

    `needs` is a package that is not always installed and the extra of edge-spine that brings it.
    """

    filename: str
    render: Callable[[SpineResult], bytes]
    needs: tuple[str, str] | None = None


_HIGHDICOM = ("highdicom", "dicom")
_REPORTLAB = ("reportlab", "report")
_TRIMESH = ("trimesh", "report")
FORMATS: dict[str, OutputFormat] = {
    "json": OutputFormat("result.json", _json),
    "ply": OutputFormat("spine.ply", _ply),
    "png": OutputFormat("preview.png", _png),
    "stl": OutputFormat("spine.stl", _stl),
    "glb": OutputFormat("spine.glb", _glb, _TRIMESH),
    "csv": OutputFormat("curves.csv", _csv),
    "html": OutputFormat("report.html", _html),
    "pdf": OutputFormat("report.pdf", _pdf, _REPORTLAB),
    "sr": OutputFormat("spine.sr.dcm", _structured_report, _HIGHDICOM),
    "sc": OutputFormat("preview.sc.dcm", _secondary_capture, _HIGHDICOM),
}
DEFAULT_FORMATS = ("json", "ply", "png")


# What a node sends back: each function returns a whole DICOM file, Explicit VR Little Endian.
DICOM_OBJECTS: dict[str, Callable[[SpineResult], bytes]] = {
    "sr": _structured_report,
    "sc": _secondary_capture,
    "stl": _encapsulated_stl,
    "pdf": _encapsulated_report,
}


def parse_formats(names: str) -> tuple[str, ...]:
    """Read a list such as "json,png".

    Returns
    -------
    tuple of str
        Keys of `FORMATS`, each once, in the order of `FORMATS`.

    Raises
    ------
    UsageError
        The list is empty, names an unknown format, or one whose package is not installed.
    """
    wanted = {name.strip().lower() for name in names.split(",")} - {""}
    unknown = sorted(wanted - set(FORMATS))
    if unknown or not wanted:
        found = ", ".join(map(repr, unknown)) or "no format"
        raise UsageError(f"{found} is no output that can be written; known: {', '.join(FORMATS)}")
    for name in sorted(wanted):
        needs = FORMATS[name].needs
        if needs is not None and find_spec(needs[0]) is None:
            raise UsageError(f"{name!r} needs the package {needs[0]}: install edge-spine[{needs[1]}]")
    return tuple(name for name in FORMATS if name in wanted)


def write_outputs(
    result: SpineResult, folder: Path, formats: Sequence[str] = DEFAULT_FORMATS
) -> tuple[SpineResult, list[Path]]:
    """Write a result in several formats, so that every file appears whole.

    Parameters
    ----------
    result : SpineResult
        What the estimator returned.
    folder : Path
        Made where it does not exist; files in it with the same names are replaced.
    formats : sequence of str
        Keys of `FORMATS`.

    Returns
    -------
    result : SpineResult
        The same with the time that writing took. result.json is a part of what is written, so the
        time in it holds the making of the other files only.
    paths : list of Path
        The written files.

    Raises
    ------
    OSError
        A file cannot be written.
    OutputError
        A DICOM result was asked for, and the scan is no DICOM file or lacks a UID; nothing is written.
    """
    from edge_spine.files import write_files

    started = time.perf_counter()
    contents = {FORMATS[name].filename: FORMATS[name].render(result) for name in formats if name != "json"}
    if "json" in formats:
        timed = result.with_timing(write=_elapsed_ms(started))
        contents = {FORMATS["json"].filename: FORMATS["json"].render(timed), **contents}
    paths = write_files(folder, contents)
    return result.with_timing(write=_elapsed_ms(started)), paths


def _elapsed_ms(started: float) -> float:
    return (time.perf_counter() - started) * 1000.0
