"""Files that the tests of reading share."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from edge_spine.errors import Refusal
from edge_spine.reading.files import ScanFile

MakeDicom = Callable[..., bytes]
UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
BODY = np.random.default_rng(7).integers(0, 256, (480, 160), dtype=np.uint8)


def pydicom_file(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"{name} needs the package pydicom-data")
    return Path(str(path))


def edited(data: bytes, edit: Callable[[Dataset], None]) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(data))
    edit(dataset)
    return saved(dataset)


def saved(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def bare(data: bytes, meta: bool) -> bytes:
    """Return a DICOM file without its preamble, and without its meta information where `meta` is False."""
    length = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True).file_meta.FileMetaInformationGroupLength
    return data[132:] if meta else data[132 + 12 + length :]


def compressed(data: bytes, syntax: str) -> bytes:
    return edited(data, lambda dataset: dataset.compress(syntax, generate_instance_uid=False))


def enlarge(dataset: Dataset) -> None:
    """Give a real file of 100 rows the height of a body."""
    dataset.PixelSpacing = [10, 10]


def make_zip(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as stream:
        for name, content in entries.items():
            stream.writestr(name, content)
    return path


def refusal(file: ScanFile) -> Refusal:
    with pytest.raises(Refusal) as caught:
        file.read()
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith(f"{file.source}: ") or file.entry is None
    return caught.value


def as_body(name: str) -> bytes:
    """Return a test file with a header that says whole-body DXA; its pixels stay as they are."""
    dataset = pydicom.dcmread(pydicom_file(name))
    for keyword in ("ProtocolName", "SeriesDescription", "BodyPartExamined", "PatientOrientation", "NumberOfFrames"):
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.Modality, dataset.Manufacturer = "OT", "HOLOGIC, Inc."
    dataset.PixelSpacing = [min(1900 / dataset.Rows, 20)] * 2
    return saved(dataset)


def decoder_options(syntax: str, plugin: str, rows: int, columns: int) -> dict[str, Any]:
    """Return what a decoder must know of a frame of 8-bit grey values."""
    return {
        "syntax": str(syntax),
        "plugin": plugin,
        "rows": rows,
        "columns": columns,
        "samples_per_pixel": 1,
        "bits_allocated": 8,
        "bits_stored": 8,
        "pixel_representation": 0,
        "photometric_interpretation": "MONOCHROME2",
        "planar_configuration": 0,
    }


def rle() -> tuple[bytes, dict[str, Any], bytes]:
    """Return a frame, what the decoder must know of it, and its pixels."""
    row = b"\xf1\7"  # sixteen times 7
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + row * 16
    return frame, decoder_options(RLELossless, "pydicom", 16, 16), b"\7" * 256
