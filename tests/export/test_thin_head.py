"""A head of low rank becomes two thin layers with the same output; a full one stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from export.thin_head import with_thin_head


class _Network(nn.Module):
    """Stands in for the regressor: only its last layer matters here, which may be smaller."""

    def __init__(self, features: int = 512, outputs: int = 313) -> None:
        super().__init__()
        self.linear: Any = nn.Linear(features, outputs)


@pytest.mark.slow
def test_low_rank_is_split_and_agrees_after_float16() -> None:
    torch.manual_seed(0)
    network = _Network(2048, 1254)
    with torch.no_grad():
        network.linear.weight.copy_((torch.randn(1254, 40) @ torch.randn(40, 2048) * 1e-4).half().float())
    thin: Any = with_thin_head(network)  # type: ignore[arg-type]
    features = torch.rand(4, 2048)
    assert thin.linear[0].weight.shape == (40, 2048)
    assert sum(p.numel() for p in thin.parameters()) < 0.06 * sum(p.numel() for p in network.parameters())
    expected = network.linear(features)
    assert (thin.linear(features) - expected).abs().max() < 2e-3 * expected.abs().max()
    assert network.linear.weight.shape == (1254, 2048)


def test_full_rank_is_left_alone() -> None:
    network = _Network()
    assert with_thin_head(network) is network  # type: ignore[arg-type]


@pytest.mark.parametrize("rank", [1, 128])
def test_rank_is_found(rank: int) -> None:
    torch.manual_seed(1)
    network = _Network()
    with torch.no_grad():
        network.linear.weight.copy_(torch.randn(313, rank) @ torch.randn(rank, 512))
    thin: Any = with_thin_head(network)  # type: ignore[arg-type]
    assert thin.linear[0].out_features == rank


def test_shapes_that_are_small_beside_the_largest_are_kept() -> None:
    """Short waves need small shapes: a limit relative to the largest one dropped them."""
    torch.manual_seed(2)
    network = _Network()
    left, right = (torch.linalg.qr(torch.randn(size, 64)).Q for size in (313, 512))
    size = torch.logspace(0, -3.3, 64)
    with torch.no_grad():
        network.linear.weight.copy_(((left * size) @ right.T).half().float())
    thin: Any = with_thin_head(network)  # type: ignore[arg-type]
    assert thin.linear[0].out_features == 64
    difference = torch.linalg.matrix_norm(thin.linear[1].weight @ thin.linear[0].weight - network.linear.weight, 2)
    assert difference < 0.2 * size[-1]


def test_weights_that_moved_from_low_rank_keep_what_they_have() -> None:
    torch.manual_seed(3)
    network = _Network()
    with torch.no_grad():
        shapes = torch.randn(313, 40) @ torch.randn(40, 512) * 1e-4
        network.linear.weight.copy_((shapes * (1 + 0.01 * torch.randn(shapes.shape))).half().float())
    assert with_thin_head(network) is network  # type: ignore[arg-type]
