"""A file of any kind becomes a scan, or is refused by name."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from edge_spine.errors import InputUnavailable, Refusal
from edge_spine.reading import read_scan
from edge_spine.reading.files import find_scans
from edge_spine.reading.read import check_header
from tests.edge_spine.reading.samples import MakeDicom, bare, make_zip
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


def unavailable(path: Path) -> str:
    with pytest.raises(InputUnavailable) as caught:
        read_scan(path)
    assert str(caught.value).startswith(f"{path.name}: ") and str(path.parent) not in str(caught.value)
    return str(caught.value)


def test_a_missing_file_and_a_folder_say_nothing_of_a_content(tmp_path: Path) -> None:
    assert "no such file" in unavailable(tmp_path / "none.dcm")
    unavailable(tmp_path)
    with pytest.raises(InputUnavailable):
        read_scan("a\0b")


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.EBUSY, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT]
)
@pytest.mark.parametrize("step", ["stat", "open", "read"])
@pytest.mark.parametrize("suffix", ["dcm", "zip"])
def test_a_file_that_cannot_be_read_now(
    tmp_path: Path, make_dicom: MakeDicom, monkeypatch: pytest.MonkeyPatch, number: int, step: str, suffix: str
) -> None:
    """No rights, in use, an error of the disk, or a share that is away, at any moment; later it is read."""
    path = tmp_path / f"scan.{suffix}"
    path.write_bytes(make_dicom())
    if suffix == "zip":
        make_zip(path, {"scan.dcm": make_dicom()})
    (file,) = find_scans([path])

    def fail(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    class Failing(io.FileIO):
        readinto = readall = read = fail

    with monkeypatch.context() as away:
        if suffix == "zip":
            away.setattr("edge_spine.reading.archive.io.FileIO", Failing if step == "read" else fail)
        elif step == "stat":
            away.setattr(Path, "stat", fail)
        else:
            away.setattr(Path, "open", fail if step == "open" else lambda *_, **__: Failing(os.devnull))
        with pytest.raises(InputUnavailable) as caught:
            file.read()
        assert os.strerror(number) in str(caught.value)
    scan = file.read()
    assert scan.sha256 is not None and scan.path == (f"{path}!scan.dcm" if suffix == "zip" else str(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")
    unavailable(tmp_path / "pipe.dcm")


@pytest.mark.skipif(sys.platform != "linux", reason="names of other bytes")
def test_a_name_that_is_not_utf_8_has_a_path_that_can_be_written(make_dicom: MakeDicom, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.dcm"
    Path(os.fsdecode(path)).write_bytes(make_dicom())
    scan = read_scan(os.fsdecode(path))
    assert scan.path.encode() and scan.path.startswith(f"{tmp_path}/caf")


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
    check_header(bare(whole, meta=True))
    for content, code in (
        (b"", "unreadable"),
        (whole[:200], "unsupported-syntax"),
        (make_dicom(Modality="US"), "not-dxa"),
    ):
        with pytest.raises(Refusal) as caught:
            check_header(content)
        assert caught.value.code == code
