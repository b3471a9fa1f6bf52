"""Runs on a real Ray cluster of two nodes, with a worker killed during the run."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from clusters import HERE, free_port, ray_cluster

from edge_spine.cohort import SpineBatch
from edge_spine.cohort.manifest import read_manifest
from edge_spine.cohort.rows import Row
from edge_spine.cohort.run import work_through
from edge_spine.cohort.shards import Shards
from edge_spine.errors import UsageError
from tests.edge_spine.cohort.conftest import LITE_NOTE, check_whole, run

SCANS = 24

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


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


@pytest.fixture
def batch() -> SpineBatch:
    return SpineBatch("lite", "onnx-cpu", 1)


def test_ray_does_a_cohort_on_both_nodes_and_loses_nothing_with_a_worker(
    ray_address: str, manifest: Path, tmp_path: Path, batch: SpineBatch
) -> None:
    from edge_spine.cohort.on_ray import RayWorkers

    rows: list[Row] = []
    with closing(Shards(tmp_path / "out", LITE_NOTE)) as shards, closing(RayWorkers(batch, ray_address)) as workers:
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


def test_no_cluster_is_one_line(manifest: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    address = f"{HERE}:{free_port()}"
    ended = run(manifest, "--out", tmp_path / "out", "--ray", address)
    assert ended.returncode == 2
    assert ended.stderr.strip().splitlines()[-1].startswith(f"edge-spine: --ray {address}: ")
    assert "Traceback" not in ended.stderr


def test_a_cluster_without_gpus_is_refused_for_an_engine_on_one(ray_address: str) -> None:
    from edge_spine.cohort.on_ray import RayWorkers

    with pytest.raises(UsageError, match="the cluster has no GPU for tensorrt"):
        RayWorkers(SpineBatch("lite", "tensorrt"), ray_address)
