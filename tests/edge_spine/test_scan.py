from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import random
import struct
import subprocess
import sys
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from edge_spine.errors import REFUSAL_CODES, Refusal, UsageError
from edge_spine.reading import read_scan
from edge_spine.reading.read import scan_from_bytes
from edge_spine.scan import Scan
from tests.edge_spine.refusing import refused

MakeDicom = Callable[..., bytes]

BODY = np.random.default_rng(7).integers(0, 256, (480, 160), dtype=np.uint8)


def pydicom_file(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"{name} needs the package pydicom-data")
    return Path(str(path))


def edited(data: bytes, edit: Callable[[Dataset], None]) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(data))
    edit(dataset)
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def enlarge(dataset: Dataset) -> None:
    """Give a real file of 100 rows the height of a body."""
    dataset.PixelSpacing = [10, 10]


# --- the good path


def test_real_bone_image(real_bone: Path) -> None:
    scan = read_scan(real_bone)
    raw = pydicom.dcmread(real_bone)
    assert scan.pixels.dtype == np.float32
    assert scan.pixels.shape == (791, 272)
    assert scan.pixels.flags.c_contiguous
    np.testing.assert_array_equal(scan.pixels, np.frombuffer(raw.PixelData, np.uint8).reshape(791, 272))
    assert scan.pixel_spacing_mm == pytest.approx((1920 / 791, 658 / 272))
    assert scan.pixel_spacing_mm == pytest.approx((2.427, 2.419), abs=5e-4)
    assert scan.source == "whole_body_bone.dcm"
    assert scan.sop_instance_uid == raw.SOPInstanceUID
    assert scan.flags == ()


def test_real_tissue_image_is_read_too(real_tissue: Path) -> None:
    # Telling bone from tissue needs the content, and is the next room's task.
    assert read_scan(real_tissue).pixels.shape == (791, 272)


def test_path_may_be_text(real_bone: Path) -> None:
    assert read_scan(str(real_bone)).source == real_bone.name


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


# --- spacing


def test_pixel_spacing_comes_before_exposed_area_and_the_caller(make_dicom: MakeDicom) -> None:
    data = make_dicom(PixelSpacing=[3.9, 4.1])
    scan = scan_from_bytes(data, "file.dcm", pixel_spacing=(2, 2))
    assert scan.pixel_spacing_mm == (3.9, 4.1)
    assert scan.flags == ()


def test_exposed_area_is_width_then_height(make_dicom: MakeDicom) -> None:
    scan = scan_from_bytes(make_dicom(BODY, ExposedArea=[640, 1440]), "file.dcm")
    assert scan.pixel_spacing_mm == (3.0, 4.0)


def test_the_callers_spacing_is_the_last_resort(make_dicom: MakeDicom) -> None:
    data = make_dicom(ExposedArea=None)
    message = refused(data, "no-spacing")
    assert "--pixel-spacing" in message
    scan = scan_from_bytes(data, "file.dcm", pixel_spacing=(4, 4.5))
    assert scan.pixel_spacing_mm == (4.0, 4.5)
    assert scan.flags == ("pixel-spacing-given",)


def test_imager_pixel_spacing_is_not_used(make_dicom: MakeDicom) -> None:
    refused(make_dicom(ExposedArea=None, ImagerPixelSpacing=[4, 4]), "no-spacing")


def test_exposed_area_of_other_makers_is_not_used(make_dicom: MakeDicom) -> None:
    refused(make_dicom(Manufacturer="HOLOGIC, Inc.", ManufacturerModelName="Horizon", Modality="OT"), "no-spacing")


@pytest.mark.parametrize("spacing", [["0", "0"], ["-4", "4"], ["4", "1000"], ["nan", "4"], ["4"], ["1e400", "4"]])
def test_implausible_stored_spacing(make_dicom: MakeDicom, spacing: list[str]) -> None:
    def spoil(dataset: Dataset) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.PixelSpacing = ["4", "4"]
            dataset["PixelSpacing"]._value = pydicom.multival.MultiValue(float, spacing)

    data = edited(make_dicom(ExposedArea=None), spoil)
    assert "PixelSpacing is implausible" in refused(data, "no-spacing")


def test_a_spacing_that_makes_a_giant_is_refused(make_dicom: MakeDicom) -> None:
    assert "must be wrong" in refused(make_dicom(PixelSpacing=[19, 4]), "no-spacing")


@pytest.mark.parametrize("spacing", [(0, 1), (1, float("nan")), (1, 21), (1,), (1, 2, 3), "ab", (0.04, 1), 3])
def test_a_wrong_spacing_option_is_a_usage_error(make_dicom: MakeDicom, spacing: object) -> None:
    with pytest.raises(UsageError, match="spacing"):
        scan_from_bytes(make_dicom(), "file.dcm", pixel_spacing=spacing)  # type: ignore[arg-type]


# --- orientation


@pytest.mark.parametrize(
    ("orientation", "store", "flags"),
    [
        (["L", "F"], lambda image: image, ()),
        (["R", "F"], np.fliplr, ("mirrored-put-right",)),
        (["L", "H"], np.flipud, ("mirrored-put-right",)),
        (["R", "H"], lambda image: np.rot90(image, 2), ("rotated-put-right",)),
        (["F", "L"], np.transpose, ("mirrored-put-right",)),
        (["F", "R"], lambda image: np.rot90(image, 1), ("rotated-put-right",)),
        (["H", "L"], lambda image: np.rot90(image, -1), ("rotated-put-right",)),
        (["H", "R"], lambda image: np.rot90(image.T, 2), ("mirrored-put-right",)),
        (["LA", "FP"], lambda image: image, ()),
    ],
)
def test_every_frontal_orientation_is_put_right(
    make_dicom: MakeDicom,
    orientation: list[str],
    store: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    flags: tuple[str, ...],
) -> None:
    stored = np.ascontiguousarray(store(BODY))
    swapped = stored.shape != BODY.shape
    spacing = [4.5, 4] if swapped else [4, 4.5]
    data = make_dicom(stored, PatientOrientation=orientation, PixelSpacing=spacing)
    scan = scan_from_bytes(data, "file.dcm")
    np.testing.assert_array_equal(scan.pixels, BODY)
    assert scan.pixels.flags.c_contiguous
    assert scan.pixel_spacing_mm == (4.0, 4.5)
    assert scan.flags == flags
    points = np.array([[0, 0], [159, 479], [30, 200]])
    columns, rows = scan.turn.stored_points(points, scan.pixels.shape).astype(int).T
    np.testing.assert_array_equal(stored[rows, columns], BODY[points[:, 1], points[:, 0]])


@pytest.mark.parametrize("orientation", [None, "", ["L"], ["L", "R"], ["F", "H"], ["X", "F"], ["L", "F", "F"]])
def test_unknown_orientation_is_flagged(make_dicom: MakeDicom, orientation: object) -> None:
    scan = scan_from_bytes(make_dicom(BODY, PatientOrientation=orientation), "file.dcm")
    np.testing.assert_array_equal(scan.pixels, BODY)
    assert scan.flags == ("orientation-unknown",)


def test_a_lateral_view_is_refused(make_dicom: MakeDicom) -> None:
    refused(make_dicom(PatientOrientation=["A", "F"]), "not-whole-body")


# --- what it is


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "reportsi.dcm",
        "JPEG2000.dcm",
        "rtdose.dcm",
        "waveform_ecg.dcm",
    ],
)
def test_real_files_of_other_modalities(name: str) -> None:
    assert "DXA" in refused(pydicom_file(name), "not-dxa")


@pytest.mark.parametrize("name", ["RG1_UNCR.dcm", "RG3_UNCR.dcm", "RG1_J2KR.dcm"])
def test_real_radiographs(name: str) -> None:
    assert "radiograph" in refused(pydicom_file(name), "not-dxa")


@pytest.mark.parametrize("modality", ["US", "PT", "NM", "MG", "XA", "RF", "PR", "DOC", "nonsense"])
def test_other_modalities(make_dicom: MakeDicom, modality: str) -> None:
    refused(make_dicom(Modality=modality), "not-dxa")


@pytest.mark.parametrize("modality", ["CR", "DX", "OT", "BMD", None])
def test_modalities_that_densitometers_write(make_dicom: MakeDicom, modality: str | None) -> None:
    assert isinstance(scan_from_bytes(make_dicom(Modality=modality), "file.dcm"), Scan)


@pytest.mark.parametrize(
    "protocol", ["AP Spine", "LVA", "Left Femur", "Right Femur", "Left Ortho Knee", "AP_SPINE", "Dual Hips"]
)
def test_dxa_of_another_region(make_dicom: MakeDicom, protocol: str) -> None:
    refused(make_dicom(ProtocolName=protocol), "not-whole-body")
    refused(make_dicom(ProtocolName=None, SeriesDescription=protocol), "not-whole-body")


def test_the_protocol_decides_before_the_description(make_dicom: MakeDicom) -> None:
    data = make_dicom(ProtocolName="AP Spine", SeriesDescription="Total body, spine and hip")
    refused(data, "not-whole-body")
    data = make_dicom(ProtocolName="Whole Body", SeriesDescription="spine", BodyPartExamined="HEAD")
    assert isinstance(scan_from_bytes(data, "file.dcm"), Scan)


@pytest.mark.parametrize("part", ["WHOLEBODY", "WHOLE BODY", "BODY", "", None])
def test_whole_body_parts(make_dicom: MakeDicom, part: str | None) -> None:
    assert isinstance(scan_from_bytes(make_dicom(ProtocolName=None, BodyPartExamined=part), "file.dcm"), Scan)


def test_a_body_part_of_a_densitometer_and_of_a_radiograph(make_dicom: MakeDicom) -> None:
    refused(make_dicom(ProtocolName=None, BodyPartExamined="LSPINE"), "not-whole-body")
    radiograph = {"Manufacturer": "Some X-ray", "ManufacturerModelName": None, "ProtocolName": None}
    refused(make_dicom(BodyPartExamined="CHEST", **radiograph), "not-dxa")


def test_free_text_never_reaches_a_message(make_dicom: MakeDicom) -> None:
    refused(make_dicom(ProtocolName="SECRET^NAME spine"), "not-whole-body")
    refused(make_dicom(ProtocolName=None, BodyPartExamined="SECRET^NAME\n"), "not-whole-body")


def test_an_image_of_low_height(make_dicom: MakeDicom) -> None:
    assert "896 mm" in refused(make_dicom(np.zeros((224, 160), np.uint8)), "not-whole-body")
    assert isinstance(scan_from_bytes(make_dicom(np.zeros((226, 160), np.uint8)), "file.dcm"), Scan)


# --- encodings


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


# --- sizes, against the limits and against the bytes that are there


def test_sizes(make_dicom: MakeDicom) -> None:
    refused(make_dicom(np.zeros((99, 160), np.uint8), PixelSpacing=[10, 4]), "too-small")
    refused(make_dicom(np.zeros((480, 39), np.uint8)), "too-small")
    scan = scan_from_bytes(make_dicom(np.zeros((100, 40), np.uint8), PixelSpacing=[10, 4]), "file.dcm")
    assert scan.pixels.shape == (100, 40)
    refused(make_dicom(Rows=0), "unreadable")
    refused(make_dicom(Rows=16385), "too-large")
    refused(make_dicom(Columns=16385), "too-large")
    refused(make_dicom(Rows=5001, Columns=5000), "too-large")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_a_header_that_claims_more_pixels_than_there_are_allocates_nothing(make_dicom: MakeDicom, syntax: str) -> None:
    data = make_dicom(BODY, syntax=syntax)

    def claim(dataset: Dataset) -> None:
        dataset.Rows, dataset.Columns, dataset.PixelSpacing = 5000, 5000, [0.2, 0.2]

    data = edited(data, claim)
    tracemalloc.start()
    refused(data, "unreadable")
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()


def test_an_rle_bomb_is_refused_before_it_is_unpacked(make_dicom: MakeDicom) -> None:
    def swell(dataset: Dataset) -> None:
        header = struct.pack("<16L", 1, 64, *[0] * 14)
        dataset.PixelData = encapsulate([header + b"\x81\x00" * 2_000_000])
        dataset["PixelData"].is_undefined_length = True

    data = edited(make_dicom(BODY, syntax=RLELossless), swell)
    tracemalloc.start()
    refused(data, "too-large")
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()


def test_deeply_nested_sequences(make_dicom: MakeDicom) -> None:
    data = make_dicom()
    nested = struct.pack("<HHI", 0x0008, 0x1140, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    implicit = data.replace(str(ExplicitVRLittleEndian).encode() + b"\0", b"1.2.840.10008.1.2\0\0\0", 1)
    start = 144 + struct.unpack("<I", data[140:144])[0]
    began = time.monotonic()
    refused(implicit[:start] + nested * 5000, "unreadable")
    assert time.monotonic() - began < 10


# --- hostile and damaged files: a Scan or a Refusal, nothing else and nothing printed


def test_damaged_copies_give_a_scan_or_a_refusal(make_dicom: MakeDicom, capfd: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(20158)
    pixels = BODY[::4, ::2].copy()
    seeds = [
        make_dicom(pixels, syntax=syntax, ExposedArea=[640, 1920])
        for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless)
    ]
    outcomes = {"scan": 0}
    for number in range(240):
        data = bytearray(seeds[number % len(seeds)])
        header = len(data) - pixels.size if number % 3 else len(data)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(128, header)] = rng.randrange(256)
        if number % 4 == 0:
            del data[rng.randrange(1, len(data)) :]
        if number % 7 == 0:
            position = rng.randrange(132, len(data)) if len(data) > 133 else 0
            data[position:position] = rng.randbytes(rng.randint(1, 40))
        try:
            scan = scan_from_bytes(bytes(data), "file.dcm")
        except Refusal as refusal:
            outcomes[refusal.code] = outcomes.get(refusal.code, 0) + 1
            assert refusal.code in REFUSAL_CODES
            assert "SECRET" not in refusal.message
            assert refusal.message.startswith("file.dcm: ")
            assert "\n" not in refusal.message
        else:
            outcomes["scan"] += 1
            assert np.isfinite(scan.pixels).all()
    assert outcomes["scan"] > 20, outcomes
    assert outcomes["unreadable"] > 20, outcomes
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


def test_truncated_real_copies_are_unreadable(real_bone: Path) -> None:
    data = real_bone.read_bytes()
    for length in range(1, len(data) - 2, len(data) // 40):
        with pytest.raises(Refusal) as caught:
            scan_from_bytes(data[:length], "file.dcm")
        assert caught.value.code in ("unreadable", "unsupported-syntax", "no-spacing"), (length, caught.value)
    refused(data[: len(data) * 2 // 3], "unreadable")


def test_pydicom_stays_silent_while_reading_only(
    make_dicom: MakeDicom, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_dicom()
    padded = edited(data, lambda dataset: setattr(dataset, "PixelData", dataset.PixelData + bytes(160)))
    with caplog.at_level(logging.DEBUG):
        assert isinstance(scan_from_bytes(padded, "file.dcm"), Scan)
        assert not recwarn.list
        assert not caplog.records
        logging.getLogger("pydicom").warning("after")
    assert [record.message for record in caplog.records] == ["after"]


def test_damaged_rescale(make_dicom: MakeDicom) -> None:
    refused(make_dicom(RescaleSlope="0"), "unreadable")
    refused(make_dicom(RescaleSlope="1e300"), "unreadable")


def test_a_file_without_pixels(make_dicom: MakeDicom) -> None:
    def strip(dataset: Dataset) -> None:
        del dataset.PixelData

    refused(edited(make_dicom(), strip), "unreadable")


@pytest.mark.parametrize("content", [b"", b"hello", bytes(200), b"PK\x03\x04rest", b"\x7fELF" + bytes(300)])
def test_not_an_image(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.dcm"
    path.write_bytes(content)
    refused(path, "unreadable")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.dcm", "unreadable")
    refused(tmp_path, "unreadable")
    with pytest.raises(Refusal):
        read_scan("a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")
    refused(tmp_path / "pipe.dcm", "unreadable")


def test_a_file_name_cannot_break_the_line(make_dicom: MakeDicom, tmp_path: Path) -> None:
    path = tmp_path / "a\nb\x1b[31m.dcm"
    try:
        path.write_bytes(b"x")
    except OSError:
        pytest.skip("this system allows no such file name")
    with pytest.raises(Refusal) as caught:
        read_scan(path)
    assert caught.value.message.startswith("a?b?[31m.dcm: ")
    path.write_bytes(make_dicom())
    assert read_scan(path).source == "a?b?[31m.dcm"


def test_a_refusal_survives_pickling() -> None:
    copy = pickle.loads(pickle.dumps(Refusal("no-spine", "a.dcm: no spine")))
    assert (copy.code, str(copy)) == ("no-spine", "a.dcm: no spine")
    with pytest.raises(ValueError, match="unknown refusal code"):
        Refusal("no-such-code", "x")


# --- PNG and NPY


def png(image: NDArray[np.generic]) -> bytes:
    done, encoded = cv2.imencode(".png", image)
    assert done
    return encoded.tobytes()


def npy(array: NDArray[np.generic], **options: bool) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_png(kind: str) -> None:
    image = BODY.astype(kind) * (1 if kind == "uint8" else 257)
    for stored in (image, np.repeat(image[..., None], 3, axis=2)):
        scan = scan_from_bytes(png(stored), "file.png", pixel_spacing=(4, 4.5))
        np.testing.assert_array_equal(scan.pixels, image.astype(np.float32))
        assert scan.pixels.dtype == np.float32
        assert scan.pixel_spacing_mm == (4.0, 4.5)
        assert scan.flags == ("orientation-unknown",)
        assert scan.sop_instance_uid is None


def test_png_colour_and_alpha() -> None:
    colour = np.random.default_rng(5).integers(0, 256, (480, 160, 4), dtype=np.uint8)
    scan = scan_from_bytes(png(colour), "file.png", pixel_spacing=(4, 4))
    blue, green, red, _ = np.moveaxis(colour.astype(np.float64), 2, 0)
    np.testing.assert_allclose(scan.pixels, 0.299 * red + 0.587 * green + 0.114 * blue, rtol=1e-5)


def test_png_ancillary_chunks_are_dropped_unread(capfd: pytest.CaptureFixture[str]) -> None:
    data = png(BODY)
    after_header = 8 + 25
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**24)))
    profile = chunk(b"iCCP", b"bad\0\0not zlib")
    data = data[:after_header] + profile + bomb + data[after_header:]
    np.testing.assert_array_equal(scan_from_bytes(data, "a.png", pixel_spacing=(4, 4)).pixels, BODY)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("data", [npy(BODY), png(BODY)], ids=["npy", "png"])
def test_plain_images_need_a_spacing(data: bytes) -> None:
    assert "--pixel-spacing" in refused(data, "no-spacing")
    refused(data, "not-whole-body", pixel_spacing=(1, 1))
    refused(data, "no-spacing", pixel_spacing=(19, 19))


@pytest.mark.parametrize("data", [npy(BODY), png(BODY)], ids=["npy", "png"])
def test_truncated_and_mutated_plain_images(data: bytes) -> None:
    for length in range(8, len(data) - 1, len(data) // 30):
        refused(data[:length], "unreadable", pixel_spacing=(4, 4))
    rng = random.Random(1)
    for _ in range(60):
        mutated = bytearray(data)
        mutated[rng.randrange(8, 130)] = rng.randrange(256)
        with contextlib.suppress(Refusal):
            scan_from_bytes(bytes(mutated), "file", pixel_spacing=(4, 4))


def png_header(rows: int, columns: int, bits: int = 8, colour_type: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, bits, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_png_dimensions_are_checked_before_decoding() -> None:
    refused(png_header(2**31 - 1, 2**31 - 1), "too-large", pixel_spacing=(4, 4))
    refused(png_header(0, 160), "unreadable", pixel_spacing=(4, 4))
    refused(png_header(99, 160), "too-small", pixel_spacing=(10, 4))
    refused(png_header(480, 160, bits=4), "unsupported-syntax", pixel_spacing=(4, 4))
    refused(png_header(480, 160, colour_type=3), "unsupported-syntax", pixel_spacing=(4, 4))
    refused(png_header(480, 160), "unreadable", pixel_spacing=(4, 4))


@pytest.mark.parametrize("kind", ["uint8", "int16", "<f4", ">f8", "float16"])
def test_npy(kind: str) -> None:
    array = BODY.astype(kind)
    for stored in (array, np.asfortranarray(array)):
        scan = scan_from_bytes(npy(stored), "file.npy", pixel_spacing=(4, 4))
        assert scan.pixels.dtype == np.float32
        assert scan.pixels.flags.c_contiguous
        np.testing.assert_array_equal(scan.pixels, BODY)


@pytest.mark.parametrize(
    "array",
    [
        BODY.astype(complex),
        BODY[None],
        BODY.astype(bool),
        np.full((480, 160), np.nan, np.float32),
        np.full((480, 160), 1e300),
        BODY.astype(str),
    ],
    ids=["complex", "3-d", "bool", "nan", "overflow", "text"],
)
def test_npy_that_is_no_image(array: NDArray[np.generic]) -> None:
    refused(npy(array), "unreadable", pixel_spacing=(4, 4))


def test_npy_never_unpickles(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    array = np.empty((480, 160), dtype=object)
    array[:] = None
    array[0, 0] = Trap()
    refused(npy(array, allow_pickle=True), "unreadable", pixel_spacing=(4, 4))
    assert not (tmp_path / "sprung").exists()


def test_npy_header_is_checked_before_allocation() -> None:
    def header(shape: tuple[int, int]) -> bytes:
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
        return stream.getvalue()

    refused(header((10**6, 10**6)), "too-large", pixel_spacing=(4, 4))
    refused(header((-480, 160)), "unreadable", pixel_spacing=(4, 4))
    tracemalloc.start()
    refused(header((5000, 5000)), "unreadable", pixel_spacing=(0.2, 0.2))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_importing_the_reader_loads_no_heavy_module() -> None:
    code = "import sys, edge_spine.scan, edge_spine.reading.files; print({'pydicom', 'cv2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_compressed_syntaxes_are_judged_after_the_modality(make_dicom: MakeDicom) -> None:
    def relabel(dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        dataset.PixelData = encapsulate([b"\xff\x4f"])
        dataset["PixelData"].is_undefined_length = True

    refused(edited(make_dicom(), relabel), "unsupported-syntax")
    refused(edited(make_dicom(Modality="CT"), relabel), "not-dxa")
