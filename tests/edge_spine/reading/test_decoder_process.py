"""The process that decodes compressed frames: killed, hung, shared and left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
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
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from edge_spine.reading import decoder_process
from edge_spine.reading.decoder_process import DecoderProcess, UndecodableFrame
from tests.edge_spine.reading.test_codecs import saved


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
