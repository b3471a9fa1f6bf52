"""The same pixels in every transfer syntax, lookup tables and windows, and a decoder that may crash."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from edge_spine.errors import Refusal
from edge_spine.reading import checks, read_scan, syntaxes
from edge_spine.reading.decoder_process import decoder
from edge_spine.reading.read import check_header, scan_from_bytes
from edge_spine.scan import Scan
from tests.edge_spine.refusing import refused

MakeDicom = Callable[..., bytes]
# Files of pydicom and pydicom-data whose pixels are the same; the first of each is uncompressed.
SAME_PIXELS = [
    ["693_UNCI.dcm", "693_J2KI.dcm"],
    ["JPEG2000_UNC.dcm", "JPEG2000.dcm"],
    ["MR2_UNCI.dcm", "MR2_J2KI.dcm"],
    ["MR2_UNCR.dcm", "MR2_J2KR.dcm"],
    ["RG1_UNCI.dcm", "RG1_J2KI.dcm"],
    ["RG1_UNCR.dcm", "RG1_J2KR.dcm"],
    ["RG3_UNCI.dcm", "RG3_J2KI.dcm"],
    ["RG3_UNCR.dcm", "RG3_J2KR.dcm"],
    ["OBXXXX1A.dcm", "OBXXXX1A_expb.dcm", "OBXXXX1A_rle.dcm"],
    ["gdcm-US-ALOKA-16.dcm", "gdcm-US-ALOKA-16_big.dcm"],
    ["SC_rgb.dcm", "SC_rgb_expb.dcm", "SC_rgb_rle.dcm", "SC_rgb_gdcm_KY.dcm", "SC_rgb_jpeg_gdcm.dcm"],
    ["SC_rgb_16bit.dcm", "SC_rgb_expb_16bit.dcm", "SC_rgb_rle_16bit.dcm"],
    ["US1_UNCR.dcm", "US1_J2KR.dcm"],
    ["US1_UNCI.dcm", "US1_J2KI.dcm"],
    [
        *("MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm"),
        *("MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"),
    ],
]


def as_body(name: str) -> bytes:
    """Return a test file with a header that says whole-body DXA; its pixels stay as they are."""
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"{name} needs the package pydicom-data")
    dataset = pydicom.dcmread(str(path))
    for keyword in ("ProtocolName", "SeriesDescription", "BodyPartExamined", "PatientOrientation", "NumberOfFrames"):
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.Modality, dataset.Manufacturer = "OT", "HOLOGIC, Inc."
    dataset.PixelSpacing = [min(1900 / dataset.Rows, 20)] * 2
    return saved(dataset)


def saved(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def compressed(data: bytes, syntax: str) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.compress(syntax, generate_instance_uid=False)
    return saved(dataset)


@pytest.fixture(autouse=True)
def small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small and wide test images through: their pixels are what counts here."""
    monkeypatch.setattr(checks, "MIN_ROWS", 1)
    monkeypatch.setattr(checks, "MIN_COLUMNS", 1)


@pytest.mark.parametrize("names", SAME_PIXELS, ids=lambda names: names[0])
def test_the_same_pixels_in_other_syntaxes_give_the_same_bytes(names: list[str]) -> None:
    first, *others = names
    expected = scan_from_bytes(as_body(first), first)
    for name in others:
        if name == "SC_rgb_jpeg_gdcm.dcm":
            pytest.importorskip("gdcm", reason="pip install '.[codecs]'")
        found = scan_from_bytes(as_body(name), name)
        np.testing.assert_array_equal(found.pixels, expected.pixels, err_msg=name)
        assert found.flags == expected.flags


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("which", ["bundled", "real"])
def test_a_whole_body_scan_in_every_default_syntax(syntax: str, which: str, request: pytest.FixtureRequest) -> None:
    bundled = Path(str(files("edge_spine") / "data" / "synthetic_whole_body.dcm"))
    path = bundled if which == "bundled" else request.getfixturevalue("real_bone")
    data = path.read_bytes()
    packed = compressed(data, syntax)
    assert len(packed) < len(data)
    np.testing.assert_array_equal(scan_from_bytes(packed, "x").pixels, scan_from_bytes(data, "x").pixels)


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


def test_reading_uncompressed_starts_no_process(real_bone: Path) -> None:
    program = (
        "from edge_spine.reading import read_scan; from edge_spine.reading.decoder_process import decoder\n"
        f"read_scan({str(real_bone)!r}); print(decoder.pid)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None"]


def test_no_frame_is_decoded_in_this_process(make_dicom: MakeDicom, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_arguments: Any, **_options: Any) -> bytes:
        raise AssertionError("decoded here")

    data = make_dicom()
    packed = [compressed(data, syntax) for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless)]
    # pydicom imports every decoder that is installed; what counts is that none of them sees a frame.
    monkeypatch.setattr(pydicom.pixels.decoders.base.DecodeRunner, "decode", never)
    for content in packed:
        np.testing.assert_array_equal(scan_from_bytes(content, "x").pixels, scan_from_bytes(data, "x").pixels)


def test_imager_spacing_only_where_the_user_asks(make_dicom: MakeDicom) -> None:
    data = make_dicom(ExposedArea=None, ImagerPixelSpacing=[4, 3])
    refused(data, "no-spacing")
    scan = scan_from_bytes(data, "file.dcm", imager_spacing=True)
    assert scan.pixel_spacing_mm == (4, 3) and "imager-pixel-spacing" in scan.flags
    given = scan_from_bytes(data, "file.dcm", imager_spacing=True, pixel_spacing=(2, 2))
    assert given.pixel_spacing_mm == (4, 3)
    better = make_dicom(ImagerPixelSpacing=[3, 3])
    assert scan_from_bytes(better, "file.dcm", imager_spacing=True).pixel_spacing_mm == (4, 4)


@pytest.mark.parametrize("modality", ["BMD", "OT"])
def test_a_hologic_secondary_capture(make_dicom: MakeDicom, modality: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 4096, (150, 318)).astype(np.uint16)
    data = make_dicom(
        pixels,
        SOPClassUID=SecondaryCaptureImageStorage,
        Manufacturer="HOLOGIC, Inc.",
        ManufacturerModelName="Horizon A",
        Modality=modality,
        ExposedArea=None,
        PixelSpacing=[13.03, 2.05],
        BitsStored=12,
        HighBit=11,
        ProtocolName=None,
        SeriesDescription="Whole Body",
    )
    scan = scan_from_bytes(data, "file.dcm")
    assert scan.pixel_spacing_mm == (13.03, 2.05)
    np.testing.assert_array_equal(scan.pixels, pixels.astype(np.float32))


@pytest.mark.parametrize("keyword", ["Manufacturer", "ManufacturerModelName"])
def test_our_own_results_are_no_scans(make_dicom: MakeDicom, keyword: str) -> None:
    assert "result of edge-spine" in refused(make_dicom(**{keyword: "Edge-Spine"}), "not-dxa")


def test_the_header_alone_is_judged_without_its_pixels(make_dicom: MakeDicom) -> None:
    whole = make_dicom()
    check_header(whole[: len(whole) // 2])
    for content, code in (
        (b"", "unreadable"),
        (whole[:200], "unsupported-syntax"),
        (make_dicom(Modality="US"), "not-dxa"),
    ):
        with pytest.raises(Refusal) as caught:
            check_header(content)
        assert caught.value.code == code


def test_a_frame_that_says_another_size_never_reaches_the_decoder(
    make_dicom: MakeDicom, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_arguments: Any, **_options: Any) -> bytes:
        raise AssertionError("decoded")

    monkeypatch.setattr(decoder, "decode", never)
    small = np.random.default_rng(5).integers(0, 256, (480, 160)).astype(np.uint8)
    for syntax in (JPEGLSLossless, JPEG2000Lossless):
        dataset = pydicom.dcmread(io.BytesIO(compressed(make_dicom(small), syntax)))
        dataset.Rows, dataset.PixelSpacing = 470, [4, 4]
        assert "480 x 160" in refused(saved(dataset), "unreadable")
        dataset.Rows = 480
        dataset.PixelData = encapsulate([b"\xff\xd8" if syntax == JPEGLSLossless else b"\xff\x4f\xff\x51"])
        dataset["PixelData"].is_undefined_length = True
        refused(saved(dataset), "unreadable")


def test_several_fragments_are_one_frame(make_dicom: MakeDicom) -> None:
    pixels = np.random.default_rng(6).integers(0, 256, (480, 160)).astype(np.uint8)
    dataset = pydicom.dcmread(io.BytesIO(compressed(make_dicom(pixels), JPEGLSLossless)))
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame], fragments_per_frame=3)
    dataset["PixelData"].is_undefined_length = True
    scan = scan_from_bytes(saved(dataset), "file.dcm")
    assert isinstance(scan, Scan)
    np.testing.assert_array_equal(scan.pixels, pixels.astype(np.float32))
