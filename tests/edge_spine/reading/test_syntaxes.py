"""Transfer syntaxes that are read, and those that are not."""

from __future__ import annotations

import io
import struct
import subprocess
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from edge_spine.reading import read_scan, syntaxes
from edge_spine.reading.read import scan_from_bytes
from tests.edge_spine.reading.samples import MakeDicom, compressed, edited, pydicom_file, saved
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


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16"])
def test_gdcm_reads_jpeg_ls_where_the_other_decoder_is_missing(
    make_dicom: MakeDicom, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    pytest.importorskip("gdcm", reason="pip install '.[codecs]'")
    info = np.iinfo(kind)
    pixels = np.random.default_rng(1).integers(info.min, info.max + 1, (480, 160)).astype(kind)
    data = compressed(make_dicom(pixels), JPEGLSLossless)
    monkeypatch.setattr(syntaxes, "find_spec", lambda name: None if name == "jpeg_ls" else True)
    syntaxes.plugin_for.cache_clear()
    try:
        assert syntaxes.plugin_for(JPEGLSLossless) == "gdcm"
        np.testing.assert_array_equal(scan_from_bytes(data, "file.dcm").pixels, pixels)
    finally:
        monkeypatch.undo()
        syntaxes.plugin_for.cache_clear()


@pytest.mark.parametrize(("option", "syntax"), [("+e1", JPEGLosslessSV1), ("+el", JPEGLossless)])
@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_jpeg_lossless_from_another_encoder(
    make_dicom: MakeDicom, tmp_path: Path, option: str, syntax: str, kind: str
) -> None:
    pytest.importorskip("gdcm", reason="pip install '.[codecs]'")
    if not Path("/usr/bin/dcmcjpeg").exists():
        pytest.skip("DCMTK's dcmcjpeg is not installed (Debian: dcmtk)")
    pixels = np.random.default_rng(3).integers(0, np.iinfo(kind).max, (480, 160)).astype(kind)
    plain, packed = tmp_path / "plain.dcm", tmp_path / "packed.dcm"
    plain.write_bytes(make_dicom(pixels))
    subprocess.run(["/usr/bin/dcmcjpeg", option, str(plain), str(packed)], check=True)
    assert pydicom.dcmread(packed).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read_scan(packed).pixels, pixels.astype(np.float32))


def test_without_its_decoder_the_extra_is_named(make_dicom: MakeDicom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syntaxes, "find_spec", lambda _name: None)
    syntaxes.plugin_for.cache_clear()
    try:
        data = make_dicom(syntax=RLELossless)
        for syntax, words in ((JPEGLosslessSV1, "pip install '.[codecs]'"), (JPEG2000Lossless, "pylibjpeg-openjpeg")):
            relabelled = pydicom.dcmread(io.BytesIO(data))
            relabelled.file_meta.TransferSyntaxUID = syntax
            assert words in refused(saved(relabelled), "unsupported-syntax")
    finally:
        syntaxes.plugin_for.cache_clear()
