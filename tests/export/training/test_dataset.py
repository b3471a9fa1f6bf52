"""Augmented samples keep image and curves together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_spine.network import CROP_SIZE, CURVE_ROWS
from export.training.augment import augment
from export.training.dataset import MARGIN, WIDE, load_shards, make_sample, render, target_of
from export.training.phantoms.phantom import make_phantom


def _drawn(curves: np.ndarray) -> np.ndarray:
    """A wide crop whose only content is a bright ridge along the coronal centre."""
    x = np.arange(WIDE)[None, :] - MARGIN
    ridge = np.exp(-((x - curves[:, 1:2]) ** 2) / (2 * 3.0**2))
    return np.round(255 * ridge).astype(np.uint8)


@pytest.mark.parametrize("size", [224, 128])
def test_the_ridge_stays_under_the_centre_curve(size: int) -> None:
    rows = np.arange(WIDE) - MARGIN
    centre = 112 + 14 * np.sin(rows / 40)
    curves = np.stack([centre - 9, centre, centre + 9] + [rows * 0.05 + k for k in (-6, 0, 6)], axis=1)
    curves = curves.astype(np.float32)
    rng = np.random.default_rng(0)
    tested = 0
    for _ in range(30):
        image, target, _ = augment(rng, _drawn(curves), curves, size)
        column = target[:, 1] * CROP_SIZE
        shown = np.round((CURVE_ROWS + 0.5) * size / CROP_SIZE - 0.5).astype(int)
        weights = image[shown].astype(float) ** 4
        used = weights.sum(axis=1) > 1e6
        x = (weights @ (np.arange(size) + 0.5))[used] / weights[used].sum(axis=1) * CROP_SIZE / size - 0.5
        assert np.abs(x - column[used]).mean() < 0.6
        tested += used.sum()
        assert target[:, 4].mean() == pytest.approx(0.5, abs=1e-5)
        assert np.all(target[:, 0] < target[:, 1]) and np.all(target[:, 1] < target[:, 2])
    assert tested > 2000


def test_sample_landmarks_lie_on_the_spine() -> None:
    sample = make_sample(make_phantom(77))
    assert sample.crop.shape == (WIDE, WIDE) and sample.curves.shape == (WIDE, 6)
    target = target_of(sample.curves[MARGIN + 7 : MARGIN + 216])
    middle = (target[:, 0].min() + target[:, 2].max()) / 2 * CROP_SIZE
    assert middle == pytest.approx((CROP_SIZE - 1) / 2, abs=0.5)
    centre, top, bottom = sample.landmarks
    assert centre[0] == pytest.approx((top[0] + bottom[0]) / 2, abs=0.7)
    assert sample.levels.shape == (19, 2) and (np.diff(sample.levels[:17, 0]) > 5).all()
    rows = np.arange(WIDE) - MARGIN
    np.testing.assert_allclose(np.interp(sample.levels[:, 0], rows, sample.curves[:, 1]), sample.levels[:, 1], atol=0.2)
    assert sample.thumbnail[int(bottom[0]) - 3, round(float(bottom[1]))] > 100


@pytest.mark.slow
def test_render_makes_whole_shards_and_keeps_them(tmp_path: Path) -> None:
    render(tmp_path, 3, 40, workers=1)
    shards = load_shards(tmp_path)
    assert list(shards) == ["shard_00000040.npz"]
    assert shards["shard_00000040.npz"]["crop"].shape == (3, WIDE, WIDE)
    before = (tmp_path / "shard_00000040.npz").stat().st_mtime_ns
    render(tmp_path, 3, 40, workers=1)
    assert (tmp_path / "shard_00000040.npz").stat().st_mtime_ns == before
    assert load_shards(tmp_path, frozenset(shards)) == {}
