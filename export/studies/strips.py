"""Measure on a small network what more people in training are worth: `python -m export.studies.strips --cache DIR ...`.

The network sees nothing but a strip along the true centreline, 32 crop pixels to either side, and answers the sagittal
centre. It learns from scratch in minutes on one core, hence a question about training material that would take `spine`
hours can be tried on it. Its errors are printed for each `--validation`.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_spine.locate import along_normals, continued
from edge_spine.network import CROP_SIZE, CURVE_ROWS, ROWS
from export.training.augment import wandering
from export.training.loss import SAGITTAL_TANGENT, SPANS, tangents
from export.training.samples import HeldOut, Samples, held_out, prefetch

# samples to either side of the centreline, crop pixels
REACH_PX = 32
BATCH, PEAK_RATE, WEIGHT_DECAY, DROPOUT = 48, 2e-3, 0.03, 0.2
# SDs, pixels, of the disturbance of the centreline
_DISTURBANCE_PX = (0.2, 0.5, 0.9)
# cells along the spine, and the slope, pixels a row, of an answer of one
_CELLS, _STEP, _SLOPE = 56, 4, 0.2
_OFFSETS = np.arange(-REACH_PX, REACH_PX, dtype=np.float32) + np.float32(0.5)

Array = NDArray[np.float64]
Grey = NDArray[np.float32]


class StripNetwork(nn.Module):
    """Two-dimensional layers, then layers along the spine, from strips (N, 1, 224, 64) to curves (N, 209), pixels."""

    place: Tensor
    curve: Tensor

    def __init__(self, width: int = 192) -> None:
        super().__init__()
        sizes = ((1, 16, 1), (16, 32, (1, 2)), (32, 48, 2), (48, 64, 2), (64, 96, (1, 2)))
        self.across = nn.Sequential(*(_layer(*size) for size in sizes))
        self.dropout = nn.Dropout(DROPOUT)
        self.entry = nn.Conv1d(96 * 4 + 1, width, 1)
        self.along = nn.ModuleList(_block(width, dilation) for dilation in (1, 2, 4, 8))
        self.exit = nn.Conv1d(width, 1, 1)
        self.register_buffer("place", torch.linspace(-1, 1, _CELLS)[None, None])
        self.register_buffer("curve", torch.from_numpy(_curve_of_slopes()))

    def forward(self, strips: Tensor) -> Tensor:
        """Map strips (N, 1, 224, 64) to sagittal centres (N, 209), crop pixels from their mean."""
        features = self.dropout(self.across(strips).permute(0, 1, 3, 2).flatten(1, 2))
        hidden = self.entry(torch.cat([features, self.place.expand(len(features), -1, -1)], dim=1))
        for block in self.along:
            hidden = hidden + block(hidden)
        return torch.as_tensor(self.exit(torch.relu(hidden))[:, 0] * _SLOPE @ self.curve.T)


def _layer(given: int, made: int, stride: int | tuple[int, int]) -> nn.Module:
    convolution = nn.Conv2d(given, made, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(made), nn.ReLU(inplace=True))


def _block(width: int, dilation: int) -> nn.Module:
    wide = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
    return nn.Sequential(nn.ReLU(), wide, nn.ReLU(), nn.Conv1d(width, width, 1))


def _curve_of_slopes() -> Grey:
    """Return the (209, 56) matrix that sums slopes in the cells to a curve without its mean."""
    cells = np.arange(_CELLS)
    place = np.clip((CURVE_ROWS - (_STEP - 1) / 2) / _STEP, 0, _CELLS - 1)
    at_rows = np.maximum(1 - np.abs(place[:, np.newaxis] - cells), 0)
    summed = np.cumsum(at_rows, axis=0)
    return np.asarray(summed - summed.mean(axis=0), dtype=np.float32)


def strip(crop: NDArray[np.uint8], centre: Array) -> Grey:
    """Sample a crop (224, 224) along the normals of a centreline (209,), pixels, to (224, 64) of like brightness."""
    grey = along_normals(crop.astype(np.float32) / 255, continued(centre), _OFFSETS)
    middle = grey[:, REACH_PX - 8 : REACH_PX + 8].mean()
    return np.asarray(grey * (0.5 / max(float(middle), 0.1)), dtype=np.float32)


def prepared(
    crops: NDArray[np.uint8], targets: NDArray[np.float32], rng: np.random.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Return strips (N, 1, 224, 64) and true curves (N, 209), pixels; a generator disturbs the centreline."""
    strips = []
    curves = targets.reshape(-1, ROWS, 6).astype(np.float64) * CROP_SIZE
    for crop, centre in zip(crops, curves[:, :, 1], strict=True):
        moved = 0 if rng is None else wandering(rng, _DISTURBANCE_PX)
        strips.append(strip(crop, centre + moved))
    sagittal = curves[:, :, 4] - curves[:, :, 4].mean(axis=1, keepdims=True)
    return torch.from_numpy(np.stack(strips)[:, np.newaxis]), torch.from_numpy(sagittal.astype(np.float32))


def train(samples: Samples, minutes: float, seed: int = 0) -> nn.Module:
    """Train for some minutes on the loss of `export.training.loss`, a rate that rises and falls once."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    network: Any = StripNetwork()
    network = network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    began, seen = time.monotonic(), 0
    for images, targets, _ in prefetch(samples, lambda: (CROP_SIZE, BATCH)):
        share = (time.monotonic() - began) / (60 * minutes)
        if share >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = PEAK_RATE * min(25 * share + 0.02, 1.0) * (1 + math.cos(math.pi * share)) / 2
        strips, wanted = prepared(images, targets, rng)
        with torch.autocast("cpu", torch.bfloat16):
            answer = network(strips.contiguous(memory_format=torch.channels_last))
        error = (answer.float() - wanted)[:, :, np.newaxis]
        loss = error.abs().mean() + SAGITTAL_TANGENT * tangents(error, SPANS[0]).abs().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        seen += len(images)
    print(f"{seen} images in {minutes:g} minutes")
    trained: nn.Module = network.eval()
    return trained


def judged(network: nn.Module, held: HeldOut) -> tuple[float, float]:
    """Return two mean absolute errors, crop pixels: the network's, and that of the mean of the true curves."""
    strips, true = prepared(held[0].numpy(), held[1])
    with torch.no_grad():
        error = (network(strips) - true).abs().mean()
    return float(error), float((true - true.mean(dim=0)).abs().mean())


def main(argv: list[str] | None = None) -> int:
    """Train on the shards of `--cache` and print the errors on each folder of `--validation`."""
    parser = argparse.ArgumentParser(prog="python -m export.studies.strips", description=__doc__)
    parser.add_argument("--cache", type=Path, nargs="+", required=True, metavar="DIR", help="shards to learn from")
    parser.add_argument("--share", type=float, nargs="+", metavar="S", help="share of the images from each --cache")
    parser.add_argument("--validation", type=Path, nargs="+", required=True, metavar="DIR", help="shards to judge on")
    parser.add_argument("--minutes", type=float, default=9.0, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    network = train(Samples(options.cache, options.seed, shares=options.share), options.minutes, options.seed)
    for folder in options.validation:
        error, mean = judged(network, held_out(folder, 1000))
        print(f"{folder.name}: sagittal centre {error:.3f} px; the mean of these curves {mean:.3f} px")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
