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
from export.lite import SpineLite
from export.regressor import ResidualBlock, SpineRegressor
from export.training.dataset import render
from export.training.freeze import fold_norms, frozen_part, norms
from export.training.head import ShapeHead, write_weights
from export.training.run import FROM_SCRATCH, FROM_WEIGHTS, Plan, Run
from export.training.samples import Samples, held_out
from export.training.train import _check, main, named, parse, plan_of, record

pytestmark = pytest.mark.usefixtures("few_shapes", "narrow")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    render(folder, 3, 500, workers=1)
    return folder


@pytest.mark.parametrize("plan", [FROM_SCRATCH, FROM_WEIGHTS])
def test_stages_cover_the_whole_budget_and_end_at_the_published_size(plan: Plan) -> None:
    ends = [end for end, _, _ in plan.stages]
    assert ends == sorted(ends) and ends[-1] == 1.0 and plan.stages[-1][1] == 224
    assert all(size % 32 == 0 for _, size, _ in plan.stages)


@pytest.mark.slow
def test_a_run_from_weights_starts_with_what_they_know(cache: Path, tmp_path: Path) -> None:
    taught = SpineRegressor().init_().eval()
    head = ShapeHead(Samples(cache, seed=1).batch(400, 32)[1], taught.linear.in_features)
    nn.init.normal_(head.weights.weight, std=0.05)
    taught.linear = head.folded()
    write_weights(taught, tmp_path / "start.safetensors")
    run = Run(Samples(cache, seed=2), tmp_path, 1.0, "cpu", FROM_WEIGHTS, tmp_path / "start.safetensors")
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        said, expected = run.model.eval()(image), taught(image)
    assert float((said - expected).abs().mean()) < 0.1 * float((expected - expected.mean()).abs().mean())


@pytest.mark.slow
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


@pytest.mark.slow
def test_batches_hold_drawn_phantoms(cache: Path) -> None:
    samples = Samples(cache, seed=1)
    images, targets = samples.batch(5, 64)
    assert len(samples) == 3
    assert images.shape == (5, 64, 64) and images.dtype == np.uint8 and targets.shape == (5, 1254)
    assert 0 < images.mean() < 200 and 0.3 < targets.mean() < 0.7


@pytest.mark.slow
def test_held_out_targets_are_the_rows_between(cache: Path) -> None:
    crops, targets = held_out(cache, 2)
    assert crops.shape == (2, 224, 224) and targets.shape == (2, 209, 6)
    column = (targets[0, 100, 1] * 224).round().astype(int)
    row = crops[0, 107].numpy().astype(float)
    assert row[column - 5 : column + 6].mean() > row.mean() + 20


@pytest.mark.slow
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


@pytest.mark.slow
def test_frozen_parts_keep_weights_and_statistics(cache: Path, tmp_path: Path) -> None:
    start = SpineRegressor().init_()
    for block in (module for module in start.modules() if isinstance(module, ResidualBlock)):
        # a block that starts as its shortcut passes nothing back to its weights
        nn.init.constant_(block.bn3.weight, 0.5)
    write_weights(start, tmp_path / "start.safetensors")
    plan = replace(FROM_WEIGHTS, freeze=1)
    run = Run(Samples(cache, seed=2), tmp_path, 1.0, "cpu", plan, tmp_path / "start.safetensors")
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.train_step(*run.samples.batch(2, 64))
    changed = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    kept = {name for name in before if name.startswith(("model.0.", "model.1.", "model.4."))}
    assert kept and not kept & changed
    assert {"model.5.0.bn1.running_mean", "model.5.0.conv1.weight", "linear.weights.weight"} <= changed
    run.save()

    # the same state goes on with other options: more frozen, norms fixed, dropout
    plan = replace(FROM_WEIGHTS, freeze=2, freeze_norms=True, dropout=0.1)
    again = Run(Samples(cache, seed=3), tmp_path, 1.0, "cpu", plan, tmp_path / "start.safetensors")
    before = {name: value.clone() for name, value in again.model.state_dict().items()}
    assert all(torch.equal(value, run.model.state_dict()[name]) for name, value in before.items())
    name, value = next((n, v) for n, v in again.learning.items() if n == "model.6.0.conv2.weight")
    assert torch.equal(again.optimiser.state[value]["exp_avg"], run.optimiser.state[run.learning[name]]["exp_avg"])
    again.train_step(*again.samples.batch(2, 64))
    changed = {name for name, value in again.model.state_dict().items() if not torch.equal(value, before[name])}
    assert again.step == 2 and "model.6.0.conv1.weight" in changed
    assert not any("running_" in name or name.startswith("model.5.") for name in changed)


def test_folded_norms_compute_the_same() -> None:
    torch.manual_seed(0)
    for network in (SpineRegressor(transformer=False).init_().eval(), SpineLite().init_().eval()):
        for norm in norms(network):
            nn.init.uniform_(norm.weight, 0.3, 0.6)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
            nn.init.normal_(norm.running_mean, std=0.1)
        state, images = network.state_dict(), torch.rand(1, 3, 224, 224)
        with torch.no_grad():
            expected = network(images)
            fold_norms(network)
            torch.testing.assert_close(network(images), expected, atol=1e-4, rtol=1e-3)
        assert list(network.state_dict()) == list(state)


@pytest.mark.slow
def test_frozen_parts_need_weights_and_exist(cache: Path, tmp_path: Path) -> None:
    for plan in (replace(FROM_SCRATCH, freeze_norms=True), replace(FROM_SCRATCH, freeze=0)):
        with pytest.raises(SystemExit, match="--start"):
            Run(Samples(cache, seed=2), tmp_path, 1.0, "cpu", plan)
    with pytest.raises(SystemExit, match="4 stages"):
        frozen_part(SpineRegressor(transformer=False), 5)


@pytest.mark.slow
def test_the_last_validation_folder_decides(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(Samples(cache, seed=2), tmp_path, 1.0, "cpu", FROM_SCRATCH)
    losses = iter([0.1, 3.0, 0.05, 4.0, 9.0, 2.0])
    monkeypatch.setattr("export.training.train.errors", lambda *_: {"loss_px": next(losses)})
    crops = held_out(cache, 1)
    bests = []
    for _ in range(3):
        entry: dict = {}
        _check(run, {"phantoms": crops, "people": crops}, entry)
        assert list(entry["held_out"]) == ["phantoms", "people"]
        bests.append((run.best, run.worse))
    assert bests == [(3.0, 0), (3.0, 1), (2.0, 0)]


@pytest.mark.slow
def test_every_option_is_recorded(cache: Path, tmp_path: Path) -> None:
    write_weights(SpineLite().init_(), tmp_path / "start.safetensors")
    options = parse(
        f"--cache {cache} {cache} --share 1 3 --validation a b/people --out {tmp_path} --rate 1e-4 --freeze 1 "
        "--freeze-norm --dropout 0.2 --lite".split()
    )
    assert [folder.name for folder in options.validation] == ["a", "people"]
    options.start = tmp_path / "start.safetensors"
    samples = Samples(options.cache, seed=1, shares=options.share)
    kept = record(Run(samples, tmp_path, 1.0, "cpu", plan_of(options), options.start))
    assert (kept["peak_rate"], kept["freeze"], kept["freeze_norms"], kept["dropout"]) == (1e-4, 1, True, 0.2)
    assert kept["source_shares"] == [0.25, 0.75] and kept["source_sizes"] == [3, 3] and kept["lite"]
    json.dumps(kept)


@pytest.mark.slow
def test_names_of_folders_that_are_alike_stay_apart(cache: Path, tmp_path: Path) -> None:
    other = tmp_path / "phantoms" / cache.name
    render(other, 1, 700, workers=1)
    assert list(named([cache, other])) == [str(cache), str(other)]
    assert list(named([cache])) == [cache.name]


def test_plans_wait_long_enough_for_a_noisy_error() -> None:
    assert FROM_SCRATCH.patience == FROM_WEIGHTS.patience == 12
