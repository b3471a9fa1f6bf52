"""The verb verify."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge_spine.cli import main as cli
from edge_spine.engines.onnx import OnnxEngine


def test_verify_passes_where_the_engine_agrees(fake_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "--model", str(fake_model), "--engine", "onnx-cpu"]) == 0
    assert "passed" in capsys.readouterr().out
    assert cli.main(["verify", "--model", str(fake_model), "--engine", "onnx-cpu", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["passed"] is True
    assert table["engine"] == "onnx-cpu"


def test_verify_ends_with_1_where_a_tolerance_is_missed(
    fake_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = OnnxEngine._infer_block
    monkeypatch.setattr(OnnxEngine, "_infer_block", lambda self, image: right(self, image) + np.float32(0.01))
    assert cli.main(["verify", "--model", str(fake_model), "--engine", "onnx-cpu"]) == 1
    assert "MISSED" in capsys.readouterr().out
