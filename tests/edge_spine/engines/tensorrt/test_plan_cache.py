"""Plans on disk. The plans here are FAKE bytes: what is tested is which bytes are ever handed out."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
import time
from pathlib import Path

import pytest

from edge_spine.engines.tensorrt.plan_cache import PlanCache, default_folder
from edge_spine.errors import EngineUnavailable

pytest.importorskip("filelock")

NAME = "spine-int8"
IDENTITY = {"tensorrt": "tensorrt 10.3.0", "gpu": "FAKE GPU", "driver": "12.6", "graph": "a" * 64}
PLAN = b"FAKE plan " * 100


def never() -> bytes:
    raise AssertionError("built although there was a good plan")


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "cache")


def test_a_plan_is_built_once(cache: PlanCache, caplog: pytest.LogCaptureFixture) -> None:
    assert cache.load_or_build(NAME, IDENTITY, lambda: PLAN) == PLAN
    assert "building the plan" in caplog.text and "there is none yet" in caplog.text
    caplog.clear()
    assert PlanCache(cache.folder).load_or_build(NAME, IDENTITY, never) == PLAN
    assert caplog.text == "" and cache.plans() == [NAME]


@pytest.mark.hazard("foreign-plan")
@pytest.mark.parametrize("key", sorted(IDENTITY))
def test_whatever_changes_it_is_built_again_and_said(cache: PlanCache, caplog, key: str) -> None:
    cache.load_or_build(NAME, IDENTITY, lambda: PLAN)
    changed = {**IDENTITY, key: "another"}
    caplog.clear()
    assert cache.load_or_build(NAME, changed, lambda: b"FAKE new") == b"FAKE new"
    assert f"{key} was {IDENTITY[key]}, is another" in caplog.text
    assert cache.load_or_build(NAME, changed, never) == b"FAKE new"
    assert len(list(cache.folder.glob("*.plan"))) == 1


@pytest.mark.hazard("plan-changed")
def test_a_changed_byte_of_the_plan_is_never_handed_out(cache: PlanCache) -> None:
    cache.load_or_build(NAME, IDENTITY, lambda: PLAN)
    (path,) = cache.folder.glob("*.plan")
    for place in (0, len(PLAN) // 2, len(PLAN) - 1):
        changed = bytearray(PLAN)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert cache.load(NAME, IDENTITY) == (None, "the plan is missing or was changed")
    path.write_bytes(PLAN + b"\0")
    assert cache.load(NAME, IDENTITY)[0] is None
    path.unlink()
    assert cache.load(NAME, IDENTITY)[0] is None
    assert cache.load_or_build(NAME, IDENTITY, lambda: b"FAKE new") == b"FAKE new"


@pytest.mark.hazard("plan-changed")
@pytest.mark.parametrize(
    ("edit", "word"),
    [
        ({"identity": {**IDENTITY, "driver": "13.0"}}, "driver was 13.0, is 12.6"),
        ({"identity": {}}, "gpu was unknown"),
        ({"identity": None}, "sidecar"),
        ({"plan": "../other.plan"}, "missing or was changed"),
        ({"sha256": "0" * 64}, "missing or was changed"),
        ({"sha256": None}, "missing or was changed"),
        ({"schema": "edge-spine/plan/1"}, "sidecar"),
    ],
    ids=lambda edit: next(iter(edit)),
)
def test_an_edited_sidecar_is_not_believed(cache: PlanCache, edit: dict[str, object], word: str) -> None:
    cache.load_or_build(NAME, IDENTITY, lambda: PLAN)
    (cache.folder.parent / "other.plan").write_bytes(PLAN)
    sidecar = cache.folder / f"{NAME}.json"
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), **edit}))
    plan, why = cache.load(NAME, IDENTITY)
    assert plan is None and word in why


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 20000, b"x" * 100000, b'{"identity": 3}'])
def test_a_damaged_sidecar_is_no_crash(cache: PlanCache, content: bytes) -> None:
    cache.load_or_build(NAME, IDENTITY, lambda: PLAN)
    (cache.folder / f"{NAME}.json").write_bytes(content)
    assert cache.load(NAME, IDENTITY)[0] is None
    assert cache.load_or_build(NAME, IDENTITY, lambda: b"FAKE new") == b"FAKE new"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows keeps a profile private by itself")
def test_files_are_private_and_foreign_rights_are_refused(cache: PlanCache, tmp_path: Path) -> None:
    cache.load_or_build(NAME, IDENTITY, lambda: PLAN)
    for path in [cache.folder, *cache.folder.glob("*.plan"), *cache.folder.glob("*.json")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path.name
    (path,) = cache.folder.glob("*.plan")
    path.chmod(0o666)
    assert cache.load(NAME, IDENTITY)[0] is None
    cache.folder.chmod(0o777)
    with pytest.raises(EngineUnavailable, match="may be written by other users"):
        PlanCache(cache.folder)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(EngineUnavailable, match="belongs to another user"):
        PlanCache(link)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineUnavailable, match="cache folder cannot be made"):
        PlanCache(tmp_path / "file" / "cache")


def test_a_plan_that_cannot_be_kept_still_serves(cache: PlanCache, monkeypatch, caplog) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edge_spine.engines.tensorrt.plan_cache.write_durably", full)
    assert cache.load_or_build(NAME, IDENTITY, lambda: PLAN) == PLAN
    assert "could not be kept" in caplog.text


def test_timing_caches_carry_their_hash(cache: PlanCache) -> None:
    assert cache.private_bytes("timing.cache") == b""
    cache.keep_private("timing.cache", b"FAKE timings")
    assert cache.private_bytes("timing.cache") == b"FAKE timings"
    path = cache.folder / "timing.cache"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert cache.private_bytes("timing.cache") == b""


def test_the_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGE_SPINE_CACHE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("EDGE_SPINE_CACHE")
    assert default_folder().is_absolute() and "edge-spine" in default_folder().parts


def _build_slowly(folder: str, number: int, start: object, built: object) -> None:
    def build() -> bytes:
        built.put(number)  # type: ignore[attr-defined]
        time.sleep(0.5)
        return PLAN + bytes([number])

    start.wait()  # type: ignore[attr-defined]
    PlanCache(Path(folder)).load_or_build(NAME, IDENTITY, build)


@pytest.mark.slow
def test_processes_that_build_at_once_leave_one_good_plan(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    start, built = spawn.Barrier(3), spawn.Queue()
    folder = tmp_path / "cache"
    builders = [spawn.Process(target=_build_slowly, args=(str(folder), n, start, built)) for n in range(3)]
    for process in builders:
        process.start()
    for process in builders:
        process.join(60)
    assert [process.exitcode for process in builders] == [0, 0, 0]
    winner = built.get(timeout=5)
    assert built.empty(), "one builds, the others wait"
    assert PlanCache(folder).load_or_build(NAME, IDENTITY, never) == PLAN + bytes([winner])
    assert len(list(folder.glob("*.plan"))) == 1 and not list(folder.glob(".*.partial"))
