"""Files that the tests of reading share."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

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
