"""Direction of the sagittal columns of foreign weights.

Here larger values are more posterior. The released code shows only how a spine's mask is projected, not how its volumes
were stored, so that the direction of its checkpoints cannot be derived: it is stated, or decided on real pairs.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from edge_spine.errors import UsageError
from edge_spine.network import CROP_SIZE
from export.lite import Network
from export.regressor import COLUMNS, ROWS

Direction = Literal["posterior", "anterior"]
UNKNOWN = (
    "the direction of its sagittal columns cannot be derived from the released code: larger values are taken as more "
    "posterior; --sagittal anterior states the contrary, --pairs DIR decides on real pairs"
)
_MOST_PAIRS = 64
# Twice as close as mirrored, in shape: chance pairs of people are alike both ways.
_CLEARLY = 0.5


def turned(regressor: Network) -> Network:
    """Return a copy whose sagittal columns run to posterior, of weights whose columns run to anterior.

    Values v become 1 - v, and the anterior and the posterior border change places.
    """
    network: Network = copy.deepcopy(regressor)
    with torch.no_grad():
        for part, constant in ((network.linear.weight, 0.0), (network.linear.bias, 1.0)):
            columns = part.view(ROWS, COLUMNS, -1)
            columns[:, 3:] = constant - columns[:, 3:].flip(1)
    return network


def decide(regressor: Network, folder: Path) -> Direction:
    """Return the direction in which the answers to the validation pairs in a folder fit their truth.

    Raises
    ------
    UsageError
        There are no pairs, or neither direction fits clearly better.
    """
    from export.training.samples import held_out_pairs
    from export.training.validation import predict

    crops, targets, _ = held_out_pairs(folder / "validation")
    answers = predict(regressor, torch.from_numpy(crops[:_MOST_PAIRS]), "cpu", bfloat16=False)
    errors = {
        name: _shape_error(sign * answers[:, :, 4], targets[:_MOST_PAIRS, :, 4])
        for name, sign in (("posterior", 1), ("anterior", -1))
    }
    best, other = sorted(errors, key=lambda name: errors[name])
    if errors[best] > _CLEARLY * errors[other]:
        raise UsageError(
            f"the pairs do not tell the direction of the sagittal columns: off by {errors['posterior']:.1f} px with "
            f"larger values posterior, by {errors['anterior']:.1f} px with larger values anterior"
        )
    return "posterior" if best == "posterior" else "anterior"


def _shape_error(found: NDArray[np.float32], true: NDArray[np.float32]) -> float:
    """Return the mean error (crop pixels) of centre curves (N, 209) without their means."""
    apart = (found - found.mean(axis=1, keepdims=True)) - (true - true.mean(axis=1, keepdims=True))
    return float(np.abs(apart).mean()) * CROP_SIZE
