from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from edge_spine.files import append_durably, beside, require_replaceable, write_durably, write_files
from tests.edge_spine.held_open import held_open


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.hazard("killed")
def test_a_file_appears_at_the_end_in_place_of_the_old_one(tmp_path: Path) -> None:
    place = tmp_path / "a.txt"
    place.write_text("old")
    with beside(place) as partial:
        partial.write_text("new")
        assert place.read_text() == "old" and partial.parent == tmp_path and partial.name.startswith(".a.txt.")
    assert place.read_text() == "new" and names(tmp_path) == {"a.txt"}


@pytest.mark.hazard("killed")
@pytest.mark.parametrize("kind", ["file", "folder", "nothing"])
def test_nothing_is_left_after_an_error(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), beside(tmp_path / "a") as partial:
        if kind == "file":
            partial.write_text("half")
        elif kind == "folder":
            partial.mkdir()
            (partial / "b").write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == {"a"} and (tmp_path / "a").read_text() == "old"


@pytest.mark.hazard("killed")
def test_a_folder_appears_at_the_end(tmp_path: Path) -> None:
    with beside(tmp_path / "a", durable=True) as partial:
        partial.mkdir()
        (partial / "b").write_text("b")
    assert names(tmp_path) == {"a"} and names(tmp_path / "a") == {"b"}


@pytest.mark.hazard("killed")
def test_a_folder_with_content_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a"
    for name in ("old", "new"):
        with beside(place) as partial:
            write_files(partial, {name: b""})
    assert names(tmp_path) == {"a"} and names(place) == {"new"}
    replace = Path.replace

    def fail(path: Path, target: Path) -> Path:
        if path.name.endswith(".partial"):
            assert not place.exists()
            raise OSError(28, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space"), beside(place) as partial:
        partial.mkdir()
    assert names(tmp_path) == {"a"} and names(place) == {"new"}


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege on Windows")
def test_a_link_to_a_folder_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir()
    (target / "old").write_bytes(b"1")
    link.symlink_to(target)
    with beside(link) as partial:
        partial.mkdir()
        (partial / "new").write_bytes(b"2")
    assert sorted(tmp_path.iterdir()) == [link, target] and not link.is_symlink()
    assert [path.name for folder in (link, target) for path in folder.iterdir()] == ["new", "old"]


@pytest.mark.hazard("killed")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_file_and_a_folder_do_not_replace_each_other(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "a"
    place.mkdir() if kind == "file" else place.write_text("old")
    with pytest.raises(OSError), beside(place) as partial:
        partial.write_text("new") if kind == "file" else partial.mkdir()
    assert names(tmp_path) == {"a"} and place.is_dir() == (kind == "file")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
def test_durable_files_are_private(tmp_path: Path) -> None:
    write_durably(tmp_path / "a", b"1")
    append_durably(tmp_path / "b", "2")
    append_durably(tmp_path / "b", "3")
    assert (tmp_path / "a").read_bytes() == b"1" and (tmp_path / "b").read_bytes() == b"2\n3\n"
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"} == {0o600}


@pytest.mark.hazard("killed")
def test_files_are_renamed_in_their_order_after_all_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []
    replace = Path.replace

    def noted(path: Path, target: Path) -> Path:
        seen.append((target.name, len(list(tmp_path.glob(".*.partial")))))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", noted)
    assert write_files(tmp_path, {"b": b"1", "a": b"2"}) == [tmp_path / "b", tmp_path / "a"]
    assert seen == [("b", 2), ("a", 1)]


@pytest.mark.hazard("earlier-results")
@pytest.mark.parametrize("opened", ["a", "b"])
def test_no_file_is_replaced_where_one_cannot_be(tmp_path: Path, opened: str) -> None:
    write_files(tmp_path, {"a": b"1", "b": b"1"})
    with held_open(tmp_path / opened), pytest.raises(PermissionError) as caught:
        write_files(tmp_path, {"a": b"2", "b": b"2", "c": b"2"})
    assert caught.value.filename == str(tmp_path / opened)
    assert names(tmp_path) == {"a", "b"}
    assert {(tmp_path / name).read_bytes() for name in "ab"} == {b"1"}
    write_files(tmp_path, {"a": b"2", "b": b"2"})
    assert {(tmp_path / name).read_bytes() for name in "ab"} == {b"2"}


def test_a_file_that_another_process_deletes_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda _path: True)
    require_replaceable([tmp_path / "deleted"])


@pytest.mark.hazard("killed")
def test_a_folder_that_was_made_goes_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        write_files(tmp_path / "new", {"a": b"1", "no/such": b"2"})
    assert names(tmp_path) == set()
