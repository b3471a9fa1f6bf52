"""Read a DICOM header with limits on its size, against damaged or hostile files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import Tag

from edge_spine.errors import Refusal
from edge_spine.reading.kinds import PREAMBLE

_PIXEL_DATA = Tag("PixelData")
# a scanner's header takes some hundred reads; each can allocate a kilobyte for eight bytes of the file
_MAX_READS = 50_000
# pydicom splits values of these into lists of objects, many times the size of the text
_LISTS = "AE AS AT CS DA DS DT FD FL IS LO PN SH SL SS SV TM UC UI UL US UV"
_MAX_LIST_BYTES = 64 * 2**10
_ELEMENT_HEAD_BYTES = 8
_CHARACTER_SET_TAGS = (b"\x08\x00\x05\x00", b"\x00\x08\x00\x05")
_MAX_CHARACTER_SET_BYTES = 1024


class DicomStream(io.BytesIO):
    """Bytes of a DICOM file with a limit on the number of reads."""

    _reads = 0
    _in_character_set = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as `io.BytesIO`; raise ValueError after too many reads."""
        self._reads += 1
        if self._reads > _MAX_READS:
            raise ValueError("too many elements")
        content = super().read(size)
        # pydicom interprets this element while it reads, so that its length is checked here
        if size == _ELEMENT_HEAD_BYTES:
            self._in_character_set = content.startswith(_CHARACTER_SET_TAGS)
        elif self._in_character_set and len(content) > _MAX_CHARACTER_SET_BYTES:
            raise ValueError("SpecificCharacterSet")
        return content


def transfer_syntax(data: bytes) -> str | None:
    """Return a DICOM file's transfer syntax: "" where its meta information names none, None where it has none."""
    stream = DicomStream(data)
    stream.seek(len(PREAMBLE))
    meta = read_dataset(
        stream, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, _vr, _length: tag.group != 2
    )
    return str(meta.get("TransferSyntaxUID") or "") if meta else None


def read_header(stream: DicomStream) -> Dataset:
    """Read everything before the pixel data, and leave the stream there.

    Refuse as 'unreadable' an attribute that is larger than in any scanner's file; on damaged files pydicom raises any
    type of exception.
    """
    header = pydicom.dcmread(stream, stop_before_pixels=True)
    # these are as read: iterating over the header itself would interpret them
    for element in header.values():
        if isinstance(element, RawDataElement) and element.length > _MAX_LIST_BYTES and _is_list(element):
            raise Refusal(
                "unreadable",
                f"attribute {element.tag} takes {element.length} bytes; at most {_MAX_LIST_BYTES} are accepted",
            )
    return header


def read_pixel_data(stream: DicomStream, header: Dataset) -> RawDataElement | None:
    """Return the element PixelData, not interpreted; None where the file holds none, or is cut short before it."""
    is_implicit, is_little_endian = header.original_encoding
    rest = read_dataset(
        stream, bool(is_implicit), bool(is_little_endian), stop_when=lambda tag, _vr, _length: tag > _PIXEL_DATA
    )
    element: Any = rest.get_item(_PIXEL_DATA) if _PIXEL_DATA in rest else None
    return element if isinstance(element, RawDataElement) else None


def raw_value(item: Dataset, keyword: str, most_bytes: int) -> Any:
    """Return an attribute's value, or None where it is absent.

    Raise ValueError where it takes more than `most_bytes`; it is not interpreted then.
    """
    element: RawDataElement | DataElement | None = item.get_item(keyword) if keyword in item else None
    if isinstance(element, RawDataElement) and element.length > most_bytes:
        raise ValueError(f"{keyword} of {element.length} bytes")
    return item.get(keyword)


def _is_list(element: RawDataElement) -> bool:
    vr = element.VR
    if vr is None:
        try:
            vr = dictionary_VR(element.tag)
        except KeyError:
            return False
    return vr in _LISTS.split()


def numbers(value: Any) -> list[float]:
    """Return an attribute's value as a list of floats, empty where it is absent or not of numbers."""
    if value is None:
        return []
    several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    try:
        return [float(item) for item in (value if several else [value])]
    except (TypeError, ValueError):
        return []
