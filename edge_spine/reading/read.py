"""Read a DXA file into a Scan.

Sizes are checked against limits and against the length of the file before pixels are allocated. Every problem with a
file raises a Refusal.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edge_spine.errors import InputUnavailable, Refusal, named_refusals
from edge_spine.reading.checks import MAX_FILE_BYTES, check_given_spacing, printable, storable
from edge_spine.reading.kinds import ImageFile, ImageKind, kind_of
from edge_spine.scan import Scan

ACCEPTED_FILES = "give a whole-body DXA image as DICOM, PNG or NPY"


def read_scan(
    path: str | os.PathLike[str], *, pixel_spacing: Sequence[float] | None = None, imager_spacing: bool = False
) -> Scan:
    """Read one DXA image file.

    Parameters
    ----------
    path : path-like
        A DICOM, PNG or NPY file; its content decides, not its name.
    pixel_spacing : sequence of float, optional
        Row and column spacing in mm: needed for PNG and NPY, and used for a DICOM file in place of what it
        states.
    imager_spacing : bool
        Use a DICOM file's ImagerPixelSpacing where it holds no better one. It is measured at the detector, where
        the image is magnified, so that lengths come out too large.

    Returns
    -------
    Scan

    Raises
    ------
    Refusal
        Where the content is not a readable whole-body DXA image.
    InputUnavailable
        Where the file is missing, or cannot be opened or read now.
    UsageError
        Where `pixel_spacing` is not two plausible numbers.
    """
    file = Path(path)
    source = printable(file.name)
    content = _read_bytes(file, source)
    return scan_from_bytes(
        content, source, pixel_spacing=pixel_spacing, imager_spacing=imager_spacing, path=os.fspath(path)
    )


def scan_from_bytes(
    data: bytes,
    source: str,
    *,
    pixel_spacing: Sequence[float] | None = None,
    imager_spacing: bool = False,
    path: str = "",
) -> Scan:
    """Read one DXA image from the bytes of its file, as `read_scan` does.

    Parameters
    ----------
    data : bytes
        The whole content of a DICOM, PNG or NPY file.
    source : str
        Name for messages and results: a file name, never patient data.
    pixel_spacing, imager_spacing
        As in `read_scan`.
    path : str
        For `Scan.path`; bytes of a name that are not UTF-8 are written as escapes.
    """
    file = ImageFile(data, source, check_given_spacing(pixel_spacing), imager_spacing)
    with named_refusals(source):
        _check_file_size(data)
        kind = kind_of(data)
        if kind is ImageKind.DICOM:
            from edge_spine.reading.dicom import scan_from_dicom

            scan = scan_from_dicom(file)
        elif kind is ImageKind.PNG or kind is ImageKind.NPY:
            from edge_spine.reading.plain import scan_from_npy, scan_from_png

            scan = scan_from_png(file) if kind is ImageKind.PNG else scan_from_npy(file)
        else:
            found = "a zip archive" if kind is ImageKind.ZIP else "not a DICOM, PNG or NPY file"
            raise Refusal("unreadable", f"this is {found}; {ACCEPTED_FILES}")
    return replace(scan, path=storable(path), sha256=hashlib.sha256(data).hexdigest())


def check_header(data: bytes) -> None:
    """Refuse the bytes of a DICOM file by its header, as `scan_from_bytes` does, without reading its pixels."""
    from edge_spine.reading.dicom import check_dicom_header

    _check_file_size(data)
    check_dicom_header(ImageFile(data))


def _check_file_size(data: bytes) -> None:
    if not data:
        raise Refusal("unreadable", f"the file is empty; {ACCEPTED_FILES}")
    if len(data) > MAX_FILE_BYTES:
        raise Refusal("too-large", f"the file is larger than {MAX_FILE_BYTES >> 20} MiB, the most accepted")


def _read_bytes(file: Path, source: str) -> bytes:
    try:
        # a pipe or a device could block or never end
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InputUnavailable(f"{source}: this is not a file; {ACCEPTED_FILES}")
        with file.open("rb") as stream:
            # reading up to the limit would allocate the limit for each scan
            return stream.read(min(found.st_size, MAX_FILE_BYTES) + 1)
    except FileNotFoundError:
        raise InputUnavailable(f"{source}: there is no such file; {ACCEPTED_FILES}") from None
    except (OSError, ValueError, MemoryError) as error:
        what = (isinstance(error, OSError) and error.strerror) or type(error).__name__
        raise InputUnavailable(f"{source}: the file cannot be read now ({what})") from None
