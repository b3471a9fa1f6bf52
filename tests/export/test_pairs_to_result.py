"""The documented path from a list of real pairs to a result, and weights that any training may have left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch

import edge_spine
from export.checkpoint import load_regressor
from export.onnx_graph import export_graph
from export.training.alignment.pairs import split_of
from export.training.phantoms.phantom import make_phantom
from export.training.phantoms.scanner import IDXA
from tests.export.training.alignment.made_pairs import COARSE, lying, write_list, write_pair

pytestmark = pytest.mark.slow

ROOT = Path(edge_spine.__file__).parents[1]
WEIGHTS = ROOT / "export/weights/spine.safetensors"
DEMO_SCAN = files("edge_spine") / "data" / "synthetic_whole_body.dcm"
PAIRS = 12


def _run(module: str, *arguments: object) -> str:
    command = [sys.executable, "-m", module, *(str(argument) for argument in arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=900)
    assert done.returncode == 0, f"{module}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def test_twelve_pairs_become_a_model_that_the_command_runs(tmp_path: Path) -> None:
    pairs = []
    for k in range(PAIRS):
        # the feet of 60_000_111 are outside the scan
        phantom = make_phantom(60_000_099 + k, scanner=IDXA)
        pairs.append(write_pair(tmp_path, f"s{k}", phantom, lying(phantom, 7.0 - k), COARSE))
    assert {split_of(pair.id) for pair in pairs} >= {"train", "validation"}
    write_list(tmp_path / "list.csv", pairs)
    aligned, run, bundle = tmp_path / "pairs", tmp_path / "run", tmp_path / "bundle"
    said = _run("export.training.alignment.align", "--list", tmp_path / "list.csv", "--out", aligned, "--workers", 1)
    assert f"{PAIRS} of {PAIRS} pairs" in said
    training = ("--minutes", 0.3, "--threads", 1, "--device", "cpu", "--freeze-norm")
    _run("export.training.train", "--pairs", aligned, "--start", WEIGHTS, "--out", run, *training)
    # few crops, because only the path is tested; a bundle for use takes the defaults
    short = ("--calibration-count", 4, "--reference-count", 2, "--forms", "int8")
    _run("export", run / "weights.safetensors", "--out", bundle, *short)
    _run("edge_spine", "run", str(DEMO_SCAN), "--model", bundle, "--out", tmp_path / "out")
    (result,) = (tmp_path / "out").glob("*/result.json")
    found = json.loads(result.read_text(encoding="utf-8"))
    assert found["model"]["name"] == "weights" and len(found["curves"]["z"]) == 209
    training = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["training"]
    assert "pairs of a DXA scan" in training and "spine.safetensors" in training
    measuring = ("--pairs", aligned, "--model", bundle, "--json", tmp_path / "evaluation.json")
    assert "measured 0 times before" in _run("export.training.evaluate", *measuring)
    assert json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))["count"] >= 1


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_weights_that_moved_are_exported(share: float) -> None:
    """A last layer of low rank no longer has it when each of its weights moved."""
    regressor, _ = load_regressor(WEIGHTS)
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in regressor.parameters():
            weight *= 1 + share * torch.randn(weight.shape, generator=noise)
    export_graph(regressor)
