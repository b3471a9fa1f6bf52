"""Principal shapes: one linear layer when folded, and short coronal waves among them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from export.training.head import SHAPES, WAVES, ShapeHead, coronal_waves
from export.training.validation import coronal_tangents


@pytest.fixture(scope="module")
def targets() -> np.ndarray:
    """Smooth curves: whatever holds short waves does not have them from here."""
    rng = np.random.default_rng(0)
    along = np.linspace(-1, 1, 209)
    smooth = np.stack([np.polynomial.Polynomial(c)(along) for c in rng.normal(0, 0.05, (300 * 6, 5))])
    return (0.5 + smooth.reshape(300, 6, 209).transpose(0, 2, 1).reshape(300, -1)).astype(np.float32)


def test_it_folds_into_one_linear_layer(targets: np.ndarray) -> None:
    head = ShapeHead(targets).eval()
    features = torch.rand(4, 2048)
    folded = head.folded()
    torch.testing.assert_close(folded(features), head(features), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(folded.bias.detach(), torch.from_numpy(targets.mean(axis=0)), atol=1e-5, rtol=0)


def test_short_coronal_waves_lose_less_than_a_fiftieth(targets: np.ndarray) -> None:
    head = ShapeHead(targets)
    assert len(head.basis) == SHAPES
    lost = head.residual(coronal_waves())
    assert lost.shape == (2 * WAVES,) and lost.max() < 0.02
    # far shorter ones are not among the shapes
    comb = np.zeros((209, 6))
    comb[:, :3] = np.sin(np.pi * 60 * np.linspace(0, 1, 209))[:, None]
    assert head.residual(comb.reshape(1, -1))[0] > 0.5


def test_waves_have_the_tangents_they_state() -> None:
    tangents = coronal_tangents(coronal_waves(2.0).reshape(-1, 209, 6).astype(np.float32))
    rms = np.sqrt((tangents**2).mean(axis=1))
    # chords over 13 rows smooth the shortest
    np.testing.assert_allclose(rms[:4], 2.0, rtol=0.06)
    assert (rms[-2:] > 1.6).all() and (rms < 2.2).all()


def test_it_takes_a_layer_that_its_shapes_can_hold(targets: np.ndarray) -> None:
    given, head = ShapeHead(targets), ShapeHead(targets)
    nn.init.normal_(given.weights.weight, std=0.05)
    linear = given.folded()
    head.take(linear)
    torch.testing.assert_close(head.folded().weight, linear.weight, atol=1e-5, rtol=1e-3)


def test_dropout_is_for_training_alone(targets: np.ndarray) -> None:
    head = ShapeHead(targets, channels=64, dropout=0.5)
    nn.init.normal_(head.weights.weight, std=0.5)
    features = torch.ones(1, 64)
    torch.manual_seed(0)
    assert not torch.equal(head.train()(features), head(features))
    assert torch.equal(head.eval()(features), head(features))
