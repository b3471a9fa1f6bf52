"""A file of any kind becomes a scan, or is refused by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from edge_spine.errors import Refusal
from edge_spine.reading import read_scan
from edge_spine.reading.read import check_header
from tests.edge_spine.reading.samples import MakeDicom
from tests.edge_spine.refusing import refused


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


def test_importing_the_reader_loads_no_heavy_module() -> None:
    code = "import sys, edge_spine.scan, edge_spine.reading.files; print({'pydicom', 'cv2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


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
