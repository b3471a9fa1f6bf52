"""Recognise the kind of a file by its first bytes."""

from __future__ import annotations

from enum import Enum

HEAD_BYTES = 132  # where the longest signature, DICOM's after its preamble, ends


class ImageKind(str, Enum):
    """Kinds of input."""

    DICOM = "dicom"
    PNG = "png"
    NPY = "npy"
    ZIP = "zip"


def kind_of(head: bytes) -> ImageKind | None:
    """Return the kind of a file from its first `HEAD_BYTES` bytes (or more), None where it is unknown."""
    if head[128:HEAD_BYTES] == b"DICM":
        return ImageKind.DICOM
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return ImageKind.PNG
    if head.startswith(b"\x93NUMPY"):
        return ImageKind.NPY
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return ImageKind.ZIP
    return None
