"""The number of usable processors under affinity and the quotas of containers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_spine import processors
from edge_spine.processors import limited_cores, usable_cores

V1 = "5:cpu,cpuacct:/docker/0123\n3:memory:/docker/0123\n"


@pytest.fixture
def eight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of eight processors, and FAKE control groups below a folder."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(processors, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(processors, "_OWN_CGROUPS", tmp_path / "own")
    return tmp_path


def grouped(folder: Path, own: str, files: dict[str, str]) -> None:
    (folder / "own").write_text(own, encoding="ascii")
    for name, text in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n", "cpu.max": "max 100000"}, 3),
        # the container sees the path of its host, and its own group at the root
        ("0::/kubepods/pod1\n", {"cpu.max": "400000 100000\n"}, 4),
        (V1, {"cpu/docker/0123/cpu.cfs_quota_us": "250000", "cpu/docker/0123/cpu.cfs_period_us": "100000"}, 3),
        (V1, {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("nonsense\n", {"cpu.max": "nonsense"}, 8),
    ],
)
def test_a_quota_counts(eight: Path, own: str, files: dict[str, str], cores: int) -> None:
    grouped(eight, own, files)
    assert usable_cores() == cores
    assert limited_cores() == (None if cores == 8 else cores)


def test_affinity_counts_and_the_smaller_limit_wins(eight: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (usable_cores(), limited_cores()) == (8, None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 7}, raising=False)
    assert (usable_cores(), limited_cores()) == (3, 3)
    grouped(eight, "0::/\n", {"cpu.max": "200000 100000\n"})
    assert usable_cores() == 2


def test_engines_and_pools_take_no_more(eight: Path, fake_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    from edge_spine.bundle import load_bundle
    from edge_spine.cohort import SpineBatch
    from edge_spine.cohort.pool import ProcessPool
    from edge_spine.engines import open_engine

    grouped(eight, "0::/\n", {"cpu.max": "100000 100000\n"})
    assert ProcessPool(SpineBatch()).count == 1
    asked = []
    session = onnxruntime.InferenceSession

    def recorded(*arguments: object, sess_options: object, **options: object) -> object:
        asked.append(sess_options.intra_op_num_threads)  # type: ignore[attr-defined]
        return session(*arguments, sess_options=sess_options, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", recorded)
    for threads in (None, 3):
        open_engine(load_bundle(fake_model), "onnx-cpu", threads=threads).close()
    assert asked == [1, 3]


def test_no_script_starts_a_worker_for_each_core_of_the_host() -> None:
    root = Path(__file__).resolve().parents[2]
    scripts = [path for folder in ("benchmarks", "export") for path in (root / folder).rglob("*.py")]
    assert len(scripts) > 50
    assert [path.name for path in scripts if "cpu_count" in path.read_text(encoding="utf-8")] == []
