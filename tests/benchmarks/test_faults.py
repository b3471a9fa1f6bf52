"""A short search finds nothing, and what it is there to find is found."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from trials import Found, Study

from edge_spine.scan import Scan
from tests.benchmarks.conftest import run_script


@pytest.mark.slow
def test_a_short_search_finds_nothing(tmp_path: Path) -> None:
    parts = ("threads", "run", "watch")
    chosen = [word for part in parts for word in ("--part", part)]
    _, shown, found = run_script("faults", tmp_path, "--minutes", "0.05", *chosen)
    for name in ("losses", "duplicates", "wrong answers"):
        assert f"{name}: 0" in shown.splitlines()
    assert all(found[part]["tried"] > 0 for part in parts)


def test_results_are_judged(tmp_path: Path) -> None:
    study, found = Study(tmp_path, "lite"), Found()
    study.expected = {"a": 10.0, "b": 10.0, "c": 10.0, "d": 10.0}
    study.judge([("a", 10.0004), ("b", 10.5), ("c", 10.0), ("c", 10.0), ("x", 1.0)], found)
    assert found.tried == 4
    assert found.losses == ["d has no result"] and found.duplicates == ["c has 2 results"]
    assert [line.partition(":")[0] for line in found.wrong] == ["b", "x"]


@pytest.mark.parametrize("fault", ["none", "shared", "raising"])
def test_an_estimator_that_threads_must_not_share_is_found(script: ModuleType, fault: str) -> None:
    seen: list[Any] = [None]

    def estimate(scan: Scan) -> Any:
        seen[0] = scan.pixels
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.001)
            if fault == "raising":
                raise ValueError("busy")
        pixels = seen[0] if fault == "shared" else scan.pixels
        return SimpleNamespace(curves=SimpleNamespace(z=pixels[0], coronal=pixels[1], sagittal=np.ravel(pixels)))

    found = Found()
    script._share(estimate, "FAKE", 4, 0.3, 0, random.Random(1), found)
    assert (found.wrong != []) is (fault == "shared")
    assert (found.losses != []) is (fault == "raising")


def test_scans_are_where_the_study_says(tmp_path: Path) -> None:
    """Every way to lay out a study is one in which all its scans are found."""
    from edge_spine.errors import Refusal
    from edge_spine.reading.files import find_scans

    for seed in range(3):
        folder = tmp_path / str(seed)
        folder.mkdir()
        study = Study(folder, "lite")
        study.fill_folder(random.Random(seed))
        uids = []
        for file in find_scans([study.inputs]):
            try:
                uids.append(file.read().sop_instance_uid)
            except Refusal:
                assert file.path.name == "cut.dcm"
        assert sorted(uids) == sorted(study.expected)
