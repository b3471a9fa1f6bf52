"""benchmarks/latency.py: a small run of it, MLPerf's early stopping, and its picture."""

from __future__ import annotations

import importlib
import json
import math
import multiprocessing
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from tests.benchmarks.conftest import run_script
from tests.edge_spine.engines import fake_gpu

pytestmark = pytest.mark.timing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def latency(script: ModuleType) -> ModuleType:
    return script


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], Path]:
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("latency")
    options = ("--engine", "onnx-cpu", "--threads", "1", "--workers", "2", "--plot", str(folder / "out.png"))
    _, printed, report = run_script("latency", folder, "--runs", "9", "--seconds", "0.5", *options)
    return printed, report, folder


@pytest.mark.slow
def test_every_stage_has_its_times_and_they_sum_up_to_the_whole(small_run: Any) -> None:
    _, report, _ = small_run
    found = report["stages_ms"]
    for row in (*found.values(), report["single_stream"]["ms"]):
        assert 0 < row["least"] <= row["p50"] <= row["p90"] <= row["p99"]
    parts = sum(found[stage]["least"] for stage in ("read", "preprocess", "infer", "reconstruct"))
    # the least of each come from different runs, and the whole holds a few steps more
    assert 0.5 * found["end to end"]["least"] < parts <= 1.01 * found["end to end"]["least"]
    assert found["measure"]["least"] < found["reconstruct"]["least"]
    assert found["write json"]["least"] < found["write json,ply,png"]["least"]


@pytest.mark.slow
def test_it_says_what_was_measured_and_judges_it(small_run: Any) -> None:
    printed, report, _ = small_run
    assert (report["engine"], report["precision"], report["threads"]) == ("onnx-cpu", "int8", 1)
    assert report["machine"]["processor"] and report["machine"]["versions"]["numpy"] == np.__version__
    assert report["scan"]["shape"] == [791, 272]
    for whole in report["over_infer"].values():
        # few runs: inferences that were interrupted can bring the lower bound below 1
        assert 0 < whole["low"] <= whole["ratio"] <= whole["high"] and whole["high"] > 1
    (target,) = report["targets"]
    assert target["met"] == (target["found"] <= 1.15)
    assert ("MISSED" in printed) != target["met"]


@pytest.mark.slow
def test_single_stream_and_offline_go_on_for_long_enough(small_run: Any) -> None:
    printed, report, _ = small_run
    stream, batch = report["single_stream"], report["offline"]
    assert stream["queries"] == len(stream["latencies_ms"]) >= 3
    assert sum(stream["latencies_ms"]) >= 450
    assert batch["workers"] == 2 and batch["threads_each"] == 1 and batch["scans"] >= 3
    assert batch["seconds"] >= 0.5
    assert batch["scans_per_second"] == pytest.approx(batch["scans"] / batch["seconds"])
    assert f"{batch['scans_per_second']:.1f} scans/s" in printed


@pytest.mark.slow
def test_without_a_gpu_its_figures_are_reasons(small_run: Any) -> None:
    _, report, _ = small_run
    assert all("onnx-cpu" in found["reason"] for found in report["gpu"].values())


@pytest.mark.slow
def test_offline_workers_prepare_for_one_gpu(
    latency: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The GPU is a FAKE, and notes which processes open it."""
    monkeypatch.setenv(fake_gpu.NOTES, str(tmp_path))
    lifeline, writer = multiprocessing.get_context("spawn").Pipe(duplex=False)
    begin = partial(fake_gpu.initialise, lifeline)
    monkeypatch.setattr(latency, "GpuProcess", partial(latency.GpuProcess, initialise=begin))
    options = {"workers": 2, "threads": None, "scan": latency.SCAN, "precision": "auto", "model": "lite"}
    with lifeline, writer:
        found = latency.offline(SimpleNamespace(**options, runs=4, seconds=0.1), "tensorrt")
    (notes,) = tmp_path.iterdir()
    asked = sum(map(int, notes.read_text().split()))
    assert (found["workers"], found["block"]) == (2, 4)
    assert asked == found["scans"] + 2 * latency.IN_A_ROW and found["scans"] >= 4


@pytest.mark.slow
def test_a_run_that_is_stopped_among_its_workers_leaves_what_it_measured(
    latency: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(latency, "offline", stopped)
    options = ["--engine", "onnx-cpu", "--model", "lite", "--runs", "1", "--seconds", "0.1"]
    with pytest.raises(KeyboardInterrupt):
        latency.main([*options, "--json", str(tmp_path / "out.json")])
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert report["stages_ms"]["infer alone"]["p50"] > 0 and report["single_stream"]["queries"] and report["targets"]


@pytest.mark.slow
def test_the_picture_shows_every_stage(small_run: Any, latency: ModuleType) -> None:
    _, report, folder = small_run
    picture = cv2.imread(str(folder / "out.png"))
    plot = importlib.import_module("latency_plot")
    canvas = plot.draw(report, folder / "again.png")
    np.testing.assert_array_equal(picture, canvas.image)
    texts = [text for text, _ in canvas.texts]
    assert {"read", "prepare", "infer", "end to end", "p50", "p90", "p99"} <= set(texts)
    assert all(box.inside(canvas.box) for _, box in canvas.texts)


@pytest.mark.parametrize("count", [10, 63, 64, 500, 1000])
def test_early_stopping_leaves_out_as_few_as_its_confidence_allows(latency: ModuleType, count: int) -> None:
    found = latency.early_stopping_estimate([float(value) for value in np.random.default_rng(0).permutation(count)])
    if count < 64:
        assert found is None
        return
    left_out = count - 1 - int(found)

    def at_most(over: int) -> float:
        return math.fsum(math.comb(count, k) * 0.1**k * 0.9 ** (count - k) for k in range(over + 1))

    assert at_most(left_out) <= 0.01 < at_most(left_out + 1)
    assert found >= np.percentile(range(count), 90)


def test_an_engine_that_cannot_run_ends_it(latency: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert latency.main(["--engine", "onnx-cuda", "--runs", "1"]) == 1
    assert "onnx-cuda" in capsys.readouterr().err
