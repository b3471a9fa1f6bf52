"""benchmarks/scaling.py: a small run of it, its images, and its judgement of memory."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edge_spine.errors import Refusal
from edge_spine.reading.read import scan_from_bytes
from tests.benchmarks.conftest import run_script

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def scaling(script: ModuleType) -> ModuleType:
    return script


def run(folder: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    pytest.importorskip("onnxruntime")
    return run_script("scaling", folder, "--engine", "onnx-cpu", *arguments)[1:]


@pytest.mark.slow
def test_scans_of_one_process_are_noted_at_their_marks(tmp_path: Path) -> None:
    printed, report = run(tmp_path, "--only", "scans", "--scans", "20")
    rows = report["scans"]["marks"]
    assert [row["scans"] for row in rows] == [1, 10, 20]
    for row in rows:
        assert 0 < row["ms"]["p50"] <= row["ms"]["p90"] <= row["ms"]["p99"]
        assert 50 < row["memory_mb"] <= 1.01 * report["scans"]["peak_mb"]
    assert report["scans"]["flat"] is None and "too few scans" in printed
    assert "sizes" not in report


@pytest.mark.slow
def test_every_size_is_timed_and_what_is_refused_has_its_code(
    tmp_path: Path, scaling: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(scaling, "SIZES", ((300, 100), (1600, 550)))
    monkeypatch.setattr(scaling, "REFUSED", ((90, 31),))
    monkeypatch.setattr(scaling, "THREADS", (1,))
    arguments = ["--only", "sizes", "--runs", "2", "--engine", "onnx-cpu", "--json", str(tmp_path / "out.json")]
    assert scaling.main(arguments) == 0
    small, large, refused = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["sizes"]
    for row in (small, large):
        assert row["code"] is None and row["threads"] == 1
        assert set(row["ms"]) == {"read", "preprocess", "infer", "reconstruct"}
        assert all(0 < row["least_ms"][stage] <= row["ms"][stage] for stage in row["ms"])
        assert row["total_ms"] == pytest.approx(sum(row["ms"].values()), rel=0.5)
        assert 1.01 * row["peak_mb"] >= row["memory_before_mb"]  # Linux counts in rough steps
    assert large["least_ms"]["preprocess"] > small["least_ms"]["preprocess"]
    assert refused["code"] == "too-small" and "ms" not in refused
    assert "refused: too-small" in capsys.readouterr().out


@pytest.mark.parametrize("size", [(300, 100), (2000, 690)])
def test_resampled_scans_show_the_same_millimetres(scaling: ModuleType, size: tuple[int, int]) -> None:
    scan = scan_from_bytes(scaling.resampled(*size), "resampled.dcm")
    assert scan.pixels.shape == size
    extent = np.array(size) * scan.pixel_spacing_mm
    np.testing.assert_allclose(extent, (1920, 658))
    assert scan.pixels.mean() == pytest.approx(scan_from_bytes(scaling.SCAN.read_bytes(), "b").pixels.mean(), rel=0.02)


def test_the_sizes_end_at_the_limits(scaling: ModuleType) -> None:
    assert max(rows * columns for rows, columns in scaling.SIZES) < 25e6
    for size, code in zip(scaling.REFUSED, ("too-small", "too-large"), strict=True):
        with pytest.raises(Refusal) as refusal:
            scan_from_bytes(scaling.resampled(*size), "resampled.dcm")
        assert refusal.value.code == code


@pytest.mark.parametrize(
    ("memory", "flat"), [((200.0, 209.0), True), ((200.0, 211.0), False), ((200.0, None), None), ((None, 200.0), None)]
)
def test_memory_is_flat_within_5_per_cent(scaling: ModuleType, memory: Any, flat: bool | None) -> None:
    rows = [{"scans": count, "memory_mb": value} for count, value in zip((100, 1000), memory, strict=True)]
    assert scaling.flatness([{"scans": 1, "memory_mb": 1.0}, *rows])["flat"] is flat
    assert scaling.flatness(rows[:1])["flat"] is None


def test_marks_are_powers_of_ten_and_the_last(scaling: ModuleType) -> None:
    assert scaling.marks(1) == [1]
    assert scaling.marks(250) == [1, 10, 100, 250]
    assert scaling.marks(10_000) == [1, 10, 100, 1000, 10_000]


def _turns(rate: float, total: float, used: float, waited: float) -> Any:
    return np.tile([[10.0, 100.0, 95.0, 4.0], [rate, total, used, waited]], (3, 1, 1))


def test_a_lock_around_the_call_is_seen(scaling: ModuleType) -> None:
    lock = threading.Lock()

    def locked(_: object) -> None:
        with lock:
            time.sleep(0.02)

    held = scaling.together(locked, None, 2, 5)
    free = scaling.together(lambda _: time.sleep(0.02), None, 2, 5)
    assert held[0] <= 1 / 0.02
    assert free[0] > 1.2 * held[0]
    # a thread waits while the other one sleeps
    assert held[1] > free[1] >= 20


def test_the_gain_does_not_count_what_other_programs_take(scaling: ModuleType) -> None:
    busy = scaling.gains(_turns(11.0, 180.0, 97.0, 80.0))
    assert busy["gain"] == pytest.approx(1.1)
    assert busy["gain_without_waiting_for_processor"] == pytest.approx(1.92)
    locked = scaling.gains(_turns(10.0, 200.0, 97.0, 4.0))
    assert locked["gain_without_waiting_for_processor"] == pytest.approx(0.98, abs=0.01)
    assert locked["waiting_for_others_ms"] == pytest.approx([1.0, 99.0])
    row = {"model": "m", "engine": "e int8"}
    assert scaling.text_of_sharing([{**row, **busy}]).endswith("1.10, 1.92 without waiting for a processor met")
    assert scaling.text_of_sharing([{**row, **locked}]).endswith("MISSED")
    unknown = scaling.gains(_turns(11.0, 180.0, np.nan, np.nan) * [1, 1, np.nan, np.nan])
    assert unknown["gain_without_waiting_for_processor"] is None
    assert scaling.text_of_sharing([{**row, **unknown}]).endswith("1.10 MISSED")
