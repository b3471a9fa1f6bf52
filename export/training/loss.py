"""Training loss: L1 on positions, and L1 on tangents at two spans.

A flattened short wave changes positions by less than a pixel, but tangents, which determine Cobb angles, by several
degrees.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edge_spine.network import CROP_SIZE
from export.regressor import COLUMNS, ROWS

# Rows of a chord: about one vertebra, and two.
SPANS = (13, 26)
# Weight of one degree of tangent error, crop pixels. A coronal error of 0.4 px comes with 2 to 3 degrees, so that
# tangents weigh about as much as positions there; the side view is less certain, so its tangents weigh less.
CORONAL_TANGENT = 0.2
SAGITTAL_TANGENT = 0.05


def tangents(curves: Tensor, span: int) -> Tensor:
    """Return the angles to the vertical of chords over `span` rows, for small angles.

    Parameters
    ----------
    curves : (N, 209, 6) tensor
        Crop pixels.

    Returns
    -------
    (N, 209 - span, 6) tensor
        Degrees.
    """
    return (curves[:, span:] - curves[:, :-span]) * (180 / math.pi / span)


def curve_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 loss on positions and tangents, a scalar in crop pixels.

    Parameters
    ----------
    output, target : (N, 1254) or (N, 209, 6) tensor
        Crop pixels / 224.
    """
    error = ((output.float() - target.float()) * CROP_SIZE).reshape(-1, ROWS, COLUMNS)
    charge = torch.tensor([CORONAL_TANGENT] * 3 + [SAGITTAL_TANGENT] * 3, device=error.device)
    turned = [(tangents(error, span).abs() * charge).mean() for span in SPANS]
    return error.abs().mean() + torch.stack(turned).mean()
