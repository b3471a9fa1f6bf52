from __future__ import annotations

import csv
import io
import itertools

import numpy as np
import pytest

from edge_spine.outputs.registry import FORMATS
from edge_spine.vertebrae import LEVELS
from tests.edge_spine.fake_result import fake_bands, fake_curves, fake_result


def table(data: bytes) -> tuple[list[str], list[list[str]]]:
    rows = list(csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))
    return rows[0], rows[1:]


def test_it_holds_the_curves_of_every_row() -> None:
    result = fake_result(band_90=fake_bands())
    header, rows = table(FORMATS["csv"].render(result))
    assert header == [
        "z_mm",
        "coronal_left_mm",
        "coronal_centre_mm",
        "coronal_right_mm",
        "sagittal_anterior_mm",
        "sagittal_centre_mm",
        "sagittal_posterior_mm",
        "coronal_band_90_mm",
        "sagittal_band_90_mm",
        "vertebral_level",
        *("flags", "notice", "made_by", "scan_sha256"),
    ]
    assert len(rows) == 209
    values = np.array([row[:9] for row in rows], float)
    curves, bands = result.curves, result.band_90
    assert bands is not None
    expected = np.column_stack([curves.z, curves.coronal, curves.sagittal, bands.coronal, bands.sagittal])
    np.testing.assert_allclose(values, expected, atol=5.1e-4)


def test_it_agrees_with_result_json_to_the_last_digit() -> None:
    result = fake_result(band_90=fake_bands())
    written = result.to_dict()["curves"]
    _, rows = table(FORMATS["csv"].render(result))
    columns = [
        written["z"],
        *written["coronal"].values(),
        *written["sagittal"].values(),
        *written["band_90"].values(),
    ]
    for index, column in enumerate(columns):
        assert [row[index] for row in rows] == [f"{value:.3f}" for value in column]


def test_bands_are_empty_where_there_are_none() -> None:
    header, rows = table(FORMATS["csv"].render(fake_result()))
    assert {len(row) for row in rows} == {len(header)}
    assert {tuple(row[7:9]) for row in rows} == {("", "")}


@pytest.mark.parametrize("lateral_mm", [0.0, 14.0, 60.0])
def test_levels_run_from_t1_to_l5_and_agree_with_the_measurements(lateral_mm: float) -> None:
    result = fake_result(curves=fake_curves(lateral_mm=lateral_mm))
    _, rows = table(FORMATS["csv"].render(result))
    levels = [row[9] for row in rows]
    assert tuple(level for level, _ in itertools.groupby(levels)) == LEVELS
    assert tuple(levels) == result.levels.names_at(result.curves.z)
    for curve in result.measurements.scoliosis_curves:
        assert levels[curve.apex] == curve.apex_level
        assert levels[curve.upper_end] == curve.upper_end_level
        assert levels[curve.lower_end] == curve.lower_end_level


def test_it_follows_rfc_4180_and_has_no_formula() -> None:
    hostile = '=HYPERLINK("http://127.0.0.1","x").dcm'
    result = fake_result(source=hostile, curves=fake_curves(middle_mm=0.0))
    data = FORMATS["csv"].render(result)
    assert data.isascii() and data.endswith(b"\r\n")
    assert data.count(b"\r\n") == data.count(b"\n") == data.count(b"\r") == 210
    _, rows = table(data)
    for row in rows:
        assert all(cell == "" or -1e4 < float(cell) < 1e4 for cell in row[:9])
        assert row[9] in LEVELS
    assert b"-0.000" not in data
