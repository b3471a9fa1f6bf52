"""Factorise a last layer of low rank into two smaller layers.

Networks trained here add a few dozen principal shapes to a mean curve, so the matrix of their last layer, (1254, 2048)
in the published network, has that rank. A matrix of full rank, as in the released checkpoint, is not changed.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from export.lite import Network

MOST_SHAPES = 128
# float16 rounding adds singular values of about 4e-4 of the largest.
NEGLIGIBLE = 2e-3


def with_thin_head(regressor: Network) -> Network:
    """Return a copy of the network with its last layer factorised if its rank permits.

    Parameters
    ----------
    regressor : SpineRegressor or SpineLite
        float32 weights.
    """
    weight = regressor.linear.weight.detach()
    left, size, right = torch.linalg.svd(weight.double(), full_matrices=False)
    rank = int((size > NEGLIGIBLE * size[0]).sum())
    if rank > MOST_SHAPES:
        return regressor
    first = nn.Linear(weight.shape[1], rank, bias=False)
    second = nn.Linear(rank, weight.shape[0])
    with torch.no_grad():
        first.weight.copy_(size[:rank, None] * right[:rank])
        second.weight.copy_(left[:, :rank])
        second.bias.copy_(regressor.linear.bias)
    thin: Network = copy.deepcopy(regressor)
    thin.linear = nn.Sequential(first, second)
    return thin
