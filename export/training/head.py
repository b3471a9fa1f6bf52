"""Last layer during training: principal shapes of the curves, folded into one linear layer when saved."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from edge_spine.files import beside
from edge_spine.network import CROP_SIZE
from export.lite import Network
from export.regressor import CHANNELS, COLUMNS, OUTPUTS, ROWS
from export.training.loss import CORONAL_TANGENT, SAGITTAL_TANGENT, SPANS

SHAPES = 64
# The shapes always include coronal waves of 1 to `WAVES` half-waves with this RMS of the tangents: films of mild curves
# have 0.9 to 3.6 degrees, 0.8 times that lying (data/shape/coronal_films.json).
WAVES = 9
WAVE_DEGREES = 1.0


def coronal_waves(degrees: float = WAVE_DEGREES) -> NDArray[np.float64]:
    """Return waves of the coronal curves in two phases, (2 * 9, 1254), with RMS tangents of `degrees`.

    Borders move with the centre. Wave 2 k has k + 1 half-waves over the 209 rows with tangents that begin at a peak,
    wave 2 k + 1 at zero.
    """
    along = np.linspace(0, 1, ROWS)
    waves = []
    for half_waves in range(1, WAVES + 1):
        phase = np.pi * half_waves * along
        amplitude = np.sqrt(2) * np.radians(degrees) * (ROWS - 1) / (np.pi * half_waves)
        for wave in (np.sin(phase), np.cos(phase)):
            curves = np.zeros((ROWS, COLUMNS))
            curves[:, :3] = amplitude * wave[:, None] / CROP_SIZE
            waves.append(curves.ravel())
    return np.stack(waves)


def as_charged(shapes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Append to (N, 1254) shapes their tangents, with the weights of the loss."""
    curves = shapes.reshape(-1, ROWS, COLUMNS)
    charge = np.degrees([CORONAL_TANGENT] * 3 + [SAGITTAL_TANGENT] * 3)
    parts = [(curves[:, span:] - curves[:, :-span]) / span * charge / np.sqrt(len(SPANS)) for span in SPANS]
    return np.concatenate([part.reshape(len(curves), -1) for part in (curves, *parts)], axis=1)


class ShapeHead(nn.Module):
    """Last layer that adds principal shapes to the mean curves; it can be folded into one linear layer.

    The shapes are principal in the measure of the loss, positions and tangents, of the samples and of
    `coronal_waves` together. Each is scaled by its spread, so that every weight learns at the same relative rate:
    AdamW's steps do not depend on the size of the gradient.

    Parameters
    ----------
    targets : (samples, 1254) array
        Training targets from which the shapes are computed.
    channels : int
        Number of input features.
    dropout : float
        Dropout rate of the features.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, targets: NDArray[np.float32], channels: int = CHANNELS, dropout: float = 0.0) -> None:
        super().__init__()
        mean = targets.mean(axis=0, dtype=np.float64)
        deviations = np.concatenate([(targets - mean) / np.sqrt(len(targets)), coronal_waves()])
        # Only the leading part; the full decomposition takes half a minute.
        scores, _, _ = torch.svd_lowrank(torch.from_numpy(as_charged(deviations)), q=2 * SHAPES, niter=4)
        basis = scores[:, :SHAPES].numpy().T @ deviations
        self.register_buffer("mean", torch.from_numpy(mean.astype(np.float32)))
        self.register_buffer("basis", torch.from_numpy(basis.astype(np.float32)))
        self.dropout = nn.Dropout(dropout)
        self.weights = nn.Linear(channels, len(basis))
        nn.init.normal_(self.weights.weight, std=0.01)
        nn.init.zeros_(self.weights.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, channels) to (N, 1254)."""
        return self.weights(self.dropout(features)).float() @ self.basis + self.mean

    @torch.no_grad()
    def take(self, linear: nn.Linear) -> None:
        """Set the weights so that the folded layer approximates `linear`."""
        inverse = torch.linalg.pinv(self.basis.T.double())
        self.weights.weight.copy_(inverse @ linear.weight.double())
        self.weights.bias.copy_(inverse @ (linear.bias - self.mean).double())

    def folded(self) -> nn.Linear:
        """Return the same map as one linear layer."""
        linear = nn.Linear(self.weights.in_features, OUTPUTS)
        with torch.no_grad():
            linear.weight.copy_(self.basis.T @ self.weights.weight)
            linear.bias.copy_(self.weights.bias @ self.basis + self.mean)
        return linear

    def residual(self, shapes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the fraction (N,) of the coronal tangents' energy in (N, 1254) deviations outside the shapes."""
        basis = self.basis.double().cpu().numpy()
        held = shapes @ np.linalg.pinv(basis) @ basis

        def energy(deviations: NDArray[np.float64]) -> NDArray[np.float64]:
            curves = deviations.reshape(-1, ROWS, COLUMNS)[:, :, :3]
            return np.asarray((np.diff(curves, axis=1) ** 2).sum(axis=(1, 2)))

        return energy(shapes - held) / energy(shapes)


def write_weights(model: Network, path: Path) -> None:
    """Write a model as float16 safetensors in the published layout; a `ShapeHead` is folded."""
    plain = copy.deepcopy(model).cpu().float()
    if isinstance(plain.linear, ShapeHead):
        plain.linear = plain.linear.folded()
    state = {name: value.half() if value.is_floating_point() else value for name, value in plain.state_dict().items()}
    with beside(path) as partial:
        save_file({name: value.contiguous() for name, value in state.items()}, partial)
