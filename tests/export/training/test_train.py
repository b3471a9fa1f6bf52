"""Training: the head that folds, a short real run, and going on from its state."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export.checkpoint import load_regressor
from export.regressor import SpineRegressor
from export.training.dataset import render
from export.training.head import ShapeHead, write_weights
from export.training.run import FROM_SCRATCH, FROM_WEIGHTS, Plan, Run
from export.training.samples import Samples, held_out
from export.training.train import main


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    render(folder, 3, 500, workers=1)
    return folder


def test_shape_head_folds_into_one_linear_layer() -> None:
    rng = np.random.default_rng(0)
    targets = (0.5 + 0.1 * rng.standard_normal((60, 5)) @ rng.standard_normal((5, 1254))).astype(np.float32)
    head = ShapeHead(targets)
    features = torch.rand(4, 2048)
    folded = head.folded()
    torch.testing.assert_close(folded(features), head(features), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(folded.bias.detach(), torch.from_numpy(targets.mean(axis=0)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("plan", [FROM_SCRATCH, FROM_WEIGHTS])
def test_stages_cover_the_whole_budget_and_end_at_the_published_size(plan: Plan) -> None:
    ends = [end for end, _, _ in plan.stages]
    assert ends == sorted(ends) and ends[-1] == 1.0 and plan.stages[-1][1] == 224
    assert all(size % 32 == 0 for _, size, _ in plan.stages)


def test_a_run_from_weights_starts_with_what_they_know(cache: Path, tmp_path: Path) -> None:
    taught = SpineRegressor().init_().eval()
    head = ShapeHead(Samples(cache, seed=1).batch(400, 32)[1])
    nn.init.normal_(head.weights.weight, std=0.05)
    taught.linear = head.folded()
    write_weights(taught, tmp_path / "start.safetensors")
    run = Run(Samples(cache, seed=2), tmp_path, 1.0, "cpu", FROM_WEIGHTS, tmp_path / "start.safetensors")
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        said, expected = run.model.eval()(image), taught(image)
    assert float((said - expected).abs().mean()) < 0.1 * float((expected - expected.mean()).abs().mean())


def test_the_best_weights_are_kept_and_patience_ends_training(cache: Path, tmp_path: Path) -> None:
    run = Run(Samples(cache, seed=2), tmp_path, 1.0, "cpu", replace(FROM_SCRATCH, patience=2))
    weights = tmp_path / "weights.safetensors"
    assert run.judge(2.0)
    best = weights.read_bytes()
    with torch.no_grad():
        run.average.linear.weights.bias.add_(1.0)
    assert run.judge(3.0) and not run.judge(2.5)
    assert weights.read_bytes() == best
    assert run.judge(1.0) and weights.read_bytes() != best


def test_batches_hold_drawn_phantoms(cache: Path) -> None:
    samples = Samples(cache, seed=1)
    images, targets = samples.batch(5, 64)
    assert len(samples) == 3
    assert images.shape == (5, 64, 64) and images.dtype == np.uint8 and targets.shape == (5, 1254)
    assert 0 < images.mean() < 200 and 0.3 < targets.mean() < 0.7


def test_held_out_targets_are_the_rows_between(cache: Path) -> None:
    crops, targets = held_out(cache, 2)
    assert crops.shape == (2, 224, 224) and targets.shape == (2, 209, 6)
    column = (targets[0, 100, 1] * 224).round().astype(int)
    row = crops[0, 107].numpy().astype(float)
    assert row[column - 5 : column + 6].mean() > row.mean() + 20


def test_a_short_run_writes_weights_and_goes_on_where_it_stopped(cache: Path, tmp_path: Path) -> None:
    arguments = ["--cache", str(cache), "--out", str(tmp_path), "--device", "cpu", "--every", "1000"]
    assert main([*arguments, "--minutes", "0.005"]) == 0
    first = torch.load(tmp_path / "state.pt", weights_only=True)
    assert first["step"] >= 1 and first["elapsed"] >= 0.3
    record = json.loads((tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert record["step"] == first["step"] and np.isfinite(record["loss_px"])
    regressor, _ = load_regressor(tmp_path / "weights.safetensors")
    assert torch.isfinite(regressor(torch.rand(1, 3, 224, 224))).all()

    resumed = Run(Samples(cache, seed=2), tmp_path, 1.0, "cpu", FROM_SCRATCH)
    assert resumed.step == first["step"] and resumed.elapsed == first["elapsed"]
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, first["model"][name]), name


def test_no_shards_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no shards"):
        main(["--cache", str(tmp_path), "--out", str(tmp_path / "out")])
