"""Shards: one run at a time, whole files, damaged ones named."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from edge_spine.cohort import read_cohort
from edge_spine.cohort.manifest import read_manifest
from edge_spine.cohort.rows import row_of
from edge_spine.cohort.run import left_to_do
from edge_spine.cohort.shards import Shards, shard_files
from edge_spine.errors import UsageError
from edge_spine.runner import Report
from tests.edge_spine.cohort.conftest import NOTE, run


@pytest.mark.slow
def test_another_model_or_a_second_run_is_refused(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    scans = read_manifest(manifest)
    with closing(Shards(out, NOTE)) as shards:
        assert len(left_to_do(scans, shards, retry_failed=False)[0]) == 24
        with pytest.raises(UsageError, match="another run is writing there"):
            Shards(out, NOTE)
    ended = run(manifest, "--out", out)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert "holds results with another" in ended.stderr and "model_sha256" in ended.stderr


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
