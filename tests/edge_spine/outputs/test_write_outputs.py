from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from edge_spine import files as atomic
from edge_spine.errors import UsageError
from edge_spine.outputs import write_outputs
from edge_spine.outputs.registry import DEFAULT_FORMATS, parse_formats
from tests.edge_spine.fake_result import fake_result


def test_formats_are_parsed_in_a_fixed_order() -> None:
    assert parse_formats("png, json,PNG") == ("json", "png")
    assert parse_formats("stl,png,ply,json") == (*DEFAULT_FORMATS, "stl")


@pytest.mark.parametrize("names", ["json,docx", "", " , "])
def test_an_unknown_format_is_named_with_the_known_ones(names: str) -> None:
    with pytest.raises(UsageError, match="json, ply, png") as caught:
        parse_formats(names)
    if "docx" in names:
        assert "'docx'" in str(caught.value)


def test_all_outputs_are_written_and_timed(tmp_path: Path, valid: jsonschema.Draft202012Validator) -> None:
    folder = tmp_path / "new" / "scan"
    result, paths = write_outputs(fake_result(), folder)
    assert sorted(path.name for path in paths) == sorted(path.name for path in folder.iterdir())
    assert sorted(path.name for path in paths) == ["preview.png", "result.json", "spine.ply"]
    written = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    valid.validate(written)
    assert 0 < written["timing_ms"]["write"] < result.timing_ms["write"]
    assert result.timing_ms["total"] == pytest.approx(result.timing_ms["write"])


def test_only_what_is_asked_for_is_written_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("old", encoding="utf-8")
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    _, paths = write_outputs(fake_result(), tmp_path, ["json"])
    assert paths == [tmp_path / "result.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "result.json"]
    assert json.loads(paths[0].read_text(encoding="utf-8"))["timing_ms"]["write"] < 50


def test_a_failed_write_leaves_the_old_files_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")
    real_write = Path.write_bytes

    def full_disk(path: Path, content: bytes) -> int:
        if path.name.startswith(".b"):
            real_write(path, content[:1])
            raise OSError(28, "No space left on device")
        return real_write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        atomic.write_files(tmp_path, {"a": b"new", "b": b"new"})
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
    with pytest.raises(OSError, match="No space"):
        atomic.write_files(tmp_path / "made", {"a": b"new", "b": b"new"})
    assert not (tmp_path / "made").exists()


def test_an_interruption_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path, content: bytes) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_files(tmp_path / "made", {"a": b"new"})
    assert list(tmp_path.iterdir()) == []
