"""The loop alone, with FAKE handling: what a service that never ends must survive."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("filelock", reason="pip install '.[node]'")

from edge_spine.errors import EngineLost, InputUnavailable
from edge_spine.node import worker as worker_module
from edge_spine.node.records import Audit
from edge_spine.node.spool import Claim, Spool, files_in
from edge_spine.node.worker import Worker
from edge_spine.runner import Report

Handle = Callable[[Claim, str], list[Report]]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_RETRY_S", 0.0)
    monkeypatch.setattr(worker_module, "_STORAGE_WAIT_S", 0.0)


def run_once(folder: Path, handle: Handle) -> list[Report]:
    reports: list[Report] = []
    with closing(Spool(folder, keep_done=True)) as spool:
        worker = Worker(spool, Audit(folder / "audit.jsonl"), handle, reports.append)
        worker.run(lambda: [path for path in files_in(folder) if path.suffix == ".dcm"], once=True)
    return reports


def where(folder: Path) -> str:
    (found,) = (path.parent.relative_to(folder).as_posix() for path in folder.rglob("a.dcm"))
    return found


def test_a_failure_is_tried_three_times_and_then_put_aside(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"scan")
    tried: list[int] = []

    def fail(claim: Claim, _content: str) -> list[Report]:
        tried.append(claim.attempt)
        return [Report("a", "failed", message="a: no")]

    assert [report.status for report in run_once(tmp_path, fail)] == ["failed"]
    assert tried == [1, 2, 3] and where(tmp_path) == "failed"


def test_a_refusal_is_not_tried_again(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"scan")
    tried: list[int] = []

    def refuse(claim: Claim, _content: str) -> list[Report]:
        tried.append(claim.attempt)
        return [Report("a", "refused", "no-spine", "a: no")]

    run_once(tmp_path, refuse)
    assert tried == [1] and where(tmp_path) == "failed"
    events = [json.loads(line)["event"] for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert events == ["refused"]


@pytest.mark.hazard("disk-full")
def test_a_disk_without_room_is_waited_for_and_costs_no_attempt(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"scan")
    tried: list[int] = []

    def full_at_first(claim: Claim, _content: str) -> list[Report]:
        tried.append(claim.attempt)
        if len(tried) <= 2000:
            raise OSError(28, "No space left on device")
        return [Report("a", "done", message="a: done")]

    assert [report.status for report in run_once(tmp_path, full_at_first)] == ["done"]
    assert set(tried) == {1} and where(tmp_path) == "done"


def test_a_scan_that_is_taken_away_is_let_go(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"scan")

    def vanish(claim: Claim, _content: str) -> list[Report]:
        claim.path.unlink()
        raise FileNotFoundError(2, "No such file or directory")

    assert run_once(tmp_path, vanish) == []
    assert not list(tmp_path.rglob("a.dcm"))


def test_a_scan_that_cannot_be_read_now_holds_up_no_other_and_is_tried_again(tmp_path: Path) -> None:
    for name in ("a.dcm", "b.dcm"):
        (tmp_path / name).write_bytes(name.encode())
    tried: list[str] = []
    reports: list[Report] = []

    def away_at_first(claim: Claim, _key: str) -> list[Report]:
        tried.append(claim.name)
        assert claim.attempt == 1, "it costs no attempt"
        if claim.name == "a.dcm" and tried.count("a.dcm") <= 5:
            raise InputUnavailable("a: the file cannot be read now (Stale file handle)")
        if tried.count("a.dcm") == 6:
            worker.end()
        return [Report(claim.name, "done", message="yes")]

    with closing(Spool(tmp_path, keep_done=True)) as spool:
        worker = Worker(spool, Audit(tmp_path / "audit.jsonl"), away_at_first, reports.append)
        worker.run(lambda: [path for path in files_in(tmp_path) if path.suffix == ".dcm"], idle_s=0.01)
    assert set(tried[:2]) == {"a.dcm", "b.dcm"} and tried.count("a.dcm") == 6
    ends = sorted((report.source, report.status) for report in reports)
    assert ends == [("a.dcm", "done"), ("a.dcm", "failed"), ("b.dcm", "done")], "one report of the trouble, not five"
    assert sorted(path.name for path in (tmp_path / "done").iterdir()) == ["a.dcm", "b.dcm"]


def test_pauses_grow_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_RETRY_S", 1.0)
    monkeypatch.setattr(worker_module, "_LONGEST_RETRY_S", 5.0)
    (tmp_path / "a.dcm").write_bytes(b"scan")
    with closing(Spool(tmp_path, keep_done=True)) as spool:
        worker = Worker(spool, Audit(tmp_path / "audit.jsonl"), lambda _claim, _key: [], lambda _report: None)
        pauses = []
        claim = spool.claim(tmp_path / "a.dcm")
        for _ in range(5):
            assert claim is not None
            worker._postpone(claim, "away")
            pauses.append(worker._postponed["a.dcm"].pause_s)
            claim = spool.retry(worker._postponed["a.dcm"].claim)
    assert pauses == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_scan_that_cannot_be_read_at_the_end_is_left_for_the_next_process(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"scan")

    def away(_claim: Claim, _key: str) -> list[Report]:
        raise InputUnavailable("a: away")

    reports = run_once(tmp_path, away)
    assert [report.status for report in reports] == ["failed"] and where(tmp_path) == "work/0"
    assert [report.status for report in run_once(tmp_path, lambda *_: [Report("a", "done", message="yes")])] == ["done"]


def test_one_scan_of_several_that_failed_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"zip")
    several = [Report("a", "done", message="yes"), Report("b", "failed", message="no")]
    tried: list[int] = []

    def handle(claim: Claim, _key: str) -> list[Report]:
        tried.append(claim.attempt)
        return several

    run_once(tmp_path, handle)
    assert tried == [1, 2, 3] and where(tmp_path) == "failed"


def test_one_scan_of_several_that_is_done_is_enough(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"zip")
    several = [Report("a", "refused", "not-dxa", "no"), Report("b", "done", message="yes")]
    assert run_once(tmp_path, lambda _claim, _content: several) == several
    assert where(tmp_path) == "done"


def test_an_end_while_waiting_gives_the_scan_back(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"scan")
    with closing(Spool(tmp_path, keep_done=True)) as spool:
        worker = Worker(spool, Audit(tmp_path / "audit.jsonl"), lambda _claim, _content: _stop(worker), print)
        worker.run(lambda: [path for path in files_in(tmp_path) if path.suffix == ".dcm"])
    assert where(tmp_path) == "work/0"


def _stop(worker: Worker) -> list[Report]:
    worker.end()
    raise OSError(28, "No space left on device")


def test_a_lost_engine_ends_the_loop_and_the_next_process_does_the_scan(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"scan")

    def lose(claim: Claim, _content: str) -> list[Report]:
        raise EngineLost("tensorrt: the GPU failed")

    with pytest.raises(EngineLost):
        run_once(tmp_path, lose)
    assert where(tmp_path) not in ("failed", "done")
    assert [report.status for report in run_once(tmp_path, lambda *_: [Report("a", "done")])] == ["done"]
    assert where(tmp_path) == "done"
