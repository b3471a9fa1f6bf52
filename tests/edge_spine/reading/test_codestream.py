"""Headers of compressed frames, which say what a decoder would allocate."""

from __future__ import annotations

import io
import struct

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from edge_spine.reading.codestream import JPEG_LS_FRAME, Codestream, read_jpeg, read_jpeg_2000
from tests.edge_spine.reading.samples import MakeDicom, compressed


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_a_codestream_tells_its_size(make_dicom: MakeDicom, syntax: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 4096, (480, 160)).astype(np.uint16)
    data = compressed(make_dicom(pixels, BitsStored=12, HighBit=11), syntax)
    frame = pydicom.encaps.get_frame(pydicom.dcmread(io.BytesIO(data)).PixelData, 0, number_of_frames=1)
    read = read_jpeg_2000 if syntax == JPEG2000Lossless else lambda stream: read_jpeg(stream, JPEG_LS_FRAME)
    assert read(frame) == Codestream(480, 160, 1, 12)
    for length in range(12):
        with pytest.raises(ValueError):
            read(frame[:length])


def test_a_jpeg_2000_of_very_many_tiles_is_not_decoded() -> None:
    siz = struct.pack(">HHHHIIIIIIIIH", 0xFF4F, 0xFF51, 41, 0, 160, 480, 0, 0, 1, 1, 0, 0, 1) + b"\7\1\1"
    with pytest.raises(ValueError, match="tiles"):
        read_jpeg_2000(siz)


def test_another_jpeg_process_is_not_decoded() -> None:
    baseline = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, 480, 160, 1) + b"\1\x11\0"
    with pytest.raises(ValueError, match="frame header"):
        read_jpeg(baseline, JPEG_LS_FRAME)
