"""What a header of a small hostile file may cost."""

from __future__ import annotations

import struct
import time
import tracemalloc

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from edge_spine.reading.read import scan_from_bytes
from tests.edge_spine.reading.samples import MakeDicom
from tests.edge_spine.refusing import refused

MIB = 2**20


PIXEL_DATA = struct.pack("<HH", 0x7FE0, 0x0010)


EMPTY_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)


END_OF_SEQUENCE = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def before_pixels(data: bytes, content: bytes) -> bytes:
    place = data.rindex(PIXEL_DATA)
    return data[:place] + content + data[place:]


def implicit(group: int, element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", group, element, len(value)) + value


@pytest.mark.parametrize(
    ("syntax", "content"),
    [
        pytest.param(
            ExplicitVRLittleEndian,
            struct.pack("<HH2sHI", 0x7001, 0x1010, b"SQ", 0, 0xFFFFFFFF) + EMPTY_ITEM * 500_000 + END_OF_SEQUENCE,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ImplicitVRLittleEndian,
            b"".join(struct.pack("<HHI", 0x7001 + 2 * (n >> 16), n & 0xFFFF, 0) for n in range(500_000)),
            marks=pytest.mark.slow,
        ),
        (ImplicitVRLittleEndian, implicit(0x0028, 0x0030, b"1\\" * 2_000_000)),
        (ImplicitVRLittleEndian, implicit(0x0008, 0x0005, b"XXX\\" * 1_000_000)),
    ],
    ids=["items", "elements", "list of numbers", "character sets"],
)
def test_a_header_of_very_many_pieces(make_dicom: MakeDicom, syntax: str, content: bytes) -> None:
    hostile = before_pixels(make_dicom(syntax=syntax), content)
    # processor time: another program must not decide
    started = time.process_time()
    tracemalloc.start()
    refused(hostile, "unreadable")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * MIB
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "content",
    [
        EMPTY_ITEM * 1_000_000,
        struct.pack("<HHI", 0xFFFE, 0xE000, 400_000) + implicit(0x0028, 0x3006, bytes(399_992)),
        struct.pack("<HHI", 0xFFFE, 0xE000, 60_008) + implicit(0x0028, 0x3002, b"\1\0" * 30_000),
    ],
    ids=["items", "data", "descriptor"],
)
def test_a_hostile_voi_lut_is_ignored_unread(make_dicom: MakeDicom, content: bytes) -> None:
    pixels = np.arange(480 * 160, dtype=np.uint32).reshape(480, 160).astype(np.uint8)
    hostile = before_pixels(make_dicom(pixels, syntax=ImplicitVRLittleEndian), implicit(0x0028, 0x3010, content))
    tracemalloc.start()
    scan = scan_from_bytes(hostile, "file.dcm")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(scan.pixels, pixels)
    assert scan.flags == ("window-ignored",)
    assert peak < len(content) + 8 * MIB
