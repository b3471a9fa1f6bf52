"""Factorise a last layer of low rank into two smaller layers.

Networks trained here add a few dozen principal shapes to a mean curve, so the matrix of their last layer, (1254, 2048)
in the published network, has that rank. A matrix of full rank, as in the released checkpoint, is not changed.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from export.lite import Network

MOST_SHAPES = 128
# Singular values up to this many times the expected largest one of float16 rounding are rounding.
MARGIN = 2.0


def rounding_level(weight: Tensor) -> float:
    """Expected largest singular value of the float16 rounding errors of a matrix.

    Rounding errors are as good as random: their RMS is 2^-11 / sqrt(3) of that of the weights, and the largest singular
    value of a random (m, n) matrix is sqrt(m) + sqrt(n) times its RMS (Geman, Annals of Probability, 1980).
    """
    rows, columns = weight.shape
    return float(weight.square().mean().sqrt()) * 2**-11 / math.sqrt(3) * (math.sqrt(rows) + math.sqrt(columns))


def with_thin_head(regressor: Network) -> Network:
    """Return a copy of the network with its last layer factorised if its rank permits.

    Parameters
    ----------
    regressor : SpineRegressor or SpineLite
        float32 weights.
    """
    weight = regressor.linear.weight.detach()
    left, size, right = torch.linalg.svd(weight.double(), full_matrices=False)
    rank = int((size > MARGIN * rounding_level(weight.double())).sum())
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
