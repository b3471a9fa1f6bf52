"""Runs on a real process pool: complete, resumed, interrupted, with workers and with the run itself killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest

from edge_spine.cohort import SpineBatch, read_cohort
from edge_spine.cohort.manifest import Scan
from edge_spine.cohort.rows import Row, row_of
from edge_spine.cohort.run import MOST_DEATHS, Outcome, left_to_do, work_through
from edge_spine.cohort.shards import Shards, shard_files
from edge_spine.cohort.workers import Finished
from edge_spine.runner import Report
from tests.edge_spine.cli.running import Ended
from tests.edge_spine.cohort.conftest import BUNDLED, NOTE, ROOT, Here, check_whole, command, run

# the run waits after its first shard, so that it is ended before it is complete, also on a busy machine; not again if
# the interruption comes within that write, which is then repeated
WAITING = (
    "import time; write, waits = shards.Shards.write, [0] * 99 + [60]; "
    "shards.Shards.write = lambda self: self._rows and [wait := waits.pop(), write(self), time.sleep(wait)]"
)


def test_the_summary_counts_in_words() -> None:
    ends = Counter({("done", ""): 1})
    assert Outcome(ends, 0).line() == "1 scan: 1 done"
    ends.update([("failed", "failed"), ("failed", "worker-died"), ("refused", "no-spine")])
    assert Outcome(ends, 0).line() == "4 scans: 1 done, 1 failed, 1 failed (worker-died), 1 refused (no-spine)"


@pytest.mark.slow
def test_a_run_ends_with_a_row_for_each_scan_and_the_same_again_does_nothing(
    manifest: Path, tmp_path: Path, run_here: Callable[..., Ended]
) -> None:
    ended = run(manifest, "--out", tmp_path / "out", "--workers", "2", "--json")
    assert ended.returncode == 1, ended.stderr
    assert json.loads(ended.stdout) == {
        "scans": 24,
        "earlier": 0,
        "problem": None,
        "ends": [
            {"status": "done", "code": None, "count": 23},
            {"status": "refused", "code": "unreadable", "count": 1},
        ],
    }
    check_whole(tmp_path / "out", 24)
    before = {path: path.read_bytes() for path in shard_files(tmp_path / "out")}
    assert len(before) > 1
    again = run_here(manifest, "--out", tmp_path / "out", "--workers", "2")
    assert again.returncode == 1 and "24 of them by earlier runs" in again.stdout
    assert {path: path.read_bytes() for path in shard_files(tmp_path / "out")} == before
    # stdout is one line, and nothing of it names a place on this disk
    assert again.stdout.count("\n") == 1 and str(tmp_path) not in again.stdout + again.stderr


@pytest.mark.slow
@pytest.mark.hazard("killed")
def test_a_run_that_is_killed_goes_on_where_it_was(
    manifest: Path, tmp_path: Path, run_here: Callable[..., Ended]
) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        command(manifest, "--out", out, "--workers", "2", before=WAITING),
        env={**os.environ, "COHORT_UNDER_TEST": str(out)},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 120
        while not shard_files(out) and time.monotonic() < deadline:
            time.sleep(0.01)
        workers = processes_of(out) - {process.pid}
        process.kill()
    kept = len(read_cohort(out))
    assert 0 < kept < 24
    if sys.platform.startswith("linux"):
        assert len(workers) >= 2
        # they do not outlive the run
        while workers & processes_of(out) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not workers & processes_of(out)
    ended = run_here(manifest, "--out", out, "--workers", "1", "--json")
    assert json.loads(ended.stdout)["earlier"] == kept
    check_whole(out, 24)


def processes_of(out: Path) -> set[int]:
    """Processes with the mark of a run in their environment, where the system shows it."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"COHORT_UNDER_TEST={out}".encode() in path.read_bytes().split(b"\0"):
                found.add(int(path.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C goes to every process of a console there")
def test_an_interruption_keeps_what_is_finished(manifest: Path, tmp_path: Path, run_here: Callable[..., Ended]) -> None:
    out = tmp_path / "out"
    words = command(manifest, "--out", out, "--workers", "2", before=WAITING)
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not shard_files(out) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said.decode().strip().endswith("edge-spine: interrupted")
    assert "Traceback" not in said.decode()
    assert 0 < len(read_cohort(out)) < 24
    assert run_here(manifest, "--out", out, "--workers", "2").returncode == 1
    check_whole(out, 24)


class FakeWorkers(Here):
    """FAKE workers in this process, which lose what they are told to and count what is under way."""

    def __init__(self, *fatal: str) -> None:
        super().__init__(SpineBatch(), None)
        self.count, self.fatal, self.most = 2, fatal, 0
        self.tried: list[tuple[str, ...]] = []

    def submit(self, scans: tuple[Scan, ...]) -> None:
        super().submit(scans)
        self.most = max(self.most, len(self._queue))

    def wait(self, seconds: float) -> list[Finished]:
        scans = self._queue.pop(0)
        self.tried.append(tuple(scan.id for scan in scans))
        if any(scan.id in self.fatal for scan in scans):
            return [Finished(scans, lost=True)]
        return [Finished(scans, [row_of(scan.id, scan.path, None, Report("", "done"), None) for scan in scans])]


def test_suspects_work_alone_and_little_is_under_way(tmp_path: Path) -> None:
    taken = 0

    def scans() -> Iterator[Scan]:
        nonlocal taken
        for number in range(40):
            taken += 1
            yield Scan(f"{number}", f"/{number}")

    workers, rows = FakeWorkers("5", "33"), []
    with closing(Shards(tmp_path, NOTE)) as shards:

        def seen(row: Row) -> None:
            rows.append(row)
            # the manifest is taken as it is needed
            assert taken - len(rows) <= 4 * 4 + 4

        work_through(scans(), workers, shards, seen, chunk=4)
    assert sorted(int(row["id"]) for row in rows) == list(range(40))
    assert {row["id"] for row in rows if row["code"] == "worker-died"} == {"5", "33"}
    for fatal in ("5", "33"):
        assert workers.tried.count((fatal,)) == MOST_DEATHS
    assert workers.most == 4


def test_failed_scans_are_tried_again_where_that_is_wanted(tmp_path: Path) -> None:
    scans = [Scan("a", "/a"), Scan("b", "/b"), Scan("c", "/c")]
    with closing(Shards(tmp_path, NOTE)) as shards:
        shards.add([row_of("a", "/a", None, Report("", "failed"), None)])
        shards.add([row_of("b", "/b", None, Report("", "refused", "no-spine"), None)])
    with closing(Shards(tmp_path, NOTE)) as shards:
        left, outcome = left_to_do(scans, shards, SpineBatch(), retry_failed=False)
        assert [scan.id for scan in left] == ["c"] and outcome.earlier == 2 and not outcome.good()
        left, outcome = left_to_do(scans, shards, SpineBatch(), retry_failed=True)
        assert [scan.id for scan in left] == ["a", "c"] and outcome.earlier == 1
        shards.add([row_of("a", "/a", None, Report("", "done"), None)])
    # the later try stands
    assert {row["id"]: row["status"] for row in read_cohort(tmp_path).to_pylist()} == {"a": "done", "b": "refused"}


def rows_by_id(out: Path) -> dict[str, dict[str, object]]:
    return {row["id"]: row for row in read_cohort(out).to_pylist()}


@pytest.mark.slow
def test_what_was_away_is_failed_and_tried_again(tmp_path: Path, run_here: Callable[..., Ended]) -> None:
    """A manifest is written before its files are there, as of a share that is not mounted yet."""
    (tmp_path / "list.csv").write_text("path,id\nmnt/a.dcm,A\nmnt/b.zip,B\n", encoding="utf-8")
    out = tmp_path / "out"
    first = run_here(tmp_path / "list.csv", "--out", out)
    assert first.returncode == 1 and first.stdout.startswith("2 scans: 2 failed")
    assert "no such file" in str(rows_by_id(out)["A"]["message"])
    (tmp_path / "mnt").mkdir()
    (tmp_path / "mnt" / "a.dcm").write_bytes(BUNDLED.read_bytes())
    with zipfile.ZipFile(tmp_path / "mnt" / "b.zip", "w") as archive:
        archive.write(BUNDLED, "s1/11.dcm")
    assert run_here(tmp_path / "list.csv", "--out", out).returncode == 1
    last = run_here(tmp_path / "list.csv", "--out", out, "--retry-failed")
    assert last.returncode == 0 and last.stdout.startswith("2 scans: 2 done")
    digest = hashlib.sha256(BUNDLED.read_bytes()).hexdigest()
    assert {row["sha256"] for row in rows_by_id(out).values()} == {digest}
    # a table that cannot be written, as where a spreadsheet holds it open, does not hide the results
    (out / "measurements.csv").unlink()
    (out / "measurements.csv").mkdir()
    ended = run(tmp_path / "list.csv", "--out", out, "--workers", "1")
    assert ended.returncode == 1 and ended.stdout.startswith("2 scans: 2 done")
    assert "measurements.csv cannot be written" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.slow
@pytest.mark.hazard("earlier-results")
def test_what_options_decide_is_decided_again_when_they_change(tmp_path: Path, run_here: Callable[..., Ended]) -> None:
    """Spacing that comes later, files that are wanted later or were deleted, another model: each in one more run."""
    pixels = pydicom.dcmread(BUNDLED).pixel_array
    np.save(tmp_path / "plain.npy", pixels)
    (tmp_path / "list.csv").write_text("path,id\nplain.npy,A\n", encoding="utf-8")
    out, spacing = tmp_path / "out", ("--pixel-spacing", "2.4273,2.4191")

    def again(*options: str) -> str:
        ended = run_here(tmp_path / "list.csv", "--out", out, *options)
        assert "Traceback" not in ended.stderr
        return ended.stdout

    assert again().startswith("1 scan: 1 refused (no-spacing)")
    assert "earlier" in again()
    assert again(*spacing) == "1 scan: 1 done\n"
    assert again(*spacing) == "1 scan: 1 done; 1 of them by earlier runs\n"
    assert again(*spacing, "--write", "json,stl") == "1 scan: 1 done\n"
    written = sorted((out / "scans").glob("*/*"))
    assert [path.name for path in written] == ["result.json", "spine.stl"]
    assert "earlier" in again(*spacing, "--write", "json,stl") and "earlier" in again(*spacing)
    written[1].unlink()
    assert again(*spacing, "--write", "json,stl") == "1 scan: 1 done\n" and written[1].is_file()
    before = rows_by_id(out)["A"]["model_name"]
    other = run_here(tmp_path / "list.csv", "--out", out, *spacing, "--model", "spine")
    assert other.stdout == "1 scan: 1 done\n" and rows_by_id(out)["A"]["model_name"] != before


def test_scans_that_have_changed_since_are_done_again(tmp_path: Path) -> None:
    """Under the same name: a corrected export, a folder that gets and loses scans."""
    (tmp_path / "in").mkdir()
    for name in ("a.dcm", "in/b.dcm", "in/c.dcm", "d.dcm"):
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM")
    paths = [str(tmp_path / name) for name in ("a.dcm", "in", "d.dcm", "gone.dcm")]
    scans = [Scan(Path(path).name, path) for path in paths]
    with closing(Shards(tmp_path, NOTE)) as shards:
        for scan in scans:
            entries = ("b.dcm", "c.dcm") if scan.id == "in" else (None,)
            # one that failed in a folder hides none that came later
            ends = {"c.dcm": "failed"}
            reports = [(entry, Report("", ends.get(str(entry), "refused"), "x")) for entry in entries]
            shards.add([row_of(scan.id, scan.path, entry, report, None) for entry, report in reports])

    def left() -> list[str]:
        with closing(Shards(tmp_path, NOTE)) as shards:
            return [scan.id for scan in left_to_do(scans, shards, SpineBatch(), retry_failed=False)[0]]

    written = shard_files(tmp_path)[0].stat().st_mtime
    for path in (tmp_path / "a.dcm", *(tmp_path / "in").iterdir(), tmp_path / "d.dcm"):
        os.utime(path, (written - 60, written - 60))
    assert left() == []
    os.utime(shard_files(tmp_path)[0], (written - 30, written - 30))
    os.utime(tmp_path / "a.dcm", (written - 20, written - 20))
    # a clock that is fast
    os.utime(tmp_path / "d.dcm", (written + 1e6, written + 1e6))
    assert left() == ["a.dcm"]
    (tmp_path / "in" / "c.dcm").rename(tmp_path / "in" / "e.dcm")
    assert left() == ["a.dcm", "in"]
