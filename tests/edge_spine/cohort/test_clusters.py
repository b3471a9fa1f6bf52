"""Runs on a real Ray cluster of two nodes and on a real Dask cluster, with a worker killed in mid-run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from benchmarks.clusters import HERE, dask_cluster, free_port, ray_cluster
from edge_spine.cohort import SpineBatch
from edge_spine.cohort.manifest import read_manifest
from edge_spine.cohort.rows import Row
from edge_spine.cohort.run import work_through
from edge_spine.cohort.shards import Shards
from edge_spine.errors import EdgeSpineError
from tests.edge_spine.cohort.conftest import BUNDLED, ROOT, check_whole

NOTE = {"model_sha256": "FAKE"}
SCANS = 24


@pytest.fixture(scope="module")
def ray_address():
    if not sys.platform.startswith("linux"):
        pytest.skip("actors are found by /proc")
    pytest.importorskip("ray", reason="Ray has no wheel for this Python")
    with (
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder,
        ray_cluster(Path(folder)) as it,
    ):
        yield it


@pytest.fixture(scope="module")
def dask():
    pytest.importorskip("distributed")
    with dask_cluster() as cluster:
        yield cluster


@pytest.fixture
def batch() -> SpineBatch:
    return SpineBatch("lite", "onnx-cpu", 1)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_spine", "batch", *map(str, arguments), "--model", "lite", "--engine", "onnx-cpu"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_ray_does_a_cohort_on_both_nodes_and_loses_nothing_with_a_worker(
    ray_address: str, manifest: Path, tmp_path: Path, batch: SpineBatch
) -> None:
    from edge_spine.cohort.on_ray import RayWorkers

    rows: list[Row] = []
    with closing(Shards(tmp_path / "out", NOTE)) as shards, closing(RayWorkers(batch, ray_address)) as workers:
        assert workers.count == 2
        # each node has one processor and each actor takes one, so there is one on each
        assert sum(node["Alive"] for node in workers._ray.nodes()) == 2
        killed: list[int] = []

        def seen(row: Row) -> None:
            rows.append(row)
            if len(rows) >= 3 and not killed:
                killed.append(min(ray_actors()))
                os.kill(killed[0], signal.SIGKILL)

        work_through(read_manifest(manifest), workers, shards, seen, chunk=2)
        assert killed[0] not in ray_actors()
    assert len(rows) == SCANS
    check_whole(tmp_path / "out", SCANS)


def ray_actors() -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(b"ray::RayWorker"):
                found.add(int(path.parent.name))
    return found


def test_the_command_works_on_ray_and_leaves_the_cluster_as_it_was(
    ray_address: str, manifest: Path, tmp_path: Path
) -> None:
    ended = run(manifest, "--out", tmp_path / "out", "--ray", ray_address)
    assert ended.returncode == 1 and ended.stdout == "24 scans: 23 done, 1 refused (unreadable)\n", ended.stderr
    check_whole(tmp_path / "out", SCANS)
    deadline = time.monotonic() + 30
    while ray_actors() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not ray_actors()


def test_dask_loses_nothing_with_a_worker(dask, manifest: Path, tmp_path: Path, batch: SpineBatch) -> None:
    from edge_spine.cohort.on_dask import DaskWorkers

    address, processes = dask
    rows: list[Row] = []
    with closing(Shards(tmp_path / "out", NOTE)) as shards, closing(DaskWorkers(batch, address)) as workers:
        assert workers.count == 2

        def seen(row: Row) -> None:
            rows.append(row)
            if len(rows) == 3:
                processes[0].kill()

        work_through(read_manifest(manifest), workers, shards, seen, chunk=2)
    assert processes[0].poll() is not None and processes[1].poll() is None
    assert len(rows) == SCANS
    check_whole(tmp_path / "out", SCANS)


def test_the_command_works_on_dask(dask, manifest: Path, tmp_path: Path) -> None:
    """Before or after one of its two workers was killed."""
    ended = run(manifest, "--out", tmp_path / "out", "--dask", dask[0])
    assert ended.returncode == 1 and ended.stdout == "24 scans: 23 done, 1 refused (unreadable)\n", ended.stderr
    check_whole(tmp_path / "out", SCANS)


def test_another_model_on_the_workers_is_one_line(dask, tmp_path: Path) -> None:
    from edge_spine.cohort.on_dask import DaskWorkers

    (tmp_path / "list.txt").write_text(f"{BUNDLED}\n", encoding="utf-8")
    wrong = SpineBatch("lite", "onnx-cpu", 1, model_sha256="0" * 64)
    with (
        closing(Shards(tmp_path / "out", NOTE)) as shards,
        closing(DaskWorkers(wrong, dask[0])) as workers,
        pytest.raises(EdgeSpineError, match="is not the one that the run was started with"),
    ):
        work_through(read_manifest(tmp_path / "list.txt"), workers, shards, lambda row: None)


@pytest.mark.parametrize("kind", ["ray", "dask"])
def test_no_cluster_is_one_line(kind: str, manifest: Path, tmp_path: Path) -> None:
    pytest.importorskip({"ray": "ray", "dask": "distributed"}[kind])
    address = f"{'' if kind == 'ray' else 'tcp://'}{HERE}:{free_port()}"
    ended = run(manifest, "--out", tmp_path / "out", f"--{kind}", address)
    assert ended.returncode == 2 and ended.stderr.strip().splitlines()[-1].startswith(
        f"edge-spine: --{kind} {address}: "
    )
    assert "Traceback" not in ended.stderr
