"""The process that decodes compressed frames: killed, hung, shared and left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from edge_spine.errors import InputUnavailable
from edge_spine.reading import decoder_process
from edge_spine.reading.decoder_process import DecoderProcess, UndecodableFrame, decoder
from edge_spine.reading.read import scan_from_bytes
from tests.edge_spine.reading.samples import MakeDicom, compressed, decoder_options, rle, saved


def frame_and_options() -> tuple[bytes, dict[str, Any], NDArray[np.uint8]]:
    pixels = np.random.default_rng(2).integers(0, 9, (64, 48)).astype(np.uint8)
    dataset = Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "2.25.1"
    dataset.set_pixel_data(pixels, "MONOCHROME2", 8)
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    return frame, decoder_options(JPEGLSLossless, "pyjpegls", 64, 48), pixels


@pytest.mark.slow
def test_a_decoder_that_is_killed_costs_no_frame(fresh: DecoderProcess) -> None:
    """As by a system without memory: that is no verdict on the frame."""
    frame, options, pixels = frame_and_options()
    assert fresh.decode(frame, pixels.size, **options) == pixels.tobytes()
    assert fresh.pid is not None
    os.kill(fresh.pid, 9)
    assert bytes(fresh.decode(frame, pixels.size, **options)) == pixels.tobytes()


@pytest.mark.parametrize("what", ["no process", "no answer"])
def test_a_decoder_that_does_not_start_now_is_no_verdict(
    fresh: DecoderProcess, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    frame, options, pixels = frame_and_options()
    with monkeypatch.context() as busy:
        if what == "no process":
            busy.setattr(decoder_process.subprocess, "Popen", fail)
        else:
            busy.setattr(decoder_process, "START_SECONDS", 0.0)
        with pytest.raises(InputUnavailable, match="does not start now"):
            fresh.decode(frame, pixels.size, **options)
    assert bytes(fresh.decode(frame, pixels.size, **options)) == pixels.tobytes()


def test_a_decoder_that_ends_while_it_starts_is_not_waited_for(
    fresh: DecoderProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "child.py").write_text("raise SystemExit(1)", encoding="utf-8")
    frame, options, pixels = frame_and_options()
    started = time.monotonic()
    with monkeypatch.context() as broken:
        broken.setattr(decoder_process.decoder_child, "__file__", str(tmp_path / "child.py"))
        with pytest.raises(InputUnavailable, match="does not start now"):
            fresh.decode(frame, pixels.size, **options)
    assert time.monotonic() - started < decoder_process.START_SECONDS / 5
    assert bytes(fresh.decode(frame, pixels.size, **options)) == pixels.tobytes()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system stops no process")
def test_a_decoder_that_hangs_is_ended(fresh: DecoderProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, options, pixels = frame_and_options()
    fresh.decode(frame, pixels.size, **options)
    assert fresh.pid is not None
    os.kill(fresh.pid, signal.SIGSTOP)
    monkeypatch.setattr(decoder_process, "STALLED_SECONDS", 0.2)
    with pytest.raises(UndecodableFrame):
        fresh.decode(frame, pixels.size, **options)
    monkeypatch.undo()
    assert bytes(fresh.decode(frame, pixels.size, **options)) == pixels.tobytes()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system stops no process")
def test_waiting_for_the_processor_is_no_verdict_on_a_frame(
    fresh: DecoderProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process stands for one on a machine that is busy with other programs."""
    monkeypatch.setattr(decoder_process, "FRAME_SECONDS", 0.5)
    frame, options, pixels = frame_and_options()
    fresh.decode(frame, pixels.size, **options)
    child = fresh.pid
    assert child is not None
    os.kill(child, signal.SIGSTOP)
    later = threading.Timer(1.5, os.kill, (child, signal.SIGCONT))
    later.start()
    assert bytes(fresh.decode(frame, pixels.size, **options)) == pixels.tobytes()
    later.join()
    assert fresh.pid == child


@pytest.mark.slow
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


@pytest.mark.slow
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


MIB = 2**20


@pytest.mark.slow
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


@pytest.mark.slow
def test_no_module_in_the_working_folder_takes_the_place_of_a_decoder(make_dicom: MakeDicom, tmp_path: Path) -> None:
    (tmp_path / "file.dcm").write_bytes(make_dicom(syntax=RLELossless))
    (tmp_path / "json.py").write_text("open('sprung', 'w')", encoding="utf-8")
    program = f"import sys; sys.path.pop(0); import json; sys.path.insert(0, ''); sys.path += {sys.path!r}\n" + (
        "from edge_spine.reading import read_scan; read_scan('file.dcm')"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.slow
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
    data = compressed(make_dicom(pixels, PixelSpacing=[0.5, 0.5], ExposedArea=None), syntax)
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
