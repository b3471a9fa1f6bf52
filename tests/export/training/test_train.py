"""Training: the head that folds, a short real run, and going on from its state."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from export.checkpoint import load_regressor
from export.training.dataset import render
from export.training.train import STAGES, Run, Samples, ShapeHead, held_out, main


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


def test_stages_cover_the_whole_budget_and_end_at_the_published_size() -> None:
    ends = [end for end, _, _ in STAGES]
    assert ends == sorted(ends) and ends[-1] == 1.0 and STAGES[-1][1] == 224
    assert all(size % 32 == 0 for _, size, _ in STAGES)


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

    resumed = Run(Samples(cache, seed=2), tmp_path, 1.0, "cpu")
    assert resumed.step == first["step"] and resumed.elapsed == first["elapsed"]
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, first["model"][name]), name


def test_no_shards_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no shards"):
        main(["--cache", str(tmp_path), "--out", str(tmp_path / "out")])
