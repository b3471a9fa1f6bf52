"""The table of output formats, and how they are written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from edge_spine.errors import UsageError
from edge_spine.files import write_files

if TYPE_CHECKING:
    from edge_spine.result import SpineResult


@dataclass(frozen=True)
class DicomObject:
    """A DICOM object in Explicit VR Little Endian: keyword of its SOP class, its Series Number, and what it is."""

    storage_class: str
    series_number: int
    title: str


@dataclass(frozen=True)
class OutputFormat:
    """The writer of one format, and the name of its file.

    `target` is "module:function" of this package, from a `SpineResult` to bytes; `render` imports it at its first call.
    `needs` are a package that is not always installed and the extra of edge-spine that installs it.
    """

    target: str
    filename: str
    needs: tuple[str, str] | None = None
    dicom: DicomObject | None = None

    def render(self, result: SpineResult) -> bytes:
        """Return the bytes of the file."""
        content: bytes = resolve_name(f"edge_spine.outputs.{self.target}")(result)
        return content


_HIGHDICOM, _REPORTLAB, _TRIMESH = ("highdicom", "dicom"), ("reportlab", "report"), ("trimesh", "report")
_SR = DicomObject("Comprehensive3DSRStorage", 98101, "measurements")
_SC = DicomObject("SecondaryCaptureImageStorage", 98102, "preview")
_STL = DicomObject("EncapsulatedSTLStorage", 98103, "surface")
_PDF = DicomObject("EncapsulatedPDFStorage", 98104, "report")
FORMATS = {
    "json": OutputFormat("result_json:render", "result.json"),
    "ply": OutputFormat("ply:render", "spine.ply"),
    "png": OutputFormat("preview_png:render", "preview.png"),
    "stl": OutputFormat("stl:render", "spine.stl"),
    "glb": OutputFormat("glb:render", "spine.glb", _TRIMESH),
    "csv": OutputFormat("curves_csv:render", "curves.csv"),
    "html": OutputFormat("report_html:render", "report.html"),
    "pdf": OutputFormat("report_pdf:render_today", "report.pdf", _REPORTLAB),
    "sr": OutputFormat("structured_report:render", "spine.sr.dcm", _HIGHDICOM, _SR),
    "sc": OutputFormat("secondary_capture:render", "preview.sc.dcm", _HIGHDICOM, _SC),
    "stl-dcm": OutputFormat("encapsulated:encapsulated_stl", "spine.stl.dcm", None, _STL),
    "pdf-dcm": OutputFormat("encapsulated:encapsulated_report", "report.pdf.dcm", _REPORTLAB, _PDF),
}
DEFAULT_FORMATS = ("json", "ply", "png")
DICOM_OBJECTS = {name: known.dicom for name, known in FORMATS.items() if known.dicom is not None}


def parse_formats(names: str) -> tuple[str, ...]:
    """Return the formats that a list such as "json,png" names, each once and in the order of `FORMATS`.

    Raise UsageError where the list is empty, or names a format that is unknown or whose package is not installed.
    """
    wanted = {name.strip().lower() for name in names.split(",")} - {""}
    unknown = sorted(wanted - set(FORMATS))
    if unknown or not wanted:
        found = ", ".join(map(repr, unknown)) or "no format"
        raise UsageError(f"{found} is no output that can be written; known: {', '.join(FORMATS)}")
    for name in sorted(wanted):
        needs = FORMATS[name].needs
        if needs is not None and find_spec(needs[0]) is None:
            raise UsageError(f"{name!r} needs the package {needs[0]}: pip install '.[{needs[1]}]'")
    return tuple(name for name in FORMATS if name in wanted)


def write_outputs(
    result: SpineResult, folder: Path, formats: Sequence[str] = DEFAULT_FORMATS, *, show_date: bool = False
) -> tuple[SpineResult, list[Path]]:
    """Write a result in several formats, so that every file appears whole.

    `formats` are keys of `FORMATS`. The folder is created where it does not exist; files in it with the same names are
    replaced. `show_date` lets pictures and reports show the date of the scan.

    The written files are returned beside the result with the time that writing took, and with the flags of
    `edge_spine.outputs.dicom.identity.flagged` where a DICOM format is among `formats`. In result.json this time holds
    the other formats only, since its own is not over yet.

    Raises
    ------
    OSError
        A file cannot be written.
    OutputError
        A DICOM format is among `formats`, and the scan is no DICOM file or lacks a UID; nothing is written.
    """
    started = time.perf_counter()
    if any(name in DICOM_OBJECTS for name in formats):
        result = resolve_name("edge_spine.outputs.dicom.identity:flagged")(result)
    if show_date:
        # scan.py loads NumPy, which the help text does not need
        from edge_spine.scan import study_date

        result = replace(result, shown_date=str(study_date(result.scan.header) or "date unknown"))
    contents = {FORMATS[name].filename: FORMATS[name].render(result) for name in formats if name != "json"}
    if "json" in formats:
        timed = result.with_timing(write=_elapsed_ms(started))
        contents = {FORMATS["json"].filename: FORMATS["json"].render(timed), **contents}
    paths = write_files(folder, contents)
    return result.with_timing(write=_elapsed_ms(started)), paths


def _elapsed_ms(started: float) -> float:
    return (time.perf_counter() - started) * 1000.0
