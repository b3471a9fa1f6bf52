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
from edge_spine.cohort.manifest import Scan, read_manifest
from edge_spine.cohort.rows import Row
from edge_spine.cohort.run import work_through
from edge_spine.cohort.shards import Shards
from edge_spine.errors import EdgeSpineError, UsageError
from tests.edge_spine.cohort.conftest import BUNDLED, LITE_NOTE, check_whole, run

SCANS = 24

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


@pytest.fixture(scope="module")
def ray_address():
    if not sys.platform.startswith("linux"):
        pytest.skip("actors are found by /proc")
    pytest.importorskip("ray", reason="Ray has no wheel for this Python")
    with (
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder,
        ray_cluster(Path(folder), gpus_a_node=1) as it,
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


def ray_actors(kind: bytes = b"ray::RayWorker") -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(kind):
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


def test_one_actor_on_each_gpu_computes_for_those_that_prepare(
    ray_address: str, manifest: Path, tmp_path: Path, batch: SpineBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes only say that they have a GPU: the engine on the processor is taken for one on it."""
    from edge_spine.cohort import batch as batch_module
    from edge_spine.cohort import on_ray

    monkeypatch.setattr(batch_module, "runs_on_gpu", lambda engine: True)
    rows: list[Row] = []
    killed: list[int] = []
    with closing(Shards(tmp_path / "out", LITE_NOTE)) as shards, closing(on_ray.RayWorkers(batch, ray_address)) as them:
        assert them.count == 2 and len(them._gpus) == 2 and len(ray_actors(b"ray::RayGpu")) == 2

        def seen(row: Row) -> None:
            rows.append(row)
            if len(rows) >= 3 and not killed:
                killed.append(min(ray_actors(b"ray::RayGpu")))
                os.kill(killed[0], signal.SIGKILL)

        work_through(read_manifest(manifest), them, shards, seen, chunk=2)
    assert len(rows) == SCANS
    check_whole(tmp_path / "out", SCANS)
    alone = batch.rows([Scan("P00", str(BUNDLED))])[0]["max_cobb_deg"]
    # other numbers of threads add in another order
    assert [row["max_cobb_deg"] for row in rows if row["status"] == "done"] == pytest.approx([alone] * 23, abs=1e-3)


def test_an_engine_that_cannot_run_on_a_cluster_is_one_line(ray_address: str) -> None:
    from edge_spine.cohort.on_ray import RayWorkers

    with pytest.raises(EdgeSpineError, match=r"^tensorrt: [^\n]*$"):
        RayWorkers(SpineBatch("lite", "tensorrt"), ray_address)


def test_a_cluster_without_gpus_is_refused_for_an_engine_on_one(
    ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from edge_spine.cohort.on_ray import RayWorkers

    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    with pytest.raises(UsageError, match="the cluster has no GPU for tensorrt"):
        RayWorkers(SpineBatch("lite", "tensorrt"), ray_address)
