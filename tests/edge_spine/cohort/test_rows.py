"""A row for each way a scan can end, in the columns of the table."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edge_spine.cohort.rows import NAMES, NUMBERS, TEXTS, lost_row, row_of, schema
from edge_spine.quantities import ROWS_OF_209
from edge_spine.runner import Report
from edge_spine.version import __version__
from tests.edge_spine.fake_result import fake_bands, fake_curves, fake_result


def test_a_scan_that_is_done_has_every_figure() -> None:
    result = fake_result(band_90=fake_bands())
    row = row_of("P1", "/a.dcm", "b.dcm", Report("a.dcm", "done", message="yes", timing_ms={"total": 7.0}), result)
    assert tuple(row) == NAMES
    assert (row["id"], row["path"], row["entry"], row["edge_spine_version"]) == ("P1", "/a.dcm", "b.dcm", __version__)
    assert (row["status"], row["code"], row["message"], row["total_ms"]) == ("done", None, "yes", 7.0)
    assert row["max_cobb_deg"] == result.measurements.max_cobb_deg
    assert row["largest_curve_side"] == result.measurements.scoliosis_curves[0].side
    np.testing.assert_allclose(row["sagittal_posterior_mm"], result.curves.sagittal[:, 2], rtol=1e-6)
    np.testing.assert_allclose(row["coronal_band_90_mm"], result.band_90.coronal, rtol=1e-6)
    assert all(len(row[name]) == 209 for name in ROWS_OF_209)
    json.dumps(row, allow_nan=False)


def test_a_straight_spine_without_bands_leaves_their_columns_empty() -> None:
    row = row_of("P1", "/a", None, Report("a", "done"), fake_result(curves=fake_curves(lateral_mm=0.0)))
    assert row["scoliosis_curves"] == 0 and row["z_mm"] is not None
    assert row["largest_curve_side"] is row["largest_curve_cobb_deg"] is row["sagittal_band_90_mm"] is None


@pytest.mark.parametrize(
    ("report", "code"),
    [(Report("a", "refused", "no-spine"), "no-spine"), (Report("a", "failed"), "failed")],
)
def test_a_scan_that_is_not_done_has_its_code_and_no_figure(report: Report, code: str) -> None:
    row = row_of("P1", "/a", None, report, fake_result())
    assert (row["status"], row["code"]) == (report.status, code)
    assert all(row[name] is None for name in (*ROWS_OF_209, "max_cobb_deg", "model_sha256", "flags"))


def test_a_lost_scan_says_how_often_its_worker_died() -> None:
    row = lost_row("P1", "/a", 3)
    assert (row["status"], row["code"]) == ("failed", "worker-died") and "died 3 times" in row["message"]


def test_every_column_has_a_type() -> None:
    pa = pytest.importorskip("pyarrow", reason="pip install '.[batch]'")
    found = schema()
    assert tuple(found.names) == NAMES and len(set(NAMES)) == len(NAMES)
    assert {found.field(name).type for name in TEXTS} == {pa.string()}
    assert {found.field(name).type for name in NUMBERS} == {pa.float64()}
    assert {found.field(name).type for name in ROWS_OF_209} == {pa.list_(pa.float32())}
