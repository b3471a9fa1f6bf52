"""Tables of a cohort: every column explained, the manifest's columns carried, participants that are never mixed up."""

from __future__ import annotations

import csv
import gzip
import json
import pickle
import shutil
import subprocess
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from edge_spine.cohort.manifest import Scan, read_manifest
from edge_spine.cohort.rows import row_of
from edge_spine.cohort.shards import Shards
from edge_spine.cohort.tables import COLUMNS, participants, remove_tables, write_tables
from edge_spine.csv_tables import RULE
from edge_spine.errors import EdgeSpineError, UsageError
from edge_spine.measure import MIN_CURVE_DEG
from edge_spine.runner import Report
from tests.edge_spine.fake_result import fake_result

MANIFEST = (
    "id,path,Sex,status,participant_id,note\n"
    'A1,a.dcm,F,active,sub-01,"one\ttab"\nA2,b.dcm,F,left,sub-01,\nB,c.dcm,M,active,02,x\nC,d.dcm,F,active,03,\n'
)
NOTE = {"model_sha256": "0" * 64}


def tables(folder: Path, **options: bool) -> list[Scan]:
    """Write the tables of four scans: two of one participant, one with a result, one refused."""
    (folder / "list.csv").write_text(MANIFEST, encoding="utf-8")
    scans = read_manifest(folder / "list.csv")
    result = fake_result()
    with closing(Shards(folder, NOTE)) as shards:
        for scan in scans[:3]:
            shards.add([row_of(scan.id, scan.path, None, Report(scan.path, "done", message="yes"), result)])
        shards.add([row_of("C", scans[3].path, None, Report("d.dcm", "refused", "no-spine", "no, no"), None)])
    write_tables(folder, scans, **options)
    return scans


def read(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def test_a_row_for_each_scan_with_the_columns_of_the_manifest(tmp_path: Path) -> None:
    tables(tmp_path)
    rows = {row["id"]: row for row in read(tmp_path / "measurements.csv")}
    assert [*rows["A1"]] == [*COLUMNS, "Sex", "manifest_status", "participant_id", "note"]
    assert {name: (row["status"], row["manifest_status"], row["Sex"]) for name, row in rows.items()} == {
        **{"A1": ("done", "active", "F"), "A2": ("done", "left", "F"), "B": ("done", "active", "M")},
        "C": ("refused", "active", "F"),
    }
    measured = fake_result().measurements
    assert float(rows["B"]["max_cobb_deg"]) == pytest.approx(measured.max_cobb_deg, abs=1e-6)
    assert rows["A1"]["note"] == "one\ttab" and rows["C"]["code"] == "no-spine" and rows["C"]["max_cobb_deg"] == ""
    assert not (tmp_path / "bids").exists()


@pytest.mark.hazard("inferred-as-measured")
def test_the_dictionary_explains_every_column_with_its_unit(tmp_path: Path) -> None:
    tables(tmp_path, bids=True)
    for table, described, delimiter in (
        ("measurements.csv", "measurements.json", ","),
        ("bids/participants.tsv", "bids/participants.json", "\t"),
    ):
        dictionary = json.loads((tmp_path / described).read_text(encoding="utf-8"))
        assert [*read(tmp_path / table, delimiter)[0]] == [*dictionary]
        assert all(column["Description"] for column in dictionary.values())
        units = {name: column.get("Units") for name, column in dictionary.items()}
        assert (units["max_cobb_deg"], units["volume_ml"], units["Sex"]) == ("deg", "ml", None)
        assert units["max_cobb_error_90_deg"] == "deg" and units["largest_curve_cobb_deg"] == "deg"
    assert f"{MIN_CURVE_DEG:g} degrees" in COLUMNS["scoliosis_curves"]
    assert "inferred, not seen" in COLUMNS["kyphosis_t4_t12_deg"]


def test_no_column_of_a_study_becomes_a_formula(tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_bytes(b"id,path,=1+1,age\xff,note\n=A1,a.dcm,@x,-3,b;=1+1\n")
    scans = read_manifest(manifest)
    with closing(Shards(tmp_path, NOTE)) as shards:
        shards.add([row_of("=A1", scans[0].path, None, Report("a.dcm", "refused", "no-spine", "- no"), None)])
    write_tables(tmp_path, scans, bids=True)
    for table, described, delimiter in (
        ("measurements.csv", "measurements.json", ","),
        ("bids/participants.tsv", "bids/participants.json", "\t"),
    ):
        (row,) = read(tmp_path / table, delimiter)
        assert [*row] == [*(dictionary := json.loads((tmp_path / described).read_text(encoding="utf-8")))]
        assert (row["'=1+1"], row["age\\udcff"], row["note"]) == ("'@x", "-3", "b;'=1+1")
        assert dictionary["note"]["Text"] == RULE and "Text" not in dictionary["max_cobb_deg"]
        if delimiter == ",":
            assert (row["id"], row["message"]) == ("'=A1", "'- no") and dictionary["id"]["Text"] == RULE


@pytest.mark.hazard("names-collide")
def test_two_results_of_one_participant_are_never_chosen_from(tmp_path: Path) -> None:
    tables(tmp_path, bids=True)
    people = {row["participant_id"]: row for row in read(tmp_path / "bids" / "participants.tsv", "\t")}
    assert {name: (row["scans"], row["scans_done"]) for name, row in people.items()} == {
        **{"sub-01": ("2", "2"), "sub-02": ("1", "1"), "sub-03": ("1", "0")}
    }
    assert people["sub-01"]["max_cobb_deg"] == people["sub-03"]["max_cobb_deg"] == "n/a"
    assert float(people["sub-02"]["max_cobb_deg"]) > 0
    # what both scans say, and what they do not agree about
    assert (people["sub-01"]["Sex"], people["sub-01"]["manifest_status"]) == ("F", "n/a")
    about = json.loads((tmp_path / "bids" / "dataset_description.json").read_text(encoding="utf-8"))
    assert about["DatasetType"] == "derivative" and about["GeneratedBy"][0]["Name"] == "edge-spine"


@pytest.mark.hazard("earlier-results")
def test_a_run_that_goes_on_leaves_no_stale_table(tmp_path: Path) -> None:
    tables(tmp_path, bids=True)
    written = {path for path in tmp_path.rglob("*.*") if path.suffix in (".csv", ".tsv", ".json")}
    remove_tables(tmp_path)
    kept = {path.name for path in written if path.exists()}
    assert kept == {"list.csv", "cohort.json"} and len(written) == 7
    remove_tables(tmp_path)


def test_a_table_that_is_open_elsewhere_is_one_line(tmp_path: Path) -> None:
    # a folder cannot be deleted as a file, as little as a file that a spreadsheet holds open on Windows
    (tmp_path / "measurements.csv").mkdir()
    with pytest.raises(EdgeSpineError, match=r"measurements\.csv: cannot be replaced") as caught:
        remove_tables(tmp_path)
    assert "\n" not in str(caught.value)


def test_columns_of_the_manifest_never_take_each_others_place(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,id,status,manifest_status\na.dcm,A,x,y\n", encoding="utf-8")
    scans = read_manifest(tmp_path / "list.csv")
    with closing(Shards(tmp_path, NOTE)) as shards:
        shards.add([row_of("A", scans[0].path, None, Report("a.dcm", "refused", "no-spine", "no"), None)])
    write_tables(tmp_path, scans)
    (row,) = read(tmp_path / "measurements.csv")
    assert (row["status"], row["manifest_status"], row["manifest_manifest_status"]) == ("refused", "y", "x")


@pytest.mark.hazard("names-collide")
@pytest.mark.parametrize("ids", [("A-1", "A1"), ("sub-A", "A"), ("--",), ("ä",)])
def test_two_participants_never_become_one(ids: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="gives no unique label") as caught:
        participants([Scan(name, f"/{number}") for number, name in enumerate(ids)])
    assert "\n" not in str(caught.value)


def test_the_columns_of_a_study_stay_where_the_run_was_started(tmp_path: Path) -> None:
    scan = Scan("A", "/a", (2.0, 2.0), None, (("Name", "SECRET^NAME"),))
    sent = pickle.dumps(scan)
    assert b"SECRET" not in sent and pickle.loads(sent) == scan and "SECRET" not in repr(scan)


@pytest.mark.slow
def test_the_validator_of_bids_finds_no_fault(tmp_path: Path) -> None:
    validator = shutil.which("bids-validator")
    if validator is None:
        pytest.skip("npm's bids-validator is not installed (.ci/run installs it)")
    tables(tmp_path, bids=True)
    data = tmp_path / "bids"
    # the images of the study, to which the tables are added
    for name in ("sub-01", "sub-02", "sub-03"):
        (data / name / "anat").mkdir(parents=True)
        (data / name / "anat" / f"{name}_T1w.nii.gz").write_bytes(gzip.compress(bytes(400)))

    def errors() -> list[str]:
        command = [validator, str(data), "--json", "--ignoreNiftiHeaders"]
        ended = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120)
        return [issue["key"] for issue in json.loads(ended.stdout)["issues"]["errors"]]

    assert errors() == []
    table = data / "participants.tsv"
    table.write_text(table.read_text(encoding="utf-8").replace("sub-02", "2"), encoding="utf-8")
    assert "PARTICIPANT_ID_PATTERN" in errors()


def test_scans_that_the_manifest_names_no_more_are_in_no_table(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of people who have withdrawn, or under an id that was mended."""
    scans = tables(tmp_path)
    write_tables(tmp_path, [replace(scans[0], id="A9"), scans[2]])
    assert [row["id"] for row in read(tmp_path / "measurements.csv")] == ["B"]
    assert "3 rows of scans that the manifest does not name are left out" in caplog.text
