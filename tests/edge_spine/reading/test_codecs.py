"""The same pixels in every transfer syntax, lookup tables and windows, and a decoder that may crash."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_color_lut, apply_rescale, apply_voi_lut
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from edge_spine.errors import Refusal
from edge_spine.reading import checks, decoder_process, read_scan, syntaxes
from edge_spine.reading.decoder_process import DecoderProcess, UndecodableFrame, decoder
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
            pytest.importorskip("gdcm", reason="install edge-spine[codecs]")
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
    pytest.importorskip("gdcm", reason="install edge-spine[codecs]")
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
        for syntax, words in ((JPEGLosslessSV1, "edge-spine[codecs]"), (JPEG2000Lossless, "pylibjpeg-openjpeg")):
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


# --- lookup tables


def lut_item(first: int, bits: int, entries: list[int]) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.add_new("LUTData", "OW", np.array(entries, "<u2").tobytes())
    return item


RAMP = np.tile(np.arange(256, dtype=np.uint8), (480, 1))


def presented(data: bytes) -> NDArray[Any]:
    """What pydicom's own functions make of a file."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    shown: NDArray[Any] = apply_voi_lut(apply_rescale(dataset.pixel_array, dataset), dataset)
    return shown


@pytest.mark.parametrize(
    "attributes",
    [
        {"WindowCenter": 128, "WindowWidth": 100},
        {"WindowCenter": [100, 50], "WindowWidth": [50, 10]},
        {"WindowCenter": 60.5, "WindowWidth": 1},
        {"WindowCenter": 128, "WindowWidth": 40, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": 128, "WindowWidth": 40, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 900, "WindowWidth": 600, "RescaleSlope": 4, "RescaleIntercept": 100},
        {"VOILUTSequence": [lut_item(0, 16, [value**2 for value in range(256)])]},
        {"VOILUTSequence": [lut_item(20, 8, list(range(200, 0, -1)))]},
    ],
)
def test_windows_and_voi_tables_are_those_of_the_standard(make_dicom: MakeDicom, attributes: dict[str, Any]) -> None:
    data = make_dicom(RAMP, **attributes)
    scan = scan_from_bytes(data, "file.dcm")
    np.testing.assert_allclose(scan.pixels, presented(data), rtol=1e-6, atol=1e-3)
    assert scan.flags == () and scan.pixels.max() > scan.pixels.min()


@pytest.mark.parametrize(
    "attributes",
    [
        {"WindowCenter": 128, "WindowWidth": 0},
        {"WindowCenter": 128, "WindowWidth": -5},
        {"WindowCenter": "nan", "WindowWidth": 100},
        {"WindowCenter": 128, "WindowWidth": "1e999"},
        {"WindowCenter": 128},
        {"WindowCenter": 128, "WindowWidth": 100, "VOILUTFunction": "MAGIC"},
    ],
)
def test_a_damaged_window_is_ignored_and_flagged(make_dicom: MakeDicom, attributes: dict[str, Any]) -> None:
    scan = scan_from_bytes(make_dicom(RAMP, **attributes), "file.dcm")
    np.testing.assert_array_equal(scan.pixels, RAMP.astype(np.float32))
    assert scan.flags == ("window-ignored",)


def test_monochrome1_is_inverted_after_the_window(make_dicom: MakeDicom) -> None:
    window = {"WindowCenter": 128, "WindowWidth": 100}
    plain = scan_from_bytes(make_dicom(RAMP, **window), "file.dcm").pixels
    inverted = scan_from_bytes(make_dicom(RAMP, PhotometricInterpretation="MONOCHROME1", **window), "file.dcm").pixels
    np.testing.assert_allclose(inverted, 255 - plain, atol=1e-3)


@pytest.mark.parametrize("name", ["OBXXXX1A.dcm", "gdcm-US-ALOKA-16.dcm"])
def test_palette_colour_becomes_its_luminance(name: str) -> None:
    data = as_body(name)
    dataset = pydicom.dcmread(io.BytesIO(data))
    rgb = apply_color_lut(dataset.pixel_array, dataset).astype(np.float64)
    is_grey = (rgb == rgb[..., :1]).all(axis=-1)
    expected = np.where(is_grey, rgb[..., 0], rgb @ (0.299, 0.587, 0.114))
    np.testing.assert_allclose(scan_from_bytes(data, name).pixels, expected, rtol=1e-4, atol=0.5)


@pytest.mark.parametrize("descriptor", [[0, 0, 16], [65535, 0, 16], [256, 0, 99], None])
def test_a_hostile_palette_costs_nothing(make_dicom: MakeDicom, descriptor: list[int] | None) -> None:
    tables = {}
    for colour in ("Red", "Green", "Blue"):
        tables[f"{colour}PaletteColorLookupTableDescriptor"] = descriptor
        tables[f"{colour}PaletteColorLookupTableData"] = b"\0\1" * 16
    refused(make_dicom(RAMP, PhotometricInterpretation="PALETTE COLOR", **tables), "unreadable")


# --- spacing, makers, orientation


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
    check_header(whole[: len(whole) // 2], "file.dcm")
    for content, code in (
        (b"", "unreadable"),
        (whole[:200], "unsupported-syntax"),
        (make_dicom(Modality="US"), "not-dxa"),
    ):
        with pytest.raises(Refusal) as caught:
            check_header(content, "file.dcm")
        assert caught.value.code == code


# --- the decoder process


@pytest.fixture()
def fresh() -> Iterator[DecoderProcess]:
    process = DecoderProcess()
    yield process
    process.close()


def frame_and_options() -> tuple[bytes, dict[str, Any], NDArray[np.uint8]]:
    pixels = np.random.default_rng(2).integers(0, 9, (64, 48)).astype(np.uint8)
    dataset = Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "2.25.1"
    dataset.set_pixel_data(pixels, "MONOCHROME2", 8)
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    options = {
        "syntax": str(JPEGLSLossless),
        "plugin": "pyjpegls",
        "rows": 64,
        "columns": 48,
        "samples_per_pixel": 1,
        "bits_allocated": 8,
        "bits_stored": 8,
        "pixel_representation": 0,
        "photometric_interpretation": "MONOCHROME2",
        "planar_configuration": 0,
    }
    return frame, options, pixels


def test_a_decoder_that_is_killed_costs_one_frame(fresh: DecoderProcess) -> None:
    frame, options, pixels = frame_and_options()
    assert fresh.decode(frame, pixels.size, **options) == pixels.tobytes()
    assert fresh.pid is not None
    os.kill(fresh.pid, 9)
    # The pipe may not know it yet: at most this one frame is lost.
    try:
        found = bytes(fresh.decode(frame, pixels.size, **options))
    except UndecodableFrame:
        found = bytes(fresh.decode(frame, pixels.size, **options))
    assert found == pixels.tobytes()


def test_a_decoder_that_hangs_is_ended(fresh: DecoderProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, options, pixels = frame_and_options()
    fresh.decode(frame, pixels.size, **options)
    monkeypatch.setattr(decoder_process, "FRAME_SECONDS", 0.0)
    with pytest.raises(UndecodableFrame):
        fresh.decode(frame, pixels.size, **options)
    monkeypatch.undo()
    assert bytes(fresh.decode(frame, pixels.size, **options)) == pixels.tobytes()


def test_a_frame_of_another_size_is_not_taken(fresh: DecoderProcess) -> None:
    frame, options, pixels = frame_and_options()
    with pytest.raises(UndecodableFrame, match="another number of pixels"):
        fresh.decode(frame, pixels.size + 1, **options)
    assert bytes(fresh.decode(frame, pixels.size, **options)) == pixels.tobytes()


def test_threads_share_a_decoder(fresh: DecoderProcess) -> None:
    frame, options, pixels = frame_and_options()
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(bytes(fresh.decode(frame, pixels.size, **options))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [pixels.tobytes()] * 8


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no /proc")
def test_the_decoder_ends_with_a_killed_parent(tmp_path: Path) -> None:
    data = tmp_path / "rle.dcm"
    scan = pydicom.dcmread(str(files("edge_spine") / "data" / "synthetic_whole_body.dcm"))
    scan.compress(RLELossless, generate_instance_uid=False)
    data.write_bytes(saved(scan))
    program = (
        "import os; from edge_spine.reading import read_scan; from edge_spine.reading.decoder_process import decoder\n"
        f"read_scan({str(data)!r}); print(decoder.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    child = int(done.stdout)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]


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
