"""What a small hostile file may cost: objects in the header, memory in the decoder, time in a codec."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from edge_spine.reading import decoder_child, decoder_process, syntaxes
from edge_spine.reading.codestream import JPEG_LS_FRAME, Codestream, read_jpeg, read_jpeg_2000
from edge_spine.reading.decoder_process import DecoderProcess, UndecodableFrame, decoder
from edge_spine.reading.read import scan_from_bytes
from tests.edge_spine.refusing import refused

MakeDicom = Callable[..., bytes]

MIB = 2**20
PIXEL_DATA = struct.pack("<HH", 0x7FE0, 0x0010)
EMPTY_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
END_OF_SEQUENCE = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def before_pixels(data: bytes, content: bytes) -> bytes:
    place = data.rindex(PIXEL_DATA)
    return data[:place] + content + data[place:]


def implicit(group: int, element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", group, element, len(value)) + value


def compressed(pixels: NDArray[Any], make_dicom: MakeDicom, syntax: str, **attributes: Any) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(make_dicom(pixels, **attributes)))
    dataset.compress(syntax, generate_instance_uid=False)
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


# --- the header


@pytest.mark.parametrize(
    ("syntax", "content"),
    [
        (
            ExplicitVRLittleEndian,
            struct.pack("<HH2sHI", 0x7001, 0x1010, b"SQ", 0, 0xFFFFFFFF) + EMPTY_ITEM * 500_000 + END_OF_SEQUENCE,
        ),
        (
            ImplicitVRLittleEndian,
            b"".join(struct.pack("<HHI", 0x7001 + 2 * (n >> 16), n & 0xFFFF, 0) for n in range(500_000)),
        ),
        (ImplicitVRLittleEndian, implicit(0x0028, 0x0030, b"1\\" * 2_000_000)),
        (ImplicitVRLittleEndian, implicit(0x0008, 0x0005, b"XXX\\" * 1_000_000)),
    ],
    ids=["items", "elements", "list of numbers", "character sets"],
)
def test_a_header_of_very_many_pieces(make_dicom: MakeDicom, syntax: str, content: bytes) -> None:
    hostile = before_pixels(make_dicom(syntax=syntax), content)
    started = time.monotonic()
    tracemalloc.start()
    refused(hostile, "unreadable")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * MIB
    assert time.monotonic() - started < 5


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


def test_an_image_of_very_many_bytes(make_dicom: MakeDicom) -> None:
    wide = {"Rows": 4500, "Columns": 4500, "PixelSpacing": [0.4, 0.4], "ExposedArea": None}
    refused(make_dicom(**wide), "unreadable")
    assert "38 MiB of pixels" in refused(make_dicom(BitsAllocated=16, BitsStored=16, HighBit=15, **wide), "too-large")


# --- the codestream


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_a_codestream_tells_its_size(make_dicom: MakeDicom, syntax: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 4096, (480, 160)).astype(np.uint16)
    data = compressed(pixels, make_dicom, syntax, BitsStored=12, HighBit=11)
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


def test_two_frames_in_a_file_of_one(make_dicom: MakeDicom) -> None:
    pixels = np.zeros((480, 160), np.uint8)
    dataset = pydicom.dcmread(io.BytesIO(compressed(pixels, make_dicom, JPEGLSLossless)))
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame, frame])
    dataset["PixelData"].is_undefined_length = True
    stream = io.BytesIO()
    dataset.save_as(stream)
    assert "2 frames" in refused(stream.getvalue(), "unreadable")


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16"])
def test_gdcm_reads_jpeg_ls_where_the_other_decoder_is_missing(
    make_dicom: MakeDicom, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    pytest.importorskip("gdcm", reason="pip install '.[codecs]'")
    info = np.iinfo(kind)
    pixels = np.random.default_rng(1).integers(info.min, info.max + 1, (480, 160)).astype(kind)
    data = compressed(pixels, make_dicom, JPEGLSLossless)
    monkeypatch.setattr(syntaxes, "find_spec", lambda name: None if name == "jpeg_ls" else True)
    syntaxes.plugin_for.cache_clear()
    try:
        assert syntaxes.plugin_for(JPEGLSLossless) == "gdcm"
        np.testing.assert_array_equal(scan_from_bytes(data, "file.dcm").pixels, pixels)
    finally:
        monkeypatch.undo()
        syntaxes.plugin_for.cache_clear()


# --- the decoder process


@pytest.fixture()
def fresh() -> Iterator[DecoderProcess]:
    process = DecoderProcess()
    yield process
    process.close()


def rle() -> tuple[bytes, dict[str, Any], bytes]:
    """Return a frame, what the decoder must know of it, and its pixels."""
    row = b"\xf1\7"  # sixteen times 7
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + row * 16
    options = {
        "syntax": str(RLELossless),
        "plugin": "pydicom",
        "rows": 16,
        "columns": 16,
        "samples_per_pixel": 1,
        "bits_allocated": 8,
        "bits_stored": 8,
        "pixel_representation": 0,
        "photometric_interpretation": "MONOCHROME2",
        "planar_configuration": 0,
    }
    return frame, options, b"\7" * 256


def child_program(tmp_path: Path, instead: str) -> str:
    """Return a decoder whose codec does something else."""
    program = Path(decoder_child.__file__).read_text(encoding="utf-8")
    changed = program.replace(
        "    from pydicom.encaps import encapsulate\n",
        f"    if len(frame) == 3:\n        {instead}\n    from pydicom.encaps import encapsulate\n",
    )
    assert changed != program
    path = tmp_path / "child.py"
    path.write_text(changed, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("instead", "words"),
    [
        ("os.abort()", "crash"),
        ("import time; time.sleep(60)", "takes more than 1 s"),
        ("return bytes(2**31)", "memory"),
        ("raise BaseException('panic')", "damaged"),
        ("print('noise'); sys.stderr.write('SECRET'); raise ValueError", "damaged"),
        ("os._exit(0)", "crash"),
    ],
)
def test_whatever_a_codec_does_the_next_frame_is_decoded(
    fresh: DecoderProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    instead: str,
    words: str,
) -> None:
    if "2**31" in instead and sys.platform != "linux":
        pytest.skip("this system limits no address space")
    monkeypatch.setattr(decoder_child, "__file__", child_program(tmp_path, instead))
    monkeypatch.setattr(decoder_process, "FRAME_SECONDS", 1.0)
    frame, options, pixels = rle()
    assert fresh.decode(frame, 256, **options) == pixels
    started = time.monotonic()
    with pytest.raises(UndecodableFrame, match=words):
        fresh.decode(b"bad", 256, **options)
    assert time.monotonic() - started < 3
    assert fresh.decode(frame, 256, **options) == pixels
    assert capfd.readouterr() == ("", "")


def test_the_process_is_renewed_after_many_frames(fresh: DecoderProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_process, "FRAMES_PER_PROCESS", 2)
    frame, options, pixels = rle()
    seen = []
    for _ in range(4):
        assert fresh.decode(frame, 256, **options) == pixels
        seen.append(fresh.pid)
    assert seen[0] is not None and seen[2] is not None and seen[0] != seen[2]
    assert seen[1] is seen[3] is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_decodes_with_one_of_its_own(make_dicom: MakeDicom) -> None:
    data = make_dicom(syntax=RLELossless)
    scan_from_bytes(data, "file.dcm")
    before = decoder.pid
    child = os.fork()
    if child == 0:
        own = scan_from_bytes(data, "file.dcm").pixels.shape == (480, 160) and decoder.pid != before
        decoder.close()
        os._exit(0 if own else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    scan_from_bytes(data, "file.dcm")
    assert decoder.pid == before


def test_no_module_in_the_working_folder_takes_the_place_of_a_decoder(make_dicom: MakeDicom, tmp_path: Path) -> None:
    (tmp_path / "file.dcm").write_bytes(make_dicom(syntax=RLELossless))
    (tmp_path / "json.py").write_text("open('sprung', 'w')", encoding="utf-8")
    program = f"import sys; sys.path.pop(0); import json; sys.path.insert(0, ''); sys.path += {sys.path!r}\n" + (
        "from edge_spine.reading import read_scan; read_scan('file.dcm')"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system has no /proc")
@pytest.mark.parametrize("kind", ["grey", "colour"])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_the_largest_image_in_a_small_file_takes_less_than_300_mb(
    make_dicom: MakeDicom, tmp_path: Path, syntax: str, kind: str
) -> None:
    if kind == "grey":
        pixels: NDArray[Any] = np.zeros((4095, 4095), np.uint16)
    else:
        pixels = np.zeros((3340, 3340, 3), np.uint8)
    data = compressed(pixels, make_dicom, syntax, PixelSpacing=[0.5, 0.5], ExposedArea=None)
    assert len(data) < MIB
    path = tmp_path / "file.dcm"
    path.write_bytes(data)
    (tmp_path / "small.dcm").write_bytes(make_dicom(syntax=RLELossless))
    program = f"""
from edge_spine.reading import read_scan
from edge_spine.reading.decoder_process import decoder
def peak(process):
    with open(f"/proc/{{process}}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
read_scan({str(tmp_path / "small.dcm")!r})
before = peak("self") + peak(decoder.pid)
assert read_scan({str(path)!r}).pixels.shape == {pixels.shape[:2]}
print(peak("self") + peak(decoder.pid) - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 300
