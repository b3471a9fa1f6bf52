"""Shards: one run at a time, whole files, damaged ones named."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from edge_spine.cohort import SpineBatch, read_cohort
from edge_spine.cohort.manifest import read_manifest
from edge_spine.cohort.rows import row_of
from edge_spine.cohort.run import left_to_do
from edge_spine.cohort.shards import Shards, shard_files
from edge_spine.errors import EdgeSpineError, UsageError
from edge_spine.runner import Report
from tests.edge_spine.cohort.conftest import NOTE, ROOT


def test_a_second_run_is_refused(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    scans = read_manifest(manifest)
    with closing(Shards(out, NOTE)) as shards:
        assert len(left_to_do(scans, shards, SpineBatch(), retry_failed=False)[0]) == 24
        with pytest.raises(UsageError, match="another run is writing there"):
            Shards(out, NOTE)


def test_a_folder_that_cannot_be_locked_is_one_line(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(UsageError, match="the folder cannot be used"):
        Shards(tmp_path, NOTE)


@pytest.mark.hazard("disk-full")
def test_rows_that_cannot_be_written_are_one_line_and_kept(tmp_path: Path) -> None:
    """As on a full disk, which is emptied later."""
    shards = Shards(tmp_path, NOTE)
    shards.add([row_of("a", "/a", None, Report("", "refused", "no-spine"), None)])
    place = tmp_path / "shards" / "part-00000001.parquet"
    place.mkdir()
    with pytest.raises(EdgeSpineError, match=r"1 results cannot be written .* the same command goes on"):
        shards.write()
    place.rmdir()
    shards.close()
    assert read_cohort(tmp_path)["id"].to_pylist() == ["a"]


@pytest.mark.hazard("earlier-results")
def test_what_another_model_computed_is_no_part_of_the_table(tmp_path: Path) -> None:
    done = row_of("a", "/a", None, Report("", "done"), None) | {"model_sha256": "FAKE"}
    with closing(Shards(tmp_path, NOTE)) as shards:
        shards.add([done, row_of("b", "/b", None, Report("", "refused", "no-spine"), None)])
    with closing(Shards(tmp_path, {"model_sha256": "OTHER"})):
        pass
    assert read_cohort(tmp_path)["id"].to_pylist() == ["b"]
    with closing(Shards(tmp_path, {"model_sha256": "OTHER"})) as shards:
        shards.add([done | {"model_sha256": "OTHER"}])
    assert sorted(read_cohort(tmp_path)["id"].to_pylist()) == ["a", "b"]


def test_shards_of_a_version_with_fewer_columns_are_read(tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    with closing(Shards(tmp_path, NOTE)) as shards:
        shards.add([row_of("a", "/a", None, Report("", "done"), None)])
    (old,) = shard_files(tmp_path)
    table = parquet.read_table(old).drop_columns(["decided_by", "folder", "sha256"])
    parquet.write_table(table, old)
    with closing(Shards(tmp_path, NOTE)) as shards:
        shards.add([row_of("b", "/b", None, Report("", "done"), None)])
        shards.write()
        assert {key: rows[0]["decided_by"] for key, rows in shards.ended().items()} == {
            ("a", "/a"): None,
            ("b", "/b"): None,
        }
    assert read_cohort(tmp_path)["id"].to_pylist() == ["a", "b"]


def test_half_a_shard_is_none_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    with closing(Shards(tmp_path, NOTE)) as shards:
        shards.add([row_of("a", "/a", None, Report("", "done"), None)])
    (whole,) = shard_files(tmp_path)
    (whole.parent / ".part-00000002.parquet.99.part").write_bytes(whole.read_bytes()[:100])
    assert len(read_cohort(tmp_path)) == 1
    whole.write_bytes(whole.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"part-00000001\.parquet: damaged"):
        read_cohort(tmp_path)
    with pytest.raises(UsageError, match="no results"):
        read_cohort(tmp_path / "elsewhere")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted on Linux only")
def test_reading_and_writing_leave_no_thread_that_would_abort_the_end_of_the_process(tmp_path: Path) -> None:
    """A thread of C++ that still starts when the process ends aborts it: about one run in thirty ended so."""
    code = (
        "import sys, os; from pathlib import Path; from contextlib import closing\n"
        "import pyarrow.parquet\n"
        "from edge_spine.cohort import read_cohort\n"
        "from edge_spine.cohort.rows import row_of\n"
        "from edge_spine.cohort.shards import Shards\n"
        "from edge_spine.runner import Report\n"
        "before = set(os.listdir('/proc/self/task'))\n"
        "with closing(Shards(Path(sys.argv[1]), {})) as shards:\n"
        "    shards.add([row_of('a', '/a', None, Report('', 'done'), None)])\n"
        "with closing(Shards(Path(sys.argv[1]), {})) as shards:\n"
        "    assert len(shards.ended()) == 1\n"
        "assert len(read_cohort(sys.argv[1])) == 1\n"
        "new = set(os.listdir('/proc/self/task')) - before\n"
        "print([Path('/proc/self/task', task, 'comm').read_text() for task in new])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[]\n", "")
