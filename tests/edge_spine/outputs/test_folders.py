"""Whose a folder of results is."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from edge_spine.errors import OutputError
from edge_spine.outputs import folders
from edge_spine.outputs.folders import OWNER, write_in_own_folder
from edge_spine.outputs.registry import FORMATS
from edge_spine.version import __version__
from tests.edge_spine.fake_result import fake_result
from tests.edge_spine.held_open import held_open


def written(parent: Path, path: str, *formats: str, name: str = "11") -> str:
    """Write a FAKE result of a scan with this path; return the name of its folder."""
    _, paths = write_in_own_folder(fake_result(path=path), parent, name, formats)
    (folder,) = {path.parent for path in paths}
    return folder.name


@pytest.mark.hazard("names-collide")
def test_a_scan_keeps_its_folder_and_another_gets_a_hash(tmp_path: Path) -> None:
    assert written(tmp_path, "a/11.dcm", "json", "ply") == "11"
    other = written(tmp_path, "b/11.dcm", "stl")
    assert other.startswith("11-") and len(other) == 11
    for _ in range(2):
        assert written(tmp_path, "a/11.dcm", "json") == "11"
        assert written(tmp_path, "b/11.dcm", "csv") == other
    third = written(tmp_path, "c/11.dcm", "json")
    assert len({"11", other, third}) == 3


def test_the_folder_says_whose_it_is_also_without_a_result_json(tmp_path: Path) -> None:
    written(tmp_path, "a/11.dcm", "json")
    assert [path.name for path in (tmp_path / "11").iterdir()] == ["result.json"]
    written(tmp_path, "ü/12.dcm", "csv", name="12")
    owner = json.loads((tmp_path / "12" / OWNER).read_text(encoding="utf-8"))
    assert owner == {
        "software": {"name": "edge-spine", "version": __version__},
        "scan": {"path": "ü/12.dcm", "sha256": "f" * 64, "pixel_spacing_mm": [2.427, 2.419]},
        "model": dict(fake_result().model),
    }


@pytest.mark.hazard("earlier-results")
@pytest.mark.parametrize("first", [("json", "ply", "stl"), ("ply", "stl")])
@pytest.mark.parametrize("second", [("json",), ("csv",)])
def test_files_of_other_options_never_lie_beside_the_new_ones(
    first: tuple[str, ...], second: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def names() -> set[str]:
        return {path.name for path in (tmp_path / "11").iterdir()} - {OWNER}

    before = {FORMATS[name].filename for name in first}
    new = {FORMATS[name].filename for name in second}
    written(tmp_path, "a/11.dcm", *first)
    (tmp_path / "11" / "notes.txt").write_text("mine")
    written(tmp_path, "a/11.dcm", *second)
    assert names() == before | new | {"notes.txt"} and not caplog.text
    write_in_own_folder(fake_result(path="a/11.dcm", pixel_spacing_mm=(2.5, 2.5)), tmp_path, "11", second)
    assert names() == new | {"notes.txt"} and "spine.ply" in caplog.text
    written(tmp_path, "a/11.dcm", "png")
    assert names() == {"preview.png", "notes.txt"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.hazard("earlier-results")
@pytest.mark.parametrize("opened", ["spine.ply", "spine.stl", "curves.csv", "result.json", OWNER])
def test_where_a_file_is_open_the_earlier_result_stays_whole(opened: str, tmp_path: Path) -> None:
    """As on Windows, where such a file can be neither replaced nor deleted."""
    first, second = ("ply", "stl", "csv"), ("csv", "html")
    if opened == "result.json":
        first, second = ("json", *first), ("json", *second)
    other = fake_result(path="a/11.dcm", pixel_spacing_mm=(2.5, 2.5))
    written(tmp_path, "a/11.dcm", *first)
    before = contents(tmp_path / "11")
    assert opened in before
    with held_open(tmp_path / "11" / opened), pytest.raises(PermissionError, match=opened):
        write_in_own_folder(other, tmp_path, "11", second)
    after = contents(tmp_path / "11")
    # a claim may stay: it is the same scan's
    assert {**after, OWNER: b""} == {**before, OWNER: b""}
    write_in_own_folder(other, tmp_path, "11", second)
    assert {*contents(tmp_path / "11")} - {OWNER} == {FORMATS[name].filename for name in second}


@pytest.mark.hazard("earlier-results")
def test_what_cannot_be_deleted_after_all_is_said_and_the_new_result_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def denied(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    written(tmp_path, "a/11.dcm", "json", "ply", "stl")
    monkeypatch.setattr(Path, "unlink", denied)
    other = fake_result(path="a/11.dcm", pixel_spacing_mm=(2.5, 2.5))
    result, paths = write_in_own_folder(other, tmp_path, "11", ("json", "csv"))
    assert [path.name for path in paths] == ["result.json", "curves.csv"] and all(path.exists() for path in paths)
    assert json.loads(paths[0].read_bytes())["scan"]["pixel_spacing_mm"] == [2.5, 2.5]
    assert any("spine.ply, spine.stl of an earlier result" in note for note in result.quality.notes)
    assert "deleted" not in caplog.text


@pytest.mark.hazard("names-collide")
@pytest.mark.parametrize("there", ["result.json", "spine.stl", OWNER])
def test_what_is_not_known_to_be_ours_is_another_scans(tmp_path: Path, there: str) -> None:
    (tmp_path / "11").mkdir()
    (tmp_path / "11" / there).write_text("{}")
    assert written(tmp_path, "a/11.dcm", "json").startswith("11-")
    assert (tmp_path / "11" / there).read_text() == "{}"


def test_a_folder_with_other_files_is_free(tmp_path: Path) -> None:
    (tmp_path / "11").mkdir()
    (tmp_path / "11" / "notes.txt").write_text("mine")
    assert written(tmp_path, "a/11.dcm", "json") == "11"


def test_a_killed_run_leaves_the_folder_to_its_scan(tmp_path: Path) -> None:
    (tmp_path / "11").mkdir()
    assert folders._claim(tmp_path / "11", {"scan": {"path": "a/11.dcm", "sha256": "f" * 64}})
    assert written(tmp_path, "b/11.dcm", "json").startswith("11-")
    assert written(tmp_path, "a/11.dcm", "json") == "11"


def test_an_error_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "write_outputs", full)
    with pytest.raises(OSError):
        written(tmp_path, "a/11.dcm", "json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("made", [True, False])
def test_a_claim_that_a_full_disk_cuts_short_keeps_no_scan_from_its_folder(
    made: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not made:
        (tmp_path / "11").mkdir()
    opened = Path.open

    def full(path: Path, *arguments: Any, **options: Any) -> Any:
        stream = opened(path, *arguments, **options)
        if path.name == OWNER:
            monkeypatch.setattr(stream, "write", raising)
        return stream

    def raising(_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "open", full)
        with pytest.raises(OSError, match="No space"):
            written(tmp_path, "a/11.dcm", "json")
    assert [path.name for path in tmp_path.rglob("*")] == ([] if made else ["11"])
    assert written(tmp_path, "a/11.dcm", "json") == "11"


@pytest.mark.slow
def test_of_several_at_once_each_gets_its_own(tmp_path: Path) -> None:
    """Eight writers start together, ten times, on a folder that none has."""
    for turn in range(10):
        start, found = threading.Barrier(8), {}

        def write(number: int, turn: int = turn, start: threading.Barrier = start, found: dict = found) -> None:
            start.wait()
            found[number] = written(tmp_path, f"{number}/11.dcm", "json" if number % 2 else "csv", name=f"{turn}")

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(found.values())) == 8


def test_no_folder_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_claim", lambda *_: False)
    with pytest.raises(OutputError, match="another --out"):
        written(tmp_path, "a/11.dcm", "json")
