"""Errors of a network in training on held-out crops."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_spine.network import CROP_SIZE
from export.training.loss import SPANS, curve_loss
from export.training.precision import autocast
from export.training.samples import HeldOut

HALF_WAVES = 8


def as_images(crops: Tensor, device: str) -> Tensor:
    """Turn (N, S, S) uint8 crops into the network's (N, 3, S, S) float input."""
    images = crops.to(device).float().div_(255)[:, None].expand(-1, 3, -1, -1)
    return images.contiguous(memory_format=torch.channels_last)


def predict(
    model: nn.Module, crops: Tensor, device: str, batch: int = 25, *, bfloat16: bool = True
) -> NDArray[np.float32]:
    """Run (N, 224, 224) uint8 crops through a model; returns (N, 209, 6).

    In bfloat16 a last layer that is no `ShapeHead` would round its coordinates to half a pixel.
    """
    model.eval()
    outputs = []
    with torch.no_grad(), autocast(device, bfloat16):
        for part in crops.split(batch):
            outputs.append(model(as_images(part, device)).float().cpu().numpy())
    return np.concatenate(outputs).reshape(-1, 209, 6)


def errors(model: nn.Module, held: HeldOut, device: str) -> dict[str, Any]:
    """Measure a network on held-out crops.

    Returns
    -------
    dict
        ``loss_px``: the training loss; ``coronal_px``, ``sagittal_px``: mean error, crop pixels; ``tangent_gain``:
        for 1 to 8 half-waves of the coronal centre's tangents, predicted on true (1 where nothing is flattened);
        ``curve_slope``, ``curve_bias_deg``: slope of predicted on true largest angle between two tangents, and the
        mean difference.
    """
    crops, targets = held
    output = predict(model, crops, device)
    error = np.abs(output - targets) * CROP_SIZE
    said, true = (coronal_tangents(curves) for curves in (output, targets))
    angle_said, angle_true = (np.ptp(tangents, axis=1) for tangents in (said, true))
    return {
        "loss_px": round(float(curve_loss(torch.from_numpy(output), torch.from_numpy(targets))), 4),
        "coronal_px": round(float(error[:, :, :3].mean()), 3),
        "sagittal_px": round(float(error[:, :, 3:].mean()), 3),
        "tangent_gain": [round(float(gain), 2) for gain in tangent_gain(said, true)],
        "curve_slope": round(_slope(angle_said, angle_true), 2),
        "curve_bias_deg": round(float((angle_said - angle_true).mean()), 1),
    }


def coronal_tangents(curves: NDArray[np.float32]) -> NDArray[np.float64]:
    """Angles to the vertical of the coronal centre's chords over 13 rows: (N, 209, 6) to (N, 196), degrees."""
    centre = curves[:, :, 1].astype(float) * CROP_SIZE
    span = SPANS[0]
    return np.asarray(np.degrees(np.arctan((centre[:, span:] - centre[:, :-span]) / span)))


def tangent_gain(said: NDArray[np.float64], true: NDArray[np.float64]) -> NDArray[np.float64]:
    """Regress cosine coefficients of predicted tangents on those of true ones.

    Parameters
    ----------
    said, true : (N, K) array
        Tangents along the spine.

    Returns
    -------
    (8,) array
        Slope through zero over the N spines, for 1 to 8 half-waves.
    """
    along = (np.arange(true.shape[1]) + 0.5) / true.shape[1]
    waves = np.cos(np.pi * np.outer(along, np.arange(1, HALF_WAVES + 1)))
    a, b = said @ waves, true @ waves
    return np.asarray((a * b).sum(axis=0) / np.maximum((b * b).sum(axis=0), 1e-12))


def _slope(said: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    centred = true - true.mean()
    return float((centred * said).sum() / max((centred**2).sum(), 1e-12))
