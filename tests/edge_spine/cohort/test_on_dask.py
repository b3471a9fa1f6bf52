"""Runs on a real Dask cluster of two workers, with a worker killed during the run."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from clusters import HERE, dask_cluster, free_port

from edge_spine.cohort import SpineBatch
from edge_spine.cohort.manifest import read_manifest
from edge_spine.cohort.rows import Row
from edge_spine.cohort.run import work_through
from edge_spine.cohort.shards import Shards
from edge_spine.errors import EdgeSpineError, UsageError
from tests.edge_spine.cohort.conftest import BUNDLED, LITE_NOTE, NOTE, check_whole, run

SCANS = 24

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


@pytest.fixture(scope="module")
def dask():
    pytest.importorskip("distributed")
    with dask_cluster() as cluster:
        yield cluster


@pytest.fixture
def batch() -> SpineBatch:
    return SpineBatch("lite", "onnx-cpu", 1)


def test_dask_loses_nothing_with_a_worker(dask, manifest: Path, tmp_path: Path, batch: SpineBatch) -> None:
    from edge_spine.cohort.on_dask import DaskWorkers

    address, processes = dask
    rows: list[Row] = []
    with closing(Shards(tmp_path / "out", LITE_NOTE)) as shards, closing(DaskWorkers(batch, address)) as workers:
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


def test_no_cluster_is_one_line(manifest: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    address = f"tcp://{HERE}:{free_port()}"
    ended = run(manifest, "--out", tmp_path / "out", "--dask", address)
    assert ended.returncode == 2
    assert ended.stderr.strip().splitlines()[-1].startswith(f"edge-spine: --dask {address}: ")
    assert "Traceback" not in ended.stderr


def test_workers_without_gpus_are_refused_for_an_engine_on_one(dask) -> None:
    from edge_spine.cohort.on_dask import DaskWorkers

    with pytest.raises(UsageError, match="no workers; start some with dask worker --nthreads 8 --resources GPU=8"):
        DaskWorkers(SpineBatch("lite", "tensorrt"), dask[0])


@pytest.mark.parametrize(("engine", "count"), [("onnx-cpu", 12), ("tensorrt", 6)])
def test_each_thread_is_kept_busy(monkeypatch: pytest.MonkeyPatch, engine: str, count: int) -> None:
    """Of a FAKE scheduler; on a GPU, as many threads as the worker offers of the resource."""
    distributed = pytest.importorskip("distributed")
    from edge_spine.cohort.on_dask import DaskWorkers

    workers = {
        "a": {"nthreads": 8, "resources": {"GPU": 4.0}},
        "b": {"nthreads": 2, "resources": {"GPU": 4.0}},
        "c": {"nthreads": 2, "resources": {}},
    }
    client = SimpleNamespace(scheduler_info=lambda n_workers: {"workers": workers}, cancel=print, close=print)
    monkeypatch.setattr(distributed, "Client", lambda address, timeout: client)
    with closing(DaskWorkers(SpineBatch("lite", engine), "tcp://FAKE")) as found:
        assert found.count == count
