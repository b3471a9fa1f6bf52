from __future__ import annotations

import io
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_rescale, apply_voi_lut

from edge_spine.reading.read import scan_from_bytes
from tests.edge_spine.reading.samples import MakeDicom, as_body
from tests.edge_spine.refusing import refused


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
