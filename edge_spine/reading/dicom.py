"""A DICOM file becomes a Scan. The header is judged first; pixels are decoded last."""

from __future__ import annotations

import io
import logging
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from edge_spine.errors import Refusal
from edge_spine.reading.checks import ACCEPTED_SPACING, check_extent, check_size, is_plausible_spacing
from edge_spine.reading.kinds import HEAD_BYTES
from edge_spine.reading.orientation import turn_from_patient_orientation
from edge_spine.reading.pixels import DEFLATED, check_pixel_format, check_syntax, decode, whole_number
from edge_spine.reading.protocol import check_protocol, is_ge_densitometer
from edge_spine.scan import Scan

_UID = re.compile(r"[0-9.]{1,64}")
_quiet_lock = threading.RLock()


def scan_from_dicom(data: bytes, source: str, given_spacing: tuple[float, float] | None) -> Scan:
    """Read a DICOM file.

    Parameters
    ----------
    data : bytes
        The file.
    source : str
        File name for messages.
    given_spacing : tuple of float or None
        Row and column spacing in mm, used only where the file holds none.

    Returns
    -------
    Scan

    Raises
    ------
    Refusal
        Where it is damaged or not a whole-body DXA image in an accepted encoding.
    """
    with _quiet_pydicom():
        try:
            return _read(data, source, given_spacing)
        except Refusal:
            raise
        # pydicom raises some twenty types on damaged files, RecursionError and MemoryError among them.
        # Their texts can quote the header, so only the type is passed on.
        except Exception as error:
            raise Refusal(
                "unreadable",
                f"{source}: damaged DICOM file ({type(error).__name__}); give it as the scanner exported it",
            ) from None


def _read(data: bytes, source: str, given_spacing: tuple[float, float] | None) -> Scan:
    # dcmread inflates a deflated file whole, however large it becomes: the syntax is looked at before.
    syntax = _transfer_syntax(data)
    if syntax == DEFLATED:
        check_syntax(source, syntax)
    header = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    check_protocol(source, header)
    check_syntax(source, syntax)

    turn = turn_from_patient_orientation(source, header.get("PatientOrientation"))
    rows, columns = whole_number(source, header, "Rows"), whole_number(source, header, "Columns")
    turned_rows, turned_columns = turn.shape((rows, columns))
    check_size(source, turned_rows, turned_columns)
    stored_spacing, spacing_flags = _pixel_spacing(source, header, rows, columns, given_spacing)
    spacing = turn.shape(stored_spacing)
    check_extent(source, turned_rows, turned_columns, spacing)
    check_pixel_format(source, header)

    pixels = decode(source, pydicom.dcmread(io.BytesIO(data)))
    return Scan(
        pixels=np.ascontiguousarray(turn.apply(pixels)),
        pixel_spacing_mm=spacing,
        source=source,
        sop_instance_uid=_sop_instance_uid(header),
        flags=turn.flags + spacing_flags,
        turn=turn,
        header=header,
    )


def _transfer_syntax(data: bytes) -> str:
    stream = io.BytesIO(data)
    stream.seek(HEAD_BYTES)
    meta = read_dataset(
        stream,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, _vr, _length: tag.group != 2,
    )
    return str(meta.get("TransferSyntaxUID") or "")


def _sop_instance_uid(header: Dataset) -> str | None:
    uid = str(header.get("SOPInstanceUID") or "")
    return uid if _UID.fullmatch(uid) else None


def _pixel_spacing(
    source: str, header: Dataset, rows: int, columns: int, given: tuple[float, float] | None
) -> tuple[tuple[float, float], tuple[str, ...]]:
    """Return the (row, column) spacing of the stored image, and flags.

    ImagerPixelSpacing is left alone: it is measured at the detector, not in the patient.
    """
    stored = _numbers(header.get("PixelSpacing"))
    if is_plausible_spacing(stored):
        return (stored[0], stored[1]), ()
    # GE Lunar writes no PixelSpacing; its ExposedArea is the width and height of the image in mm.
    area = _numbers(header.get("ExposedArea")) if is_ge_densitometer(header) else []
    if len(area) == 2:
        exposed = (area[1] / rows, area[0] / columns)
        if is_plausible_spacing(exposed):
            return exposed, ()
    if given is not None:
        return given, ("pixel-spacing-given",)
    found = "its PixelSpacing is implausible" if stored else "it holds no PixelSpacing"
    raise Refusal(
        "no-spacing",
        f"{source}: {found} and no GE ExposedArea; give --pixel-spacing ROW,COL in mm ({ACCEPTED_SPACING})",
    )


def _numbers(value: Any) -> list[float]:
    if value is None:
        return []
    several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    try:
        return [float(item) for item in (value if several else [value])]
    except (TypeError, ValueError):
        return []


@contextmanager
def _quiet_pydicom() -> Iterator[None]:
    """Keep pydicom's warnings from the user's terminal and from logs: they can quote patient data."""

    def drop(_record: logging.LogRecord) -> bool:
        return False

    logger = logging.getLogger("pydicom")
    # Python's warning filters are one per process: two threads must not save and restore them crosswise.
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.addFilter(drop)
        try:
            yield
        finally:
            logger.removeFilter(drop)
