"""The content of an image file, and its kind by its first bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

# enough to know each kind, and what edge-spine wrote
HEAD_BYTES = 1024
_PREFIX = b"DICM"
PREAMBLE = bytes(128) + _PREFIX
# DICOM without a preamble: begins with group 2 or 8 and has a SOP Class UID, of the standard or of a vendor such as GE
_BARE_DICOM = re.compile(
    rb"(?:DICM)?(?:(?=[\x02\x08]\0.\0).*?(?:\x02\0\x02\0UI..|\x08\0\x16\0(?:UI..|..\0\0))|(?=\0\x08\0).*?\0\x08\0\x16UI..)"
    rb"1\.2\.840\.1",
    re.DOTALL,
)

# What pictures of edge-spine hold after their header: keyword and text of a tEXt chunk.
OWN_PNG = b"tEXtSoftware\0edge-spine"
# ImplementationVersionName in the meta information of its DICOM files
_OWN_DICOM = re.compile(rb"\x02\x00\x13\x00SH..EDGE-SPINE ", re.DOTALL)


class ImageKind(str, Enum):
    """Kinds of input."""

    DICOM = "dicom"
    PNG = "png"
    NPY = "npy"
    ZIP = "zip"


def kind_of(head: bytes) -> ImageKind | None:
    """Return the kind of a file from its first `HEAD_BYTES` bytes (or more), None where it is unknown."""
    if head[128:132] == _PREFIX or _BARE_DICOM.match(head[:HEAD_BYTES]):
        return ImageKind.DICOM
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return ImageKind.PNG
    if head.startswith(b"\x93NUMPY"):
        return ImageKind.NPY
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return ImageKind.ZIP
    return None


def with_preamble(data: bytes) -> bytes:
    """Return a DICOM file with the preamble that some writers leave out, with or without the prefix."""
    return data if data[128:132] == _PREFIX else PREAMBLE + data.removeprefix(_PREFIX)


def is_own(head: bytes) -> bool:
    """Return whether edge-spine wrote a file, from its first `HEAD_BYTES` bytes."""
    return OWN_PNG in head or _OWN_DICOM.search(head) is not None


@dataclass(frozen=True)
class ImageFile:
    """One file of an image in memory, and what the caller says about it.

    `source` names it in messages and results: a file name, never patient data. `given_spacing`, row and column in mm,
    is checked, and used in place of what the file states; with `imager_spacing` a DICOM file's ImagerPixelSpacing is
    used where it holds no better one.
    """

    data: bytes
    source: str = ""
    given_spacing: tuple[float, float] | None = None
    imager_spacing: bool = False
