"""What may stand in a manifest, and that nothing in it is opened."""

from __future__ import annotations

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


@pytest.mark.slow
def test_fifty_thousand_lines_are_read_in_seconds_and_nothing_is_opened(tmp_path: Path) -> None:
    lines = "".join(f"P{k},/nowhere/{k}.dcm\n" for k in range(50_000))
    started = time.perf_counter()
    assert len(read_manifest(written(tmp_path, "id,path\n" + lines))) == 50_000
    assert time.perf_counter() - started < 5
