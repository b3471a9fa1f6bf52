"""The verb benchmark."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge_spine.cli import benchmark
from edge_spine.cli import main as cli
from edge_spine.cli.probe import Crashed

ROW = {
    "model": "FAKE 0",
    "precision": "int8",
    "ms": {"p50": 10.0, "p90": 12.0, "p99": 13.0},
    "scans_a_second": 95.0,
    "peak_mb": None,
    "mean_mm": 0.1,
    "kept": True,
}


@pytest.mark.slow
def test_a_model_is_timed_by_the_engines_that_run_here(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    assert cli.main(["benchmark", "--model", "lite", "--runs", "3", "--threads", "1", "--json"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    rows = {row["engine"]: row for row in report["rows"]}
    assert set(rows) == {"onnx-cpu", "onnx-cuda", "openvino", "tensorrt"}
    found = rows["onnx-cpu"]
    assert 0 < found["ms"]["p50"] <= found["ms"]["p90"] and found["kept"] and 0 < found["mean_mm"] < 0.3
    assert found["scans_a_second"] == pytest.approx(1000 / found["ms"]["p50"], rel=1)
    assert report["machine"]["cores"] >= 1 and "numpy" in report["machine"]["versions"]
    for engine, row in rows.items():
        assert ("problem" in row) == (f"{engine}:" in captured.err)


@pytest.mark.parametrize(
    ("answers", "status"),
    [({"onnx-cpu": ROW}, 0), ({}, 1), ({"onnx-cpu": ROW, "openvino": {**ROW, "kept": False}}, 1)],
)
def test_the_table_and_the_status(
    answers: dict[str, Any], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def probe(question: str, engine: str, model: str, threads: int | None, runs: int) -> Any:
        assert question == "time_scans" and (threads, runs) == (2, 50)
        if engine == "onnx-cuda":
            raise Crashed("it crashes its process (SIGILL)")
        return answers.get(engine, {"problem": f"{engine}: not here"})

    monkeypatch.setattr(benchmark, "probe", probe)
    assert cli.main(["benchmark", "--threads", "2"]) == status
    captured = capsys.readouterr()
    assert captured.out.count("FAKE 0") == 2 * len(answers)
    assert ("MISSED" in captured.out) == (len(answers) == 2) and ("passed" in captured.out) == bool(answers)
    assert "lite, onnx-cuda: it crashes its process" in captured.err
    assert captured.err.count("not timed") == 2 * (4 - len(answers))
