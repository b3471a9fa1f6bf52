"""Read a DICOM file into a Scan: check the header first, decode the pixels last."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from edge_spine.reading.checks import check_extent, check_size, damage_refused
from edge_spine.reading.header import DicomStream, read_header, read_pixel_data, transfer_syntax
from edge_spine.reading.kinds import ImageFile, with_preamble
from edge_spine.reading.orientation import turn_from_patient_orientation
from edge_spine.reading.pixels import decode, pixel_format, whole_number
from edge_spine.reading.protocol import check_protocol
from edge_spine.reading.spacing import stated_spacing
from edge_spine.reading.syntaxes import DEFLATED, UNCOMPRESSED, check_syntax
from edge_spine.scan import Scan

_DAMAGE = "damaged DICOM file", "give it as the scanner exported it"
# scanners write components with leading zeros, and archives keep them
UID_TEXT = re.compile(r"[0-9.]{1,64}")
_silence_lock, _silence = threading.Lock(), ExitStack()
_silent_threads = 0


def scan_from_dicom(file: ImageFile) -> Scan:
    """Read a DICOM file; refuse it where it is damaged or no whole-body DXA image in an accepted encoding."""
    with quiet_pydicom(), damage_refused(*_DAMAGE):
        return _checked(file)()


def check_dicom_header(file: ImageFile) -> None:
    """Refuse a DICOM file as `scan_from_dicom` does, for everything before the pixels."""
    with quiet_pydicom(), damage_refused(*_DAMAGE):
        _checked(file)


def _checked(file: ImageFile) -> Callable[[], Scan]:
    """Check everything before the pixels, and return the function that reads these."""
    data = with_preamble(file.data)
    # checked first, since dcmread inflates a deflated file without a limit
    syntax = transfer_syntax(data)
    if syntax == DEFLATED:
        check_syntax(syntax)
    stream = DicomStream(data)
    header = read_header(stream)
    check_protocol(header)
    if syntax is None:
        # pydicom knows the encoding from the first attribute
        encoding = header.original_encoding
        syntax = next(uid for uid in UNCOMPRESSED if (uid.is_implicit_VR, uid.is_little_endian) == encoding)
    check_syntax(syntax)

    turn = turn_from_patient_orientation(header.get("PatientOrientation"))
    rows, columns = whole_number(header, "Rows"), whole_number(header, "Columns")
    turned_rows, turned_columns = turn.shape((rows, columns))
    check_size(turned_rows, turned_columns)
    spacing = stated_spacing(header, rows, columns, file)
    check_extent(turned_rows, turned_columns, turn.shape(spacing.mm))
    found = pixel_format(header)

    def scan() -> Scan:
        pixels, flags = decode(header, syntax, read_pixel_data(stream, header), found)
        uid = str(header.get("SOPInstanceUID") or "")
        return Scan(
            pixels=np.ascontiguousarray(turn.apply(pixels)),
            pixel_spacing_mm=turn.shape(spacing.mm),
            source=file.source,
            sop_instance_uid=uid if UID_TEXT.fullmatch(uid) else None,
            flags=turn.flags + spacing.flags + flags,
            notes=turn.notes + spacing.notes,
            turn=turn,
            header=header,
        )

    return scan


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Suppress pydicom's warnings and log messages, which can quote patient data.

    Several threads may use it at once: the last one to leave restores the warnings.
    """
    global _silent_threads
    logger = logging.getLogger("pydicom")
    with _silence_lock:
        _silent_threads += 1
        if _silent_threads == 1:
            # warning filters are global: threads must not save and restore them alternately
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
