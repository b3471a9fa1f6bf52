"""The callable that travels: small without its model, the same rows as a single run, refusals as rows."""

from __future__ import annotations

import os
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from edge_spine import SpineEstimator, __version__, read_scan
from edge_spine.cohort import SpineBatch, batch
from edge_spine.cohort.manifest import Scan
from edge_spine.cohort.rows import NAMES, schema
from edge_spine.errors import EdgeSpineError, UsageError
from edge_spine.quantities import ROWS_OF_209
from tests.edge_spine.cohort.conftest import BUNDLED


@pytest.fixture(scope="module")
def spine_batch() -> SpineBatch:
    return SpineBatch("lite", "onnx-cpu", 1)


def test_it_travels_without_its_model(spine_batch: SpineBatch) -> None:
    spine_batch({"path": [str(BUNDLED)]})
    assert len(pickle.dumps(spine_batch)) < 1000


def test_rows_say_what_a_single_run_says(spine_batch: SpineBatch) -> None:
    found = spine_batch({"path": np.array([str(BUNDLED)]), "id": np.array(["P1"])})
    with SpineEstimator("onnx-cpu", "lite", 1) as estimator:
        result = estimator(read_scan(BUNDLED))
    assert tuple(found) == NAMES and all(len(column) == 1 for column in found.values())
    row = {name: column[0] for name, column in found.items()}
    assert (row["id"], row["status"], row["code"], row["edge_spine_version"]) == ("P1", "done", None, __version__)
    assert row["max_cobb_deg"] == pytest.approx(result.measurements.max_cobb_deg, abs=1e-6)
    assert row["largest_curve_apex_level"] == result.measurements.scoliosis_curves[0].apex_level
    assert row["scoliosis_curves"] == len(result.measurements.scoliosis_curves)
    np.testing.assert_allclose(row["sagittal_posterior_mm"], result.curves.sagittal[:, 2], atol=1e-3)
    np.testing.assert_allclose(row["z_mm"], result.curves.z, atol=1e-3)
    np.testing.assert_allclose(row["coronal_band_90_mm"], result.band_90.coronal, atol=1e-4)
    assert row["model_sha256"] == result.model["sha256"] and row["model_engine"] == "onnx-cpu"
    assert all(len(row[name]) == 209 for name in ROWS_OF_209)
    table = pa.Table.from_pydict(found, schema())
    assert table.num_rows == 1


@pytest.mark.hazard("bad-file")
def test_what_is_refused_or_missing_is_a_row(spine_batch: SpineBatch, tmp_path: Path) -> None:
    (tmp_path / "cut.dcm").write_bytes(BUNDLED.read_bytes()[:3000])
    found = spine_batch({"path": [str(tmp_path / "cut.dcm"), str(tmp_path / "none.dcm"), str(BUNDLED)]})
    assert found["status"] == ["refused", "failed", "done"]
    assert found["code"] == ["unreadable", "failed", None]
    assert found["z_mm"][0] is None and found["max_cobb_deg"][1] is None


def test_spacing_comes_from_the_batch(spine_batch: SpineBatch, tmp_path: Path) -> None:
    scan = read_scan(BUNDLED)
    np.save(tmp_path / "a.npy", scan.pixels)
    row, column = scan.pixel_spacing_mm
    with_spacing = {"path": [str(tmp_path / "a.npy")], "row_spacing_mm": [row], "column_spacing_mm": [column]}
    assert spine_batch(with_spacing)["status"] == ["done"]
    without = {"path": [str(tmp_path / "a.npy")], "row_spacing_mm": [np.nan], "column_spacing_mm": [np.nan]}
    assert spine_batch(without)["code"] == ["no-spacing"]


def test_a_zip_gives_a_row_for_each_scan_in_it(spine_batch: SpineBatch, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for name in ("a.dcm", "b.dcm"):
            archive.writestr(name, BUNDLED.read_bytes())
    found = spine_batch({"path": [str(tmp_path / "study.zip")]})
    assert found["status"] == ["done", "done"] and found["entry"] == ["a.dcm", "b.dcm"]


@pytest.mark.hazard("bad-file")
def test_what_a_zip_holds_beside_scans_is_named_in_its_row(spine_batch: SpineBatch, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(BUNDLED, "11.dcm")
        archive.writestr("more.zip", b"PK\x03\x04")
    (message,) = spine_batch({"path": [str(tmp_path / "a.zip")]})["message"]
    assert message.endswith("; beside it left out: 1 zip in a zip (more.zip)")


def test_a_line_that_cannot_be_used_is_a_failed_row(spine_batch: SpineBatch) -> None:
    rows = spine_batch.rows([Scan("A", "/a.dcm", None, "line 4 has more cells"), Scan("B", str(BUNDLED))])
    assert [(row["id"], row["status"], row["code"]) for row in rows] == [("A", "failed", "failed"), ("B", "done", None)]
    assert rows[0]["message"] == "line 4 has more cells"


def test_a_folder_gives_a_row_for_each_scan_in_it(tmp_path: Path) -> None:
    for folder in ("1", "2"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "11.dcm").write_bytes(BUNDLED.read_bytes())
    writing = SpineBatch("lite", "onnx-cpu", 1, formats=("json",), folder=str(tmp_path / "out"))
    found = writing({"path": [str(tmp_path / "in")]})
    assert found["status"] == ["done", "done"] and found["entry"] == ["1/11.dcm", "2/11.dcm"]
    assert len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.skipif(os.name == "nt", reason="names of files are bytes on POSIX only")
def test_a_name_that_is_no_utf_8_can_be_stored(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"M\xfcller.dcm")
    path.write_bytes(BUNDLED.read_bytes())
    writing = SpineBatch("lite", "onnx-cpu", 1, formats=("json",), folder=str(tmp_path / "out"))
    rows = writing.rows([Scan(path.name, str(path)), Scan("B", str(BUNDLED))])
    assert [row["status"] for row in rows] == ["done", "done"]
    assert pa.Table.from_pylist(rows, schema())["id"].to_pylist() == [r"M\udcfcller.dcm", "B"]


def test_two_threads_share_a_batch(spine_batch: SpineBatch) -> None:
    scans = [Scan(str(number), str(BUNDLED)) for number in range(6)]
    batch._estimator.cache_clear()
    with ThreadPoolExecutor(3) as pool:
        rows = [row for (row,) in pool.map(lambda scan: spine_batch.rows([scan]), scans)]
    assert batch._estimator.cache_info().misses == 1
    assert [row["id"] for row in rows] == list("012345") and len({row["max_cobb_deg"] for row in rows}) == 1


def test_files_of_each_scan_where_they_are_wanted(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.dcm").write_bytes(BUNDLED.read_bytes())
    writing = SpineBatch("lite", "onnx-cpu", 1, formats=("json",), folder=str(tmp_path / "out"))
    writing({"path": [str(tmp_path / "x/same.dcm"), str(tmp_path / "y/same.dcm")]})
    # two scans of one name do not overwrite each other
    assert len(list((tmp_path / "out").glob("same-*/result.json"))) == 2
    with pytest.raises(UsageError, match="folder"):
        SpineBatch(formats=("json",))


@pytest.mark.hazard("earlier-results")
def test_another_version_or_model_on_a_worker_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EdgeSpineError, match="is not the one that the run was started with"):
        SpineBatch("lite", "onnx-cpu", 1, model_sha256="0" * 64)({"path": [str(BUNDLED)]})
    sent = pickle.dumps(SpineBatch("lite", "onnx-cpu", 1))
    # the class of a worker with another release
    monkeypatch.setattr(batch, "__version__", "0.0.1")
    monkeypatch.setattr(SpineBatch, "version", "0.0.1", raising=False)
    with pytest.raises(EdgeSpineError, match=r"a worker has edge-spine 0\.0\.1, the run was started with"):
        pickle.loads(sent)({"path": [str(BUNDLED)]})


def test_the_model_is_loaded_once_in_a_process(spine_batch: SpineBatch) -> None:
    spine_batch({"path": [str(BUNDLED)]})
    before = batch._estimator.cache_info().misses
    for _ in range(3):
        pickle.loads(pickle.dumps(spine_batch))({"path": [str(BUNDLED)]})
    assert batch._estimator.cache_info().misses == before


def test_no_message_quotes_a_file(spine_batch: SpineBatch, tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"Doe^Jane" * 40)
    found = spine_batch({"path": [str(tmp_path / "a.dcm")]})
    assert "Doe" not in " ".join(found["message"]) and os.sep not in found["message"][0]
