"""The content of an image file, and its kind by its first bytes."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import Enum

# enough to know each kind, and what edge-spine wrote
HEAD_BYTES = 1024
# where DICOM's signature after its preamble ends
PREAMBLE_BYTES = 132
# attributes at the start of every DICOM object whose value is a UID, and what one looks like
_UID_TAGS = frozenset({(0x0002, 0x0002), (0x0002, 0x0010), (0x0008, 0x0016), (0x0008, 0x0018)})
_UID = re.compile(rb"[0-2](\.[0-9]+){3,}[\0 ]?")
_LONG_VRS = (b"OB", b"SQ", b"UC", b"UN", b"UT")

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
    if has_preamble(head) or _is_bare_dicom(head):
        return ImageKind.DICOM
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return ImageKind.PNG
    if head.startswith(b"\x93NUMPY"):
        return ImageKind.NPY
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return ImageKind.ZIP
    return None


def has_preamble(head: bytes) -> bool:
    """Return whether a DICOM file begins with a preamble."""
    return head[PREAMBLE_BYTES - 4 : PREAMBLE_BYTES] == b"DICM"


def _is_bare_dicom(head: bytes) -> bool:
    """Return whether a file is DICOM without a preamble: attributes in their order, up to the UID of its class."""
    order = ">" if head.startswith(b"\0") else "<"
    position, last = 0, (0, 0)
    while position + 12 <= len(head):
        tag = struct.unpack_from(f"{order}HH", head, position)
        vr = head[position + 4 : position + 6]
        if tag[0] not in (0x0002, 0x0008) or (position and tag <= last):
            return False
        place, kind = (8, "I") if vr in _LONG_VRS else (6, "H") if vr.isalpha() and vr.isupper() else (4, "I")
        start = position + place + struct.calcsize(kind)
        end = start + struct.unpack_from(f"{order}{kind}", head, position + place)[0]
        if tag in _UID_TAGS:
            return _UID.fullmatch(head[start:end]) is not None
        position, last = end, tag
    return False


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
