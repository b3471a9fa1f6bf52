from __future__ import annotations

from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from edge_spine.locate import CELLS, CHANNELS, POINTS, LevelNetwork, read_level_network, slopes
from edge_spine.network import CROP_SIZE
from export.training import levels
from export.training.dataset import load_shards, make_sample, write_shard
from export.training.phantoms.phantom import make_phantom


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("levels")
    write_shard(folder / "shard_00000000.npz", [make_sample(make_phantom(seed)) for seed in (3, 4)])
    return folder


def shards(cache: Path) -> levels.Shards:
    return list(load_shards(cache, fields=("crop", "curves", "levels")).values())


def test_the_runtime_computes_what_was_trained() -> None:
    torch.manual_seed(0)
    network = levels.Network(16).eval()
    channels = np.random.default_rng(0).normal(0, 1, (CROP_SIZE, CHANNELS)).astype(np.float32)
    with torch.no_grad():
        wanted = network(torch.from_numpy(channels.T[np.newaxis])).log_softmax(dim=2)[0].numpy().T
    found = LevelNetwork(**network.arrays()).log_probabilities(channels)
    assert found.shape == (CELLS, POINTS)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_weights_are_written_and_taken_up_again(tmp_path: Path) -> None:
    first, second = levels.Network(8), levels.Network(8)
    path = tmp_path / "levels.npz"
    path.write_bytes(levels.archive(first.arrays((0.5, 0.25))))
    levels.load(second, path)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert read_level_network(path.read_bytes()).error_px.tolist() == [0.5, 0.25]


def test_the_truth_lies_on_the_centreline_of_the_image(cache: Path) -> None:
    for shard in shards(cache):
        for curves, points in zip(shard["curves"], shard["levels"], strict=True):
            row = np.arange(len(curves)) - 24
            np.testing.assert_allclose(np.interp(points[:, 0], row, curves[:, 1]), points[:, 1], atol=0.2)


def test_points_move_with_the_image(cache: Path) -> None:
    # the foot of a point on the true centreline is the point itself
    rng = np.random.default_rng(1)
    shard = shards(cache)[0]
    for _ in range(5):
        _, target, points = levels.augment(rng, shard["crop"][0], shard["curves"][0], CROP_SIZE, shard["levels"][0])
        line = levels.continued(target[:, 1].astype(np.float64) * CROP_SIZE)
        inside = (points[:, 0] > 8) & (points[:, 0] < 215)
        assert inside.sum() > 14
        np.testing.assert_allclose(np.interp(points[:, 0], np.arange(224), line)[inside], points[inside, 1], atol=0.3)
        np.testing.assert_allclose(levels.feet(points, line)[inside], points[inside, 0], atol=0.2)


def test_a_foot_is_where_the_normal_passes_through_the_point() -> None:
    line = 112 + 0.3 * (np.arange(CROP_SIZE) - 112.0)
    (foot,) = levels.feet(np.array([[100.0, 120.0]]), line)
    place = np.array([foot, 112 + 0.3 * (foot - 112)])
    assert abs((np.array([100.0, 120.0]) - place) @ [1, 0.3]) < 0.05
    assert slopes(line)[112] == pytest.approx(0.3)


def test_a_strip_that_is_stretched_takes_its_points_along() -> None:
    # a bright band of rows at each point
    rows = np.array([40.0, 90.0, 150.0, 190.0])
    place = np.arange(CROP_SIZE)[:, np.newaxis]
    grey = np.exp(-(((place - rows) / 3) ** 2)).sum(axis=1)
    channels = np.repeat(grey[:, np.newaxis], CHANNELS, axis=1).astype(np.float32)
    rng, far = np.random.default_rng(2), 0.0
    for _ in range(20):
        changed, moved = levels.moved(rng, channels, rows)
        assert (np.diff(moved) > 0).all()
        for row in moved:
            assert changed[round(row) - 2 : round(row) + 3, 0].max() > 0.9
        far = max(far, float(np.abs(moved - rows).max()))
    assert far > 4


def test_targets_peak_at_their_rows() -> None:
    rows = np.tile(np.linspace(10, 210, POINTS), (2, 1))
    heat = levels.targets(rows).numpy()
    assert heat.shape == (2, POINTS, CELLS)
    np.testing.assert_allclose(heat.sum(axis=2), 1, atol=1e-5)
    np.testing.assert_allclose(heat @ (np.arange(CELLS) * 2.0), rows, atol=0.3)


def test_the_expected_error_is_fitted_and_never_negative() -> None:
    spread = np.linspace(1, 5, 100)
    assert levels.fit_expected(0.5 + 0.3 * spread, spread) == pytest.approx((0.5, 0.3))
    assert levels.fit_expected(3 - 0.3 * spread, spread)[1] == 0
    assert levels.fit_expected(spread - 0.9, spread)[0] == 0


@pytest.mark.slow
def test_training_learns_and_says_how_well(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "levels.npz"
    arguments = ["--cache", str(cache), "--validation", str(cache), "--out", str(out)]
    # thirty steps, however busy the machine is
    clock = count(0, 0.4)
    monkeypatch.setattr(levels, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert levels.main([*arguments, "--minutes", "0.2"]) == 0
    printed = capsys.readouterr().out
    assert all(words in printed for words in ("body centres", "named right", "miscounted", "expected error"))
    trained, fresh = read_level_network(out.read_bytes()), LevelNetwork(**levels.Network().arrays())
    learnt, guessed = (levels.judge(network, shards(cache)) for network in (trained, fresh))
    assert np.abs(learnt.error_px).mean() < 0.5 * np.abs(guessed.error_px).mean()
    assert learnt.named.shape == (2, 17) and learnt.named.mean() > guessed.named.mean()


def test_a_cache_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no shards"):
        levels.main(["--cache", str(tmp_path), "--validation", str(tmp_path), "--out", str(tmp_path / "x.npz")])
