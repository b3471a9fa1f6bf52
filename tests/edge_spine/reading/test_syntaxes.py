"""Transfer syntaxes that are read, and those that are not."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from tests.edge_spine.reading.samples import MakeDicom, edited, pydicom_file
from tests.edge_spine.refusing import refused


def test_real_deflated_file() -> None:
    assert "Deflated" in refused(pydicom_file("image_dfl.dcm"), "unsupported-syntax")


def test_a_compressed_syntax_that_is_not_read() -> None:
    message = refused(pydicom_file("SC_rgb_jpeg_dcmtk.dcm"), "unsupported-syntax")
    assert "JPEG Baseline" in message
    assert "JPEG 2000 and JPEG Lossless are accepted" in message


def test_a_deflate_bomb_is_refused_before_it_is_inflated(make_dicom: MakeDicom) -> None:
    data = make_dicom()
    head = edited(data, lambda dataset: setattr(dataset.file_meta, "TransferSyntaxUID", ExplicitVRLittleEndian))
    start = 144 + struct.unpack("<I", head[140:144])[0]
    meta = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True).file_meta
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    stream = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(stream, meta)
    squeezer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    body = squeezer.compress(head[start:]) + b"".join(squeezer.compress(bytes(2**20)) for _ in range(128))
    bomb = bytes(128) + b"DICM" + stream.getvalue() + body + squeezer.flush()
    tracemalloc.start()
    refused(bomb, "unsupported-syntax")
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("syntax", ["1.2.3.4", "", "not a uid"])
def test_unknown_syntax(make_dicom: MakeDicom, syntax: str) -> None:
    data = make_dicom()
    old = str(ExplicitVRLittleEndian).encode()
    new = syntax.encode().ljust(len(old), b"\0")
    assert "unknown or missing" in refused(data.replace(old + b"\0", new + b"\0", 1), "unsupported-syntax")


def test_real_file_without_a_syntax() -> None:
    refused(pydicom_file("meta_missing_tsyntax.dcm"), "unsupported-syntax")


def test_compressed_syntaxes_are_judged_after_the_modality(make_dicom: MakeDicom) -> None:
    def relabel(dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        dataset.PixelData = encapsulate([b"\xff\x4f"])
        dataset["PixelData"].is_undefined_length = True

    refused(edited(make_dicom(), relabel), "unsupported-syntax")
    refused(edited(make_dicom(Modality="CT"), relabel), "not-dxa")
