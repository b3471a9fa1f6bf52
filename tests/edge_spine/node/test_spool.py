from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from edge_spine.errors import EdgeSpineError
from edge_spine.files import append_durably, write_durably
from edge_spine.node.spool import MAX_ATTEMPTS, Claim, Spool, files_in


def laid(folder: Path, name: str = "a.dcm", content: bytes = b"scan") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def claimed(spool: Spool, path: Path) -> Claim:
    claim = spool.claim(path)
    assert claim is not None
    return claim


def everything(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    }


def test_a_scan_moves_from_waiting_to_done(tmp_path: Path) -> None:
    with closing(Spool(tmp_path, keep_done=True)) as spool:
        claim = claimed(spool, laid(tmp_path))
        assert everything(tmp_path) == {"work/1/a.dcm"}
        spool.finish(claim)
    assert everything(tmp_path) == {"done/a.dcm"}


def test_a_scan_that_need_not_be_kept_is_deleted(tmp_path: Path) -> None:
    with closing(Spool(tmp_path, keep_done=False)) as spool:
        spool.finish(claimed(spool, laid(tmp_path)))
    assert everything(tmp_path) == set()


def test_a_refused_scan_lies_beside_its_reason(tmp_path: Path) -> None:
    with closing(Spool(tmp_path, keep_done=True)) as spool:
        spool.reject(claimed(spool, laid(tmp_path)), "refused", "not-dxa", "a.dcm: no")
        assert spool.count("failed") == 1
    assert json.loads((tmp_path / "failed" / "a.dcm.reason.json").read_text()) == {
        "status": "refused",
        "code": "not-dxa",
        "message": "a.dcm: no",
        "attempt": 1,
    }
    assert (tmp_path / "failed" / "a.dcm").read_bytes() == b"scan"


def test_an_earlier_scan_of_the_same_name_is_not_overwritten(tmp_path: Path) -> None:
    with closing(Spool(tmp_path, keep_done=True)) as spool:
        for content in (b"first", b"second", b"third"):
            spool.finish(claimed(spool, laid(tmp_path, content=content)))
    assert {path.read_bytes() for path in (tmp_path / "done").iterdir()} == {b"first", b"second", b"third"}


def test_a_scan_is_claimed_once(tmp_path: Path) -> None:
    with closing(Spool(tmp_path, keep_done=True)) as spool:
        path = laid(tmp_path)
        assert spool.claim(path) is not None
        assert spool.claim(path) is None


def test_a_second_scan_of_a_name_waits_while_the_first_is_in_work(tmp_path: Path) -> None:
    with closing(Spool(tmp_path, keep_done=True)) as spool:
        first = claimed(spool, laid(tmp_path, content=b"first"))
        second = laid(tmp_path, content=b"second")
        assert spool.claim(second) is None
        spool.finish(first)
        assert claimed(spool, second).path.read_bytes() == b"second"


def test_the_third_death_is_the_last(tmp_path: Path) -> None:
    laid(tmp_path)
    with closing(Spool(tmp_path, keep_done=True)) as spool:
        claimed(spool, tmp_path / "a.dcm")
    # each process takes it again and ends without a word
    for death in range(2, MAX_ATTEMPTS + 1):
        with closing(Spool(tmp_path, keep_done=True)) as spool:
            assert [claim.attempt for claim in spool.interrupted()] == [death]
    with closing(Spool(tmp_path, keep_done=True)) as spool:
        assert list(spool.interrupted()) == []
        assert spool.count("quarantine") == 1
    assert everything(tmp_path) == {"quarantine/a.dcm", "quarantine/a.dcm.reason.json"}


def test_a_scan_that_is_given_back_has_lost_no_attempt(tmp_path: Path) -> None:
    laid(tmp_path)
    with closing(Spool(tmp_path, keep_done=True)) as spool:
        spool.give_back(claimed(spool, tmp_path / "a.dcm"))
    for _ in range(5):
        with closing(Spool(tmp_path, keep_done=True)) as spool:
            (again,) = spool.interrupted()
            assert again.attempt == 1
            spool.give_back(again)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from edge_spine.errors import EdgeSpineError
from edge_spine.node.spool import Spool
try:
    Spool(Path({str(tmp_path)!r}), keep_done=True)
except EdgeSpineError as error:
    print(error)
"""
    with closing(Spool(tmp_path, keep_done=True)):
        other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "another process works on this folder" in other.stdout
    Spool(tmp_path, keep_done=True).close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    laid(tmp_path, "file")
    with pytest.raises(EdgeSpineError, match="cannot be used"):
        Spool(tmp_path / "file" / "spool", keep_done=True)


def test_a_folder_that_cannot_be_locked(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(EdgeSpineError, match="the folder cannot be used"):
        Spool(tmp_path, keep_done=True)


def test_hidden_and_unfinished_files_are_not_listed(tmp_path: Path) -> None:
    for name in (".hidden", "a.dcm.part", "b.tmp"):
        laid(tmp_path, name)
    (tmp_path / "folder").mkdir()
    late, early = laid(tmp_path, "a.dcm"), laid(tmp_path, "z.dcm")
    os.utime(early, (1, 1))
    assert files_in(tmp_path) == [early, late]
    assert files_in(tmp_path / "missing") == []


@pytest.mark.skipif(not hasattr(os, "symlink") or os.name == "nt", reason="links need a right on Windows")
def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").symlink_to("/etc/hostname")
    assert files_in(tmp_path) == []


def test_old_ends_are_purged(tmp_path: Path) -> None:
    with closing(Spool(tmp_path, keep_done=True)) as spool:
        for name in ("old.dcm", "new.dcm"):
            spool.reject(claimed(spool, laid(tmp_path, name)), "refused", "not-dxa", "no")
        for path in (tmp_path / "failed").glob("old*"):
            os.utime(path, (time.time() - 10 * 86_400,) * 2)
        assert spool.purge(9) == 2
        assert spool.purge(9) == 0
    assert everything(tmp_path) == {"failed/new.dcm", "failed/new.dcm.reason.json"}


def test_what_ended_before_the_clock_was_set_counts_from_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Spool(tmp_path, keep_done=True)) as spool:
        spool.reject(claimed(spool, laid(tmp_path)), "refused", "not-dxa", "no")
        for path in (tmp_path / "failed").iterdir():
            os.utime(path, (60, 60))
        assert spool.purge(30) == 0
        later = time.time() + 31 * 86_400
        monkeypatch.setattr(time, "time", lambda: later)
        assert spool.purge(30) == 2


def test_an_old_file_that_is_ended_now_counts_from_now(tmp_path: Path) -> None:
    path = laid(tmp_path)
    os.utime(path, (1, 1))
    with closing(Spool(tmp_path, keep_done=True)) as spool:
        spool.finish(claimed(spool, path))
        assert spool.purge(1) == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_only_this_user_can_read_it(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    with closing(Spool(root, keep_done=True)):
        write_durably(root / "a.dcm", b"scan")
    assert {path.stat().st_mode & 0o077 for path in (root, root / "work", root / "done", root / "a.dcm")} == {0}


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laid(tmp_path, content=b"before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_durably(tmp_path / "a.dcm", b"after")
    assert everything(tmp_path) == {"a.dcm"}
    assert (tmp_path / "a.dcm").read_bytes() == b"before"


# --- what is remembered


def test_appending_keeps_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for line in ("a", "b"):
        append_durably(path, line)
    assert path.read_bytes() == b"a\nb\n"


@pytest.mark.parametrize("name", ["a" * 251 + ".dcm", "\u00e4" * 125 + ".dcm", "a" * 224])
def test_a_name_without_room_for_a_reason_is_shortened_in_the_end_and_told(tmp_path: Path, name: str) -> None:
    with closing(Spool(tmp_path, keep_done=True)) as spool:
        for number in range(2):
            laid(tmp_path, name, b"%d" % number)
            spool.reject(claimed(spool, tmp_path / name), "refused", "not-dxa", "no")
        spool.finish(claimed(spool, laid(tmp_path, name, b"good")))
        spool.finish(claimed(spool, laid(tmp_path, name[:-5] + "b.dcm", b"other")))
    reasons = sorted((tmp_path / "failed").glob("*.reason.json"))
    assert [json.loads(reason.read_bytes())["name"] for reason in reasons] == [name, name]
    scans = [reason.with_name(reason.name.removesuffix(".reason.json")) for reason in reasons]
    assert {scan.read_bytes() for scan in scans} == {b"0", b"1"}
    assert {path.read_bytes() for path in files_in(tmp_path / "done")} == {b"good", b"other"}
