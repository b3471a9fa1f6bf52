"""A DICOM file becomes a Scan. The header is judged first; pixels are decoded last."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from edge_spine.errors import Refusal
from edge_spine.reading.checks import ACCEPTED_SPACING, check_extent, check_size, is_plausible_spacing
from edge_spine.reading.header import DicomStream, numbers, read_header, read_pixel_data, transfer_syntax
from edge_spine.reading.orientation import turn_from_patient_orientation
from edge_spine.reading.pixels import PixelFormat, decode, pixel_format, whole_number
from edge_spine.reading.protocol import check_protocol, is_ge_densitometer
from edge_spine.reading.syntaxes import DEFLATED, check_syntax
from edge_spine.scan import Scan, Turn

_UID = re.compile(r"[0-9.]{1,64}")
_silence_lock, _silence = threading.Lock(), ExitStack()
_silent_threads = 0


def scan_from_dicom(data: bytes, source: str, given_spacing: tuple[float, float] | None, imager_spacing: bool) -> Scan:
    """Read a DICOM file.

    Parameters
    ----------
    data : bytes
        The file.
    source : str
        What the scan is called.
    given_spacing : tuple of float or None
        Row and column spacing in mm, used only where the file holds none.
    imager_spacing : bool
        Take ImagerPixelSpacing where the file holds no better spacing.

    Returns
    -------
    Scan

    Raises
    ------
    Refusal
        Where it is damaged or not a whole-body DXA image in an accepted encoding.
    """
    with _damage_refused():
        return _scan(source, _judged(data, given_spacing, imager_spacing))


def check_dicom_header(data: bytes) -> None:
    """Refuse a DICOM file that its header alone rules out; pixels are not looked at.

    Parameters
    ----------
    data : bytes
        The file.

    Raises
    ------
    Refusal
        As `scan_from_dicom` would, for what stands before the pixels.
    """
    with _damage_refused():
        _judged(data, None, False)


@contextmanager
def _damage_refused() -> Iterator[None]:
    with quiet_pydicom():
        try:
            yield
        except Refusal:
            raise
        # pydicom raises some twenty types on damaged files, RecursionError and MemoryError among them.
        # Their texts can quote the header, so only the type is passed on.
        except Exception as error:
            raise Refusal(
                "unreadable",
                f"damaged DICOM file ({type(error).__name__}); give it as the scanner exported it",
            ) from None


@dataclass(frozen=True)
class _Judged:
    """A header that may belong to a scan, and the stream, which stands before the pixels."""

    stream: DicomStream
    header: Dataset
    syntax: str
    turn: Turn
    spacing: tuple[float, float]
    spacing_flags: tuple[str, ...]
    pixels: PixelFormat


def _judged(data: bytes, given: tuple[float, float] | None, imager_spacing: bool) -> _Judged:
    # dcmread inflates a deflated file whole, however large it becomes: the syntax is looked at before.
    syntax = transfer_syntax(data)
    if syntax == DEFLATED:
        check_syntax(syntax)
    stream = DicomStream(data)
    header = read_header(stream)
    check_protocol(header)
    check_syntax(syntax)

    turn = turn_from_patient_orientation(header.get("PatientOrientation"))
    rows, columns = whole_number(header, "Rows"), whole_number(header, "Columns")
    turned_rows, turned_columns = turn.shape((rows, columns))
    check_size(turned_rows, turned_columns)
    stored_spacing, spacing_flags = _pixel_spacing(header, rows, columns, given, imager_spacing)
    spacing = turn.shape(stored_spacing)
    check_extent(turned_rows, turned_columns, spacing)
    return _Judged(stream, header, syntax, turn, spacing, spacing_flags, pixel_format(header))


def _scan(source: str, judged: _Judged) -> Scan:
    element = read_pixel_data(judged.stream, judged.header)
    pixels, flags = decode(judged.header, judged.syntax, element, judged.pixels)
    return Scan(
        pixels=np.ascontiguousarray(judged.turn.apply(pixels)),
        pixel_spacing_mm=judged.spacing,
        source=source,
        sop_instance_uid=_sop_instance_uid(judged.header),
        flags=judged.turn.flags + judged.spacing_flags + flags,
        turn=judged.turn,
        header=judged.header,
    )


def _sop_instance_uid(header: Dataset) -> str | None:
    uid = str(header.get("SOPInstanceUID") or "")
    return uid if _UID.fullmatch(uid) else None


def _pixel_spacing(
    header: Dataset,
    rows: int,
    columns: int,
    given: tuple[float, float] | None,
    imager_spacing: bool,
) -> tuple[tuple[float, float], tuple[str, ...]]:
    """Return the (row, column) spacing of the stored image, and flags.

    ImagerPixelSpacing is measured at the detector, not in the patient, so the caller has to ask for it.
    """
    stored = numbers(header.get("PixelSpacing"))
    if is_plausible_spacing(stored):
        return (stored[0], stored[1]), ()
    # GE Lunar writes no PixelSpacing; its ExposedArea is the width and height of the image in mm.
    area = numbers(header.get("ExposedArea")) if is_ge_densitometer(header) else []
    if len(area) == 2:
        exposed = (area[1] / rows, area[0] / columns)
        if is_plausible_spacing(exposed):
            return exposed, ()
    imager = numbers(header.get("ImagerPixelSpacing")) if imager_spacing else []
    if is_plausible_spacing(imager):
        return (imager[0], imager[1]), ("imager-pixel-spacing",)
    if given is not None:
        return given, ("pixel-spacing-given",)
    found = "its PixelSpacing is implausible" if stored else "it holds no PixelSpacing"
    raise Refusal(
        "no-spacing",
        f"{found} and no GE ExposedArea; give --pixel-spacing ROW,COL in mm ({ACCEPTED_SPACING})",
    )


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom's warnings from the user's terminal and from logs: they can quote patient data.

    Several threads may be within at once: the first one in brings silence, the last one out ends it.
    """
    global _silent_threads
    logger = logging.getLogger("pydicom")
    with _silence_lock:
        _silent_threads += 1
        if _silent_threads == 1:
            # Python's warning filters are one per process: threads must not save and restore them crosswise.
            _silence.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            logger.addFilter(_drop)
    try:
        yield
    finally:
        with _silence_lock:
            _silent_threads -= 1
            if _silent_threads == 0:
                logger.removeFilter(_drop)
                _silence.close()


def _drop(_record: logging.LogRecord) -> bool:
    return False
