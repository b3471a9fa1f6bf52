"""Strips follow the centreline, slopes are summed to curves, and the network learns what a strip shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edge_spine.network import CROP_SIZE, CURVE_ROWS
from export.studies import strips
from export.training.dataset import MARGIN, WIDE, shard_path
from export.training.samples import Samples, held_out

CENTRE = (CROP_SIZE - 1) / 2


def _shard(folder: Path, count: int, seed: int) -> Path:
    """Write crops with a bright column, brighter where the side view falls to the back."""
    rng = np.random.default_rng(seed)
    rows = np.arange(WIDE)
    crops, curves = [], []
    for _ in range(count):
        wave = rng.normal(0, 1.0) * np.sin(np.pi * (rows - MARGIN) / CROP_SIZE)
        grey = np.full((WIDE, WIDE), 20.0)
        grey[:, MARGIN + 100 : MARGIN + 124] = 120 + 50 * np.clip(wave, -2, 2)[:, np.newaxis]
        column = np.full(WIDE, CENTRE)
        side = np.cumsum(wave) * 0.3
        curves.append(np.stack([column - 12, column, column + 12, side - 10, side, side + 10], axis=1))
        crops.append(grey)
    folder.mkdir(exist_ok=True)
    np.savez(
        shard_path(folder, seed),
        crop=np.round(crops).astype(np.uint8),
        curves=np.array(curves, dtype=np.float32),
    )
    return folder


def test_a_strip_follows_a_slanting_column() -> None:
    column = 90 + 0.25 * np.arange(CROP_SIZE)
    columns = np.arange(CROP_SIZE)
    crop = np.where(np.abs(columns - column[:, np.newaxis]) < 10, 200, 0).astype(np.uint8)
    seen = strips.strip(crop, np.interp(CURVE_ROWS, np.arange(CROP_SIZE), column))
    assert seen.shape == (CROP_SIZE, 2 * strips.REACH_PX)
    inner = seen[20:-20]
    assert inner[:, 26:38].min() > 0.4 and inner[:, [*range(20), *range(44, 64)]].max() == 0


def test_slopes_are_summed_to_a_curve() -> None:
    curve = strips._curve_of_slopes()
    np.testing.assert_allclose(curve @ np.ones(56), np.arange(209) - 104, atol=1e-3)
    # a slope at one height turns all below it against all above it
    step = curve @ np.eye(56)[28]
    assert np.ptp(step[:100]) < 1e-5 and np.ptp(step[130:]) < 1e-5 and step[130] - step[99] == pytest.approx(4)


def test_the_mean_curve_is_the_error_of_no_answer(tmp_path: Path) -> None:
    held = held_out(_shard(tmp_path / "people", 6, 1), 10)
    true = strips.prepared(held[0].numpy(), held[1])[1]
    flat = torch.nn.Module()
    flat.forward = lambda given: torch.zeros(len(given), 209)
    error, mean = strips.judged(flat, held)
    assert error == pytest.approx(float(true.abs().mean()))
    assert 0 < mean <= error * 1.5


@pytest.mark.slow
def test_what_strips_show_is_learnt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen, unseen = _shard(tmp_path / "seen", 40, 1), _shard(tmp_path / "unseen", 20, 2)
    error, mean = strips.judged(strips.train(Samples(seen, seed=0), 0.6), held_out(unseen, 20))
    assert error < 0.5 * mean
    arguments = ["--cache", str(seen), "--validation", str(unseen), str(seen), "--minutes", "0.05"]
    assert strips.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "unseen: sagittal centre " in printed and "seen: sagittal centre " in printed
