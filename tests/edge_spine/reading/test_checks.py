"""Sizes, extents and spacings that are accepted."""

from __future__ import annotations

import warnings

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from edge_spine.errors import UsageError
from edge_spine.reading.read import scan_from_bytes
from edge_spine.scan import Scan
from tests.edge_spine.reading.samples import MakeDicom, edited
from tests.edge_spine.refusing import refused


def test_an_image_of_very_many_bytes(make_dicom: MakeDicom) -> None:
    wide = {"Rows": 4500, "Columns": 4500, "PixelSpacing": [0.4, 0.4], "ExposedArea": None}
    refused(make_dicom(**wide), "unreadable")
    assert "38 MiB of pixels" in refused(make_dicom(BitsAllocated=16, BitsStored=16, HighBit=15, **wide), "too-large")


@pytest.mark.hazard("spacing-missing")
@pytest.mark.parametrize("spacing", [["0", "0"], ["-4", "4"], ["4", "1000"], ["nan", "4"], ["4"], ["1e400", "4"]])
def test_implausible_stored_spacing(make_dicom: MakeDicom, spacing: list[str]) -> None:
    def spoil(dataset: Dataset) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.PixelSpacing = ["4", "4"]
            dataset["PixelSpacing"]._value = pydicom.multival.MultiValue(float, spacing)

    data = edited(make_dicom(ExposedArea=None), spoil)
    problem = "PixelSpacing is implausible" if len(spacing) == 2 else "its PixelSpacing is not two numbers"
    assert problem in refused(data, "no-spacing")


@pytest.mark.hazard("spacing-missing")
def test_a_spacing_that_makes_a_giant_is_refused(make_dicom: MakeDicom) -> None:
    assert "must be wrong" in refused(make_dicom(PixelSpacing=[19, 4], ExposedArea=None), "no-spacing")


@pytest.mark.hazard("spacing-missing")
@pytest.mark.parametrize("spacing", [(0, 1), (1, float("nan")), (1, 21), (1,), (1, 2, 3), "ab", (0.04, 1), 3])
def test_a_wrong_spacing_option_is_a_usage_error(make_dicom: MakeDicom, spacing: object) -> None:
    with pytest.raises(UsageError, match="spacing"):
        scan_from_bytes(make_dicom(), "file.dcm", pixel_spacing=spacing)  # type: ignore[arg-type]


def test_an_image_of_low_height(make_dicom: MakeDicom) -> None:
    message = refused(make_dicom(np.zeros((224, 160), np.uint8)), "not-whole-body")
    assert all(part in message for part in ("896 mm", "pixel spacing 4, 4 mm", "--pixel-spacing ROW,COL"))
    assert isinstance(scan_from_bytes(make_dicom(np.zeros((226, 160), np.uint8)), "file.dcm"), Scan)


def test_sizes(make_dicom: MakeDicom) -> None:
    refused(make_dicom(np.zeros((99, 160), np.uint8), PixelSpacing=[10, 4], ExposedArea=None), "too-small")
    refused(make_dicom(np.zeros((480, 39), np.uint8)), "too-small")
    smallest = make_dicom(np.zeros((100, 40), np.uint8), PixelSpacing=[10, 4], ExposedArea=None)
    scan = scan_from_bytes(smallest, "file.dcm")
    assert scan.pixels.shape == (100, 40)
    refused(make_dicom(Rows=0), "unreadable")
    refused(make_dicom(Rows=16385), "too-large")
    refused(make_dicom(Columns=16385), "too-large")
    refused(make_dicom(Rows=5001, Columns=5000), "too-large")


@pytest.mark.hazard("spacing-missing")
def test_imager_spacing_only_where_the_user_asks(make_dicom: MakeDicom) -> None:
    data = make_dicom(ExposedArea=None, ImagerPixelSpacing=[4, 3])
    refused(data, "no-spacing")
    scan = scan_from_bytes(data, "file.dcm", imager_spacing=True)
    assert scan.pixel_spacing_mm == (4, 3) and "imager-pixel-spacing" in scan.flags
    given = scan_from_bytes(data, "file.dcm", imager_spacing=True, pixel_spacing=(2, 2))
    assert given.pixel_spacing_mm == (2, 2)
    better = make_dicom(ImagerPixelSpacing=[3, 3])
    assert scan_from_bytes(better, "file.dcm", imager_spacing=True).pixel_spacing_mm == (4, 4)
