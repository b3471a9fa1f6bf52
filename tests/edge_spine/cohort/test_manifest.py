"""What may stand in a manifest, and that nothing in it is opened."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path

import pytest

from edge_spine.cohort.manifest import Scan, read_manifest
from edge_spine.errors import UsageError
from tests.edge_spine.cohort.conftest import BUNDLED


def written(folder: Path, text: str, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_with_ids_and_spacings(tmp_path: Path) -> None:
    text = "\ufeffID, Path ,row_spacing_mm,column_spacing_mm,sex\nP1,a.png,2.4,2.5,F\nP2,/srv/b.dcm,,,M\n,c.dcm,,,\n\n"
    assert read_manifest(written(tmp_path, text), (1.0, 1.0)) == [
        Scan("P1", str(tmp_path / "a.png"), (2.4, 2.5)),
        Scan("P2", "/srv/b.dcm", (1.0, 1.0)),
        Scan("c.dcm", str(tmp_path / "c.dcm"), (1.0, 1.0)),
    ]


def test_tabs_and_bare_paths(tmp_path: Path) -> None:
    assert read_manifest(written(tmp_path, "path\tid\na, b.dcm\tP1\n")) == [Scan("P1", str(tmp_path / "a, b.dcm"))]
    bare = written(tmp_path, "# from the archive\na.dcm\n\n  b.dcm\na.dcm\n", "list.txt")
    assert read_manifest(bare) == [Scan("a.dcm", str(tmp_path / "a.dcm")), Scan("b.dcm", str(tmp_path / "b.dcm"))]


def test_a_folder_is_its_scans(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.dcm", "deep/a.dcm"):
        (tmp_path / name).write_bytes(BUNDLED.read_bytes())
    (tmp_path / "notes.txt").write_text("no scan", encoding="utf-8")
    assert [scan.id for scan in read_manifest(tmp_path)] == ["b.dcm", "deep/a.dcm"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no scan in it"),
        ("path,id\n", "no scan in it"),
        ("id,path\nP1,a\nP1,b\n", "the id 'P1' names two files"),
        ("path,row_spacing_mm\na.png,2.4\n", "must both be millimetres"),
        ("path,row_spacing_mm,column_spacing_mm\na.png,nan,2\n", "must both be millimetres"),
        ("path,row_spacing_mm,column_spacing_mm\na.png,0,2\n", "must both be millimetres"),
    ],
)
def test_what_makes_no_sense_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        read_manifest(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_unreadable_manifests(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^none\.csv: "):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"path\n\xff\xfe\x00")
    with pytest.raises(UsageError, match="not a text in UTF-8"):
        read_manifest(tmp_path / "binary.csv")


CSV = {
    "R": '"path","id"\n"a.dcm","A"\n"b.dcm","B"\n',
    "spaces": "id, path\nA, a.dcm\nB, b.dcm\n",
    "old Mac": "path,id\ra.dcm,A\rb.dcm,B\r",
    "Windows": "path,id\r\na.dcm,A\r\nb.dcm,B\r\n",
    "Excel, German": "id;path;row_spacing_mm;column_spacing_mm\nA;a.dcm;2,4;2,5\nB;b.dcm;;\n",
    "Excel, with a note": "sep=;\nid;path\nA;a.dcm\nB;b.dcm\n",
    "bars": "id|PATH|note\nA|a.dcm|x, y\nB|b.dcm|\n",
    "comments first": "# exported 2024\n\npath,id\na.dcm,A\nb.dcm,B\n",
    "cells of several lines": 'id,note,path\nA,"one\ntwo",a.dcm\nB,,b.dcm\n',
    "empty cells at the end": "path,id\na.dcm,A,,\nb.dcm,B,\n , \n",
}


@pytest.mark.parametrize("text", CSV.values(), ids=CSV)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_of_every_make(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    found = read_manifest(tmp_path / "list.csv")
    assert [(scan.id, scan.path, scan.problem) for scan in found] == [
        ("A", str(tmp_path / "a.dcm"), None),
        ("B", str(tmp_path / "b.dcm"), None),
    ]
    assert found[0].pixel_spacing_mm == ((2.4, 2.5) if "2,4" in text else None)


def test_paths_with_delimiters_and_quotes(tmp_path: Path) -> None:
    (tmp_path / "x, y.dcm").write_bytes(b"")
    for text in ('path,id\n"x, y.dcm",A\n', "x, y.dcm\n", '"x, y.dcm"\n', 'a.dcm\n"x, y.dcm"\n'):
        assert read_manifest(written(tmp_path, text))[-1].path == str(tmp_path / "x, y.dcm")


@pytest.mark.parametrize("text", ["file,subject\na.dcm,A\n", '"Datei";"ID"\n"a.dcm";1\n', "scan\na.dcm\n", "a.dcm,A\n"])
def test_unknown_columns_are_one_clear_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"no column 'path' \(the first line has ") as caught:
        read_manifest(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_column_that_is_there_twice_and_a_quote_without_end_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="2 columns are named 'path'"):
        read_manifest(written(tmp_path, "path,path,id\na.dcm,b.dcm,A\n"))
    with pytest.raises(UsageError, match=r"line \d: unexpected end of data"):
        read_manifest(written(tmp_path, 'id,path\nA,a.dcm\n"B,b.dcm\nC,c.dcm\n'))


@pytest.mark.hazard("bad-file")
def test_a_bad_line_does_not_lose_the_others(tmp_path: Path) -> None:
    text = (
        "id,path,row_spacing_mm,column_spacing_mm\n"
        "A,a.dcm,2.4,2.4\nB,b.dcm,2.4,\nC,c, with comma.dcm,2.4,2.4\nD,,,\nE,e.dcm,,\n"
    )
    found = {scan.id: scan for scan in read_manifest(written(tmp_path, text))}
    assert {scan_id: scan.problem is None for scan_id, scan in found.items()} == {
        **{"A": True, "B": False, "C": False, "D": False, "E": True}
    }
    assert "both be millimetres" in found["B"].problem
    assert "line 4 has more cells than the header" in found["C"].problem
    assert "line 5 names no file" in found["D"].problem


@pytest.mark.hazard("bad-file")
def test_paths_that_are_there_again_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert [scan.id for scan in read_manifest(written(tmp_path, "path,id\na.dcm,A\na.dcm,B\n"))] == ["A"]
    assert "1 lines name a path again and are left out (B)" in caplog.text


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"path,id\nM\xfcller.dcm,M\xfcller\na.dcm,A\n")
    first, second = read_manifest(tmp_path / "list.csv")
    assert os.fsencode(first.path).endswith(b"M\xfcller.dcm") or os.name == "nt"
    assert second.id == "A"


@pytest.mark.hazard("bad-file")
def test_what_a_folder_holds_beside_scans_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.dcm").write_bytes(BUNDLED.read_bytes())
    (tmp_path / "notes.txt").write_text("no scan", encoding="utf-8")
    assert len(read_manifest(tmp_path)) == 1
    assert "1 no image (notes.txt)" in caplog.text


@pytest.mark.slow
def test_fifty_thousand_lines_are_read_in_seconds_and_nothing_is_opened(tmp_path: Path) -> None:
    lines = "".join(f"P{k},/nowhere/{k}.dcm\n" for k in range(50_000))
    started = time.perf_counter()
    assert len(read_manifest(written(tmp_path, "id,path\n" + lines))) == 50_000
    assert time.perf_counter() - started < 5


@pytest.mark.hazard("spacing-missing")
def test_a_spacing_under_another_name_is_said_to_be_of_no_use(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise the spacing that a DICOM file states would be taken for the user's."""
    found = read_manifest(written(tmp_path, "path,row_spacing,col_spacing\na.dcm,2.4,2.4\n"))
    assert found[0].pixel_spacing_mm is None
    assert "'row_spacing' and 'col_spacing' not used" in caplog.text


def test_a_long_cell_does_not_lose_the_manifest(tmp_path: Path) -> None:
    text = f"path,report\na.dcm,{'x' * 200_000}\nb.dcm,y\n"
    assert [scan.path for scan in read_manifest(written(tmp_path, text))] == [
        str(tmp_path / n) for n in ("a.dcm", "b.dcm")
    ]
    # the limit is one of the process: a manifest that is still being read leaves it as it was
    begun = [iter(read_manifest(written(tmp_path, text))) for _ in range(2)]
    assert all(next(scans).path == str(tmp_path / "a.dcm") for scans in begun)
    with pytest.raises(csv.Error, match="field larger than"):
        list(csv.reader(["x" * 200_000]))
