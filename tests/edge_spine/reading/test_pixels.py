"""Stored DICOM pixels become densities."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from edge_spine.reading.read import scan_from_bytes
from edge_spine.scan import Scan
from tests.edge_spine.reading.samples import BODY, MakeDicom, edited, enlarge, pydicom_file
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
    assert isinstance(scan_from_bytes(make_dicom(NumberOfFrames=1), "file.dcm"), Scan)
