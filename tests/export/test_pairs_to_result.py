"""The documented path from a list of real pairs to a result, and weights that any training may have left."""

from __future__ import annotations

import importlib
import json
from importlib.resources import files
from pathlib import Path

import pytest
import torch

import edge_spine
from edge_spine.bundle import load_bundle
from export.checkpoint import load_regressor
from export.onnx_graph import export_graph
from export.training.alignment.pairs import split_of
from export.training.phantoms.phantom import make_phantom
from export.training.phantoms.scanner import IDXA
from tests.export.training.alignment.made_pairs import COARSE, lying, write_list, write_pair

pytestmark = pytest.mark.slow

ROOT = Path(edge_spine.__file__).parents[1]
WEIGHTS = ROOT / "export/weights/spine-lite.safetensors"
DEMO_SCAN = files("edge_spine") / "data" / "synthetic_whole_body.dcm"
PAIRS = ("s0", "s1", "s2", "s3")


@pytest.mark.usefixtures("few_shapes")
def test_pairs_become_a_model_that_the_command_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def called(module: str, *arguments: object) -> str:
        assert importlib.import_module(module).main([str(argument) for argument in arguments]) == 0, capsys.readouterr()
        return capsys.readouterr().out

    # the one that the packaged model leaves out: the table of all takes minutes
    monkeypatch.setattr("export.forms.quantised_readers", lambda _: load_bundle("lite").exact_readers)
    pairs = []
    for k, name in enumerate(PAIRS):
        phantom = make_phantom(60_000_099 + k, scanner=IDXA)
        pairs.append(write_pair(tmp_path, name, phantom, lying(phantom, 7.0 - k), COARSE))
    assert {split_of(pair.id) for pair in pairs} == {"train", "validation", "test"}
    write_list(tmp_path / "list.csv", pairs)
    aligned, run, bundle = tmp_path / "pairs", tmp_path / "run", tmp_path / "bundle"
    said = called("export.training.alignment.align", "--list", tmp_path / "list.csv", "--out", aligned, "--workers", 1)
    assert "4 of 4 pairs" in said
    # at this rate the weights depend little on how many steps this machine takes
    training = ("--minutes", 0.02, "--batch", 4, "--rate", 1e-6, "--device", "cpu", "--freeze-norm")
    called("export.training.train", "--lite", "--pairs", aligned, "--start", WEIGHTS, "--out", run, *training)
    # fewer crops to calibrate with than by default, and as many to compare on: the limits are for their mean
    short = ("--calibration-count", 32, "--forms", "int8")
    called("export.__main__", run / "weights.safetensors", "--out", bundle, *short)
    called("edge_spine.cli.main", "run", str(DEMO_SCAN), "--model", bundle, "--out", tmp_path / "out")
    (result,) = (tmp_path / "out").glob("*/result.json")
    found = json.loads(result.read_text(encoding="utf-8"))
    assert found["model"]["name"] == "weights" and len(found["curves"]["z"]) == 209
    training = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["training"]
    assert "pairs of a DXA scan" in training and "spine-lite.safetensors" in training
    measuring = ("--pairs", aligned, "--model", bundle, "--json", tmp_path / "evaluation.json")
    assert "measured 0 times before" in called("export.training.evaluate", *measuring)
    assert json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))["count"] >= 1


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_weights_that_moved_are_exported(share: float) -> None:
    """A last layer of low rank no longer has it when each of its weights moved; the small network has one too."""
    regressor, _ = load_regressor(WEIGHTS)
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in regressor.parameters():
            weight *= 1 + share * torch.randn(weight.shape, generator=noise)
    export_graph(regressor)
