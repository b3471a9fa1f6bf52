"""A last layer of low rank as two thin ones: the same map in a fraction of the numbers.

Networks trained here add a few dozen principal shapes to a mean curve, so the matrix of their last layer, (1254, 2048)
in the published network, has that rank. A matrix of full rank, as in the released checkpoint, is left as it is.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from export.lite import Network

MOST_SHAPES = 128
# float16 storage leaves singular values of about 4e-4 of the largest where the matrix had none
NEGLIGIBLE = 2e-3


def with_thin_head(regressor: Network) -> Network:
    """Return the network with its last layer split in two where its rank allows; the argument stays as it is.

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
