"""benchmarks/peers.py: real peers once, and what its judgement makes of made-up figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType

import contestants
import pytest

from edge_spine.engines import verification
from edge_spine.engines.verification import read_references as read


@pytest.fixture
def peers(script: ModuleType) -> ModuleType:
    return script


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The float32 graph of the packaged network, exported once."""
    work = contestants.Work("spine", contestants.WEIGHTS["spine"], tmp_path_factory.mktemp("graph"), 1)
    work.prepare()
    return work.graph


@pytest.mark.slow
def test_real_peers_answer_take_turns_and_are_judged(
    peers: ModuleType,
    graph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(contestants.Work, "prepare", lambda work: shutil.copy(graph, work.graph))
    # each peer answers four of the references: that a network agrees on all of them is tested elsewhere
    monkeypatch.setattr(verification, "read_references", lambda bundle: tuple(part[:4] for part in read(bundle)))
    only = ("--only", "onnx-cpu", "--only", "onnx-cuda", "--only", "eager float32", "--only", "INT8 products")
    assert peers.main(["--runs", "10", "--threads", "1", "--json", str(tmp_path / "out.json"), *only]) == 0
    printed, report = capsys.readouterr().out, json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in report["peers"]}
    ours, eager, floor = (
        rows[name] for name in ("ours, onnx-cpu int8", "PyTorch eager float32", "floor: INT8 products")
    )
    assert ours["passed"] and 0 < ours["accuracy"]["deviations"][-1]["mean_mm"] < 0.3
    # the reference itself, computed again
    assert eager["accuracy"]["deviations"][-1]["mean_mm"] < 0.01
    for row in (ours, eager, floor):
        assert 0 < row["ms"]["p50"] <= row["ms"]["p90"] <= row["ms"]["p99"]
    assert eager["times_eager"]["ratio"] == 1
    assert ours["times_eager"]["low"] <= ours["times_eager"]["ratio"] <= ours["times_eager"]["high"]
    assert "accuracy" not in floor
    assert rows["lite, onnx-cpu int8"]["times_large"]["ratio"] > 1.5
    # what cannot run is a line with its reason, not a figure
    if "problem" in rows["ours, onnx-cuda fp16"]:
        assert "ms" not in rows["ours, onnx-cuda fp16"] and "onnx-cuda" in printed
    assert len(report["targets"]) >= 3 and printed.count("met") + printed.count("MISSED") >= 3


def made_up(name: str, p50: float, passed: bool = True, **ratios: float) -> dict[str, object]:
    every = {key: {"ratio": value, "low": value - 0.01, "high": value + 0.01} for key, value in ratios.items()}
    return {"name": name, "ms": {"p50": p50}, "passed": passed, "ratios": every, **every}


def test_the_wrong_are_not_ranked(peers: ModuleType) -> None:
    ours = made_up("ours, onnx-cpu int8", 10.0, times_eager=6.0)
    wrong = made_up("OpenVINO INT8 by NNCF", 5.0, passed=False)
    right = made_up("OpenVINO INT8, our graph", 9.0)
    for row, value in ((wrong, 0.5), (right, 0.9)):
        row["ratios"]["ours, onnx-cpu int8"] = {"ratio": value, "low": value - 0.01, "high": value + 0.01}
    ours["ratios"][peers.FLOOR] = {"ratio": 1.4, "low": 1.39, "high": 1.41}
    found = {wanted: met for wanted, _, met in peers.judged([ours, wrong, right])}
    assert found == {
        "ours, onnx-cpu int8 at least 5 times as fast as PyTorch eager float32": True,
        "no slower than the fastest other, OpenVINO INT8, our graph": False,
        "at most 1.35 times the INT8 floor": False,
    }
    assert peers.fastest_of_ours([wrong, right]) is None and peers.judged([wrong]) == []


@pytest.mark.slow
def test_products_are_those_of_the_published_network(graph: Path) -> None:
    """4.5 billion multiplications: the stem's product by hand, and the sum that the literature gives for ResNet50."""
    sizes = contestants.product_sizes(graph)
    assert sizes[112 * 112, 147, 64] == 1
    # ResNet50 without its classifier has 4.09 of them, three blocks of 49 cells the rest
    assert sum(a * b * c * count for (a, b, c), count in sizes.items()) == pytest.approx(4.51e9, rel=0.01)
