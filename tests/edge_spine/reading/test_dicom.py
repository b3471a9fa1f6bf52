from __future__ import annotations

import hashlib
import logging
import random
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from edge_spine.errors import REFUSAL_CODES, Refusal
from edge_spine.reading.read import scan_from_bytes
from edge_spine.scan import Scan
from tests.edge_spine.reading.samples import BODY, UNCOMPRESSED, MakeDicom, bare, edited
from tests.edge_spine.refusing import refused


@pytest.mark.hazard("spacing-missing")
def test_pixel_spacing_comes_before_exposed_area(make_dicom: MakeDicom) -> None:
    scan = scan_from_bytes(make_dicom(PixelSpacing=[3.95, 4.05]), "file.dcm")
    assert scan.pixel_spacing_mm == (3.95, 4.05)
    assert scan.flags == ()


def test_exposed_area_is_width_then_height(make_dicom: MakeDicom) -> None:
    scan = scan_from_bytes(make_dicom(BODY, ExposedArea=[640, 1440]), "file.dcm")
    assert scan.pixel_spacing_mm == (3.0, 4.0)


@pytest.mark.hazard("spacing-missing")
def test_the_callers_spacing_helps_a_file_without(make_dicom: MakeDicom) -> None:
    data = make_dicom(ExposedArea=None)
    message = refused(data, "no-spacing")
    assert "--pixel-spacing" in message
    scan = scan_from_bytes(data, "file.dcm", pixel_spacing=(4, 4.5))
    assert scan.pixel_spacing_mm == (4.0, 4.5)
    assert scan.flags == ("pixel-spacing-given",)


@pytest.mark.hazard("spacing-missing")
def test_imager_pixel_spacing_is_not_used(make_dicom: MakeDicom) -> None:
    refused(make_dicom(ExposedArea=None, ImagerPixelSpacing=[4, 4]), "no-spacing")


def test_exposed_area_of_other_makers_is_not_used(make_dicom: MakeDicom) -> None:
    refused(make_dicom(Manufacturer="HOLOGIC, Inc.", ManufacturerModelName="Horizon", Modality="OT"), "no-spacing")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_a_header_that_claims_more_pixels_than_there_are_allocates_nothing(make_dicom: MakeDicom, syntax: str) -> None:
    data = make_dicom(BODY, syntax=syntax)

    def claim(dataset: Dataset) -> None:
        dataset.Rows, dataset.Columns, dataset.ExposedArea = 5000, 5000, [1000, 1000]

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
    refused(make_dicom(RescaleSlope="1e300"), "unreadable")


def test_a_file_without_pixels(make_dicom: MakeDicom) -> None:
    def strip(dataset: Dataset) -> None:
        del dataset.PixelData

    refused(edited(make_dicom(), strip), "unreadable")


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


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, RLELossless])
def test_a_file_without_preamble_or_meta_information_is_read(make_dicom: MakeDicom, syntax: str) -> None:
    pixels = np.arange(480 * 160, dtype=np.uint16).reshape(480, 160)
    data = make_dicom(pixels, syntax=syntax)
    with_meta, without = bare(data, meta=True), bare(data, meta=False)
    for content in (with_meta, b"DICM" + with_meta):
        scan = scan_from_bytes(content, "file.dcm")
        np.testing.assert_array_equal(scan.pixels, pixels)
        assert scan.sha256 == hashlib.sha256(content).hexdigest()
    if syntax == RLELossless:
        # nothing says how the pixels are compressed
        refused(without, "unreadable")
        return
    for content in (without, b"DICM" + without, data[:132] + without):
        scan = scan_from_bytes(content, "file.dcm")
        np.testing.assert_array_equal(scan.pixels, pixels)
        assert scan.sop_instance_uid == scan_from_bytes(data, "file.dcm").sop_instance_uid
