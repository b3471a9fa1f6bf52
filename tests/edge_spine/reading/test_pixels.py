"""Stored DICOM pixels become densities."""

from __future__ import annotations

import io
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from edge_spine.reading import checks
from edge_spine.reading.decoder_process import decoder
from edge_spine.reading.read import scan_from_bytes
from edge_spine.scan import Scan
from tests.edge_spine.reading.samples import (
    BODY,
    MakeDicom,
    as_body,
    compressed,
    edited,
    enlarge,
    pydicom_file,
    saved,
)
from tests.edge_spine.refusing import refused


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16"])
def test_accepted_syntaxes_keep_every_value(make_dicom: MakeDicom, syntax: str, kind: str) -> None:
    info = np.iinfo(kind)
    pixels = np.random.default_rng(1).integers(info.min, info.max + 1, (481, 161)).astype(kind)
    scan = scan_from_bytes(make_dicom(pixels, syntax=syntax), "file.dcm")
    np.testing.assert_array_equal(scan.pixels, pixels.astype(np.float32))


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_rle.dcm",
        "SC_rgb_rle_16bit.dcm",
        "SC_rgb_16bit.dcm",
        "SC_rgb_expb_16bit.dcm",
        "SC_rgb_expb.dcm",
        "SC_rgb.dcm",
    ],
)
def test_real_colour_secondary_capture_becomes_luminance(name: str) -> None:
    path = pydicom_file(name)
    scan = scan_from_bytes(edited(path.read_bytes(), enlarge), name)
    red, green, blue = np.moveaxis(pydicom.dcmread(path).pixel_array.astype(np.float64), 2, 0)
    np.testing.assert_allclose(scan.pixels, 0.299 * red + 0.587 * green + 0.114 * blue, rtol=1e-5)
    assert scan.flags == ("orientation-unknown",)


def test_real_ybr_secondary_capture_becomes_its_luminance() -> None:
    ybr, rgb = (
        scan_from_bytes(edited(pydicom_file(name).read_bytes(), enlarge), name)
        for name in ("SC_ybr_full_uncompressed.dcm", "SC_rgb.dcm")
    )
    np.testing.assert_allclose(ybr.pixels, rgb.pixels, atol=2)


def test_grey_colour_image_keeps_its_values(make_dicom: MakeDicom) -> None:
    scan = scan_from_bytes(make_dicom(np.repeat(BODY[..., None], 3, axis=2)), "file.dcm")
    np.testing.assert_array_equal(scan.pixels, BODY)


def test_monochrome1_is_inverted_about_the_stored_range(make_dicom: MakeDicom) -> None:
    twelve = np.linspace(0, 4095, 480 * 160).round().astype(np.uint16).reshape(480, 160)
    for pixels, top, bits in ((BODY, 255, 8), (twelve, 4095, 12)):
        data = make_dicom(top - pixels, PhotometricInterpretation="MONOCHROME1", BitsStored=bits, HighBit=bits - 1)
        np.testing.assert_array_equal(scan_from_bytes(data, "file.dcm").pixels, pixels)


def test_monochrome1_inversion_comes_after_the_rescale(make_dicom: MakeDicom) -> None:
    data = make_dicom(255 - BODY, PhotometricInterpretation="MONOCHROME1", RescaleSlope="0.5", RescaleIntercept="-10")
    np.testing.assert_allclose(scan_from_bytes(data, "file.dcm").pixels, BODY * 0.5 - 10, atol=1e-5)


def test_rescale(make_dicom: MakeDicom) -> None:
    data = make_dicom(BODY, RescaleSlope="2.5", RescaleIntercept="-100")
    np.testing.assert_allclose(scan_from_bytes(data, "file.dcm").pixels, BODY * 2.5 - 100)


@pytest.mark.parametrize("intercept", ["0", "5", None])
def test_a_slope_of_zero_is_no_rescale(make_dicom: MakeDicom, intercept: str | None) -> None:
    scan = scan_from_bytes(make_dicom(BODY, RescaleSlope="0", RescaleIntercept=intercept), "file.dcm")
    np.testing.assert_array_equal(scan.pixels, BODY)
    assert scan.flags == ("rescale-ignored",)


PADDED = np.pad(np.random.default_rng(3).integers(10, 4000, (440, 140), dtype=np.uint16), ((10, 30), (20, 0)))


@pytest.mark.parametrize(
    ("attributes", "value"),
    [
        ({}, 4095),
        ({"PhotometricInterpretation": "MONOCHROME1"}, 0),
        ({"PixelPaddingRangeLimit": 4000}, 4050),
        ({"RescaleSlope": "-1"}, 0),
    ],
)
def test_padding_around_the_picture_is_no_bone(make_dicom: MakeDicom, attributes: dict[str, Any], value: int) -> None:
    """Only padding that reaches an edge: the same value within the picture stays."""
    outside = PADDED == 0
    pixels = np.where(outside, value, PADDED)
    pixels[200:204, 60:64] = value
    stated = {"PixelPaddingValue": 4095 if "PixelPaddingRangeLimit" in attributes else value}
    plain = scan_from_bytes(make_dicom(pixels, BitsStored=12, HighBit=11, **attributes), "file.dcm").pixels
    scan = scan_from_bytes(make_dicom(pixels, BitsStored=12, HighBit=11, **stated, **attributes), "file.dcm").pixels
    np.testing.assert_array_equal(scan[~outside], plain[~outside])
    assert scan[outside].max() <= scan[~outside].min() < plain[outside].min()
    assert scan[200, 60] == plain[200, 60]


def test_padding_that_is_dark_already_stays(make_dicom: MakeDicom) -> None:
    plain, padded = make_dicom(PADDED), make_dicom(PADDED, PixelPaddingValue=0)
    for data in (padded, make_dicom(PADDED, PixelPaddingValue=[0, 1])):
        np.testing.assert_array_equal(
            scan_from_bytes(data, "file.dcm").pixels, scan_from_bytes(plain, "file.dcm").pixels
        )
    everything = np.full((480, 160), 7, np.uint16)
    assert scan_from_bytes(make_dicom(everything, PixelPaddingValue=7), "file.dcm").pixels.max() == 7


def test_modality_lut(make_dicom: MakeDicom) -> None:
    table = np.arange(256, dtype=np.uint16)[::-1] * 3

    def add(dataset: Dataset) -> None:
        item = Dataset()
        item.add_new("LUTDescriptor", "US", [256, 0, 16])
        item.add_new("LUTData", "US", table.tolist())
        item.ModalityLUTType = "US"
        dataset.ModalityLUTSequence = Sequence([item])

    scan = scan_from_bytes(edited(make_dicom(BODY), add), "file.dcm")
    np.testing.assert_array_equal(scan.pixels, table[BODY])


@pytest.mark.parametrize("kind", ["uint16", "int16"])
def test_bits_above_bits_stored_are_ignored(make_dicom: MakeDicom, kind: str) -> None:
    low = -2048 if kind == "int16" else 0
    values = np.random.default_rng(3).integers(low, low + 4096, (480, 160))
    junk = np.random.default_rng(4).integers(0, 16, (480, 160))
    stored = ((values & 0xFFF) | (junk << 12)).astype(np.uint16).view(kind)
    scan = scan_from_bytes(make_dicom(stored, BitsStored=12, HighBit=11), "file.dcm")
    np.testing.assert_array_equal(scan.pixels, values)


@pytest.mark.parametrize(
    "attributes",
    [
        {"BitsStored": 4, "HighBit": 3},
        {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31},
        {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0},
        {"HighBit": 6},
        {"PixelRepresentation": 2},
        {"PhotometricInterpretation": "RGB"},
        {"PhotometricInterpretation": None},
        {"SamplesPerPixel": 3},
    ],
)
def test_other_pixel_encodings(make_dicom: MakeDicom, attributes: dict[str, object]) -> None:
    assert "accepted" in refused(make_dicom(**attributes), "unsupported-syntax")


def test_several_frames(make_dicom: MakeDicom) -> None:
    assert "2 frames" in refused(make_dicom(NumberOfFrames=2), "not-dxa")
    refused(make_dicom(NumberOfFrames=2_000_000_000), "not-dxa")
    # 0 is wrong, and written for the one that is there
    for frames in (0, 1, ""):
        assert isinstance(scan_from_bytes(make_dicom(NumberOfFrames=frames), "file.dcm"), Scan)


def test_two_frames_in_a_file_of_one(make_dicom: MakeDicom) -> None:
    pixels = np.zeros((480, 160), np.uint8)
    dataset = pydicom.dcmread(io.BytesIO(compressed(make_dicom(pixels), JPEGLSLossless)))
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame, frame])
    dataset["PixelData"].is_undefined_length = True
    stream = io.BytesIO()
    dataset.save_as(stream)
    assert "2 frames" in refused(stream.getvalue(), "unreadable")


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


@pytest.mark.parametrize("written", ["monochrome1", "Monochrome2", "rgb ", "ybr_full", "palette color"])
def test_photometric_interpretation_in_small_letters_means_the_same(make_dicom: MakeDicom, written: str) -> None:
    grey = written.strip() not in ("rgb", "ybr_full")
    colours = {
        f"{colour}PaletteColorLookupTable{part}": value
        for colour in ("Red", "Green", "Blue")
        if written.startswith("palette")
        for part, value in (("Descriptor", [256, 0, 16]), ("Data", np.arange(256, dtype="<u2").tobytes()))
    }
    pixels = BODY if grey else np.repeat(BODY[..., np.newaxis], 3, axis=2)
    found, expected = (
        scan_from_bytes(make_dicom(pixels, PhotometricInterpretation=text, **colours), "file.dcm").pixels
        for text in (written, written.strip().upper())
    )
    np.testing.assert_array_equal(found, expected)
    assert (found[0, 0] == BODY[0, 0]) != (written == "monochrome1")
