"""Image quality changes grey levels and never their order; geometry is tested with the dataset's samples."""

from __future__ import annotations

import numpy as np

from export.training.augment import disturb, grey_curve, vary_contrast


def test_grey_curves_are_monotone_smooth_and_differ() -> None:
    rng = np.random.default_rng(0)
    curves = np.stack([grey_curve(rng) for _ in range(200)])
    assert curves.dtype == np.float32 and curves.shape == (200, 256)
    assert (np.diff(curves) >= 0).all() and (curves[:, 0] == 0).all() and curves.max() <= 1
    # between black and white, where nothing is cut off, no step is far from its neighbours
    inner = np.diff(curves[:, 40:160])
    assert np.abs(np.diff(inner)).max() < 0.002
    assert 0.06 < curves[:, 128].std() < 0.25
    # more than a gamma: the middle does not tell the quarters
    assert np.std(curves[:, 64] - curves[:, 192]) > 0.03


def test_contrast_varies_slowly_over_the_image() -> None:
    field = vary_contrast(np.random.default_rng(1), np.full((224, 224), 0.5, np.float32))
    assert field.std() > 0.02 and np.abs(np.diff(field, axis=0)).max() < 0.01


def test_an_image_stays_an_image_at_every_size() -> None:
    rng = np.random.default_rng(2)
    for size in (32, 160, 224):
        image = np.tile(np.linspace(0, 255, size).astype(np.uint8), (size, 1))
        shown = np.stack([disturb(rng, image) for _ in range(60)])
        assert shown.dtype == np.uint8 and shown.shape == (60, size, size)
        assert shown[:, :, -size // 8 :].mean() > shown[:, :, : size // 8].mean() + 60
        assert (shown.mean(axis=(1, 2)) > 60).all()
