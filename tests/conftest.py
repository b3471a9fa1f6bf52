"""Fixtures of all tests: the two real DXA files, small synthetic DICOM files of their make, and the packaged model."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:
    # Test processes share the cores: threads of NumPy and PyTorch beyond them would only wait for each other. Both read
    # these when they are imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, RLELossless

from edge_spine import SpineEstimator

# Otherwise each process that a test starts compiles the package again, and each run of pytest all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_configure(config: pytest.Config) -> None:
    """Set up pytest-xdist where it is installed: keep the order of files, and end the run if a test process ends.

    The order is that of `pytest_collection_modifyitems`. Where a test process was replaced, pytest-xdist could wait for
    ever for the files that it had.
    """
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder, config.option.maxworkerrestart = False, "0"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On several processes, begin with the files of many slow tests: a long file at the end would run alone."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        tests = Counter(item.path for item in items)
        items.sort(key=lambda item: (slow[item.path], tests[item.path], item.path), reverse=True)


REAL_SCANS = Path(__file__).resolve().parents[2] / "shared" / "data" / "dxa"
SYNTHETIC_UID = "2.25.1234567890"

MakeDicom = Callable[..., bytes]


def _real(name: str) -> Path:
    path = REAL_SCANS / name
    if not path.is_file():
        pytest.skip(f"the real DXA file {name} is not on this machine (looked in ../shared/data/dxa)")
    return path


@pytest.fixture(scope="session")
def real_bone() -> Path:
    """Bone image of a real GE Lunar iDXA whole-body scan."""
    return _real("whole_body_bone.dcm")


@pytest.fixture(scope="session")
def real_tissue() -> Path:
    """Soft-tissue image of the same scan."""
    return _real("whole_body_tissue.dcm")


@pytest.fixture(scope="session")
def estimator() -> SpineEstimator:
    """The packaged model in ONNX Runtime, loaded once."""
    pytest.importorskip("onnxruntime", reason="an engine is needed: pip install '.[cpu]'")
    return SpineEstimator(engine="onnx-cpu")


@pytest.fixture(scope="session")
def make_dicom() -> MakeDicom:
    """Make the bytes of a DICOM file that is accepted unless told otherwise."""
    return _make_dicom


def _make_dicom(
    pixels: NDArray[Any] | None = None, *, syntax: str = ExplicitVRLittleEndian, **attributes: Any
) -> bytes:
    """Return a whole-body GE file of 480 x 160 pixels of 4 x 4 mm; an attribute of None is left out."""
    if pixels is None:
        pixels = np.arange(480 * 160, dtype=np.uint32).reshape(480, 160).astype(np.uint8)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = SYNTHETIC_UID
    meta.TransferSyntaxUID = syntax if syntax != RLELossless else ExplicitVRLittleEndian
    dataset = Dataset()
    dataset.file_meta = meta
    bits = pixels.dtype.itemsize * 8
    values: dict[str, Any] = {
        "SOPClassUID": ComputedRadiographyImageStorage,
        "SOPInstanceUID": SYNTHETIC_UID,
        "Modality": "CR",
        "Manufacturer": "GE Healthcare",
        "ManufacturerModelName": "Lunar iDXA",
        "PatientName": "SECRET^NAME",
        "PatientID": "SECRET-ID",
        "ProtocolName": "Total Body",
        "PatientOrientation": ["L", "F"],
        "ExposedArea": [4 * pixels.shape[1], 4 * pixels.shape[0]],
        "SamplesPerPixel": 1 if pixels.ndim == 2 else pixels.shape[2],
        "PhotometricInterpretation": "MONOCHROME2" if pixels.ndim == 2 else "RGB",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    if pixels.ndim == 3:
        values["PlanarConfiguration"] = 0
    with warnings.catch_warnings():
        # Tests write invalid values on purpose.
        warnings.simplefilter("ignore")
        for keyword, value in (values | attributes).items():
            if value is not None:
                setattr(dataset, keyword, value)
    order = ">" if syntax == "1.2.840.10008.1.2.2" else "<"
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    if syntax == RLELossless:
        dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
