"""Fit the refinement of the coronal curves: `python -m export.training.refinement --cache DIR --out FILE`.

Learns from rendered scans of people (`export.training.dataset --people`), augmented as in training. Starts are true
curves that are disturbed at random, so that the fit belongs to no network. `python -m export --refinement FILE` puts it
into a bundle. Judge a bundle with and without it by `python -m export.training.evaluate --people`, on people that are
not in DIR.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from edge_spine.files import beside
from edge_spine.network import CROP_SIZE, ROWS
from edge_spine.refine import INPUTS, SAMPLED, mirrored, parts, scaled_profile, smoothed, splines, windows
from export.training.samples import Samples

HIDDEN = 48
IMAGES, EPOCHS, BATCH = 20_000, 12, 512
PEAK_RATE, WEIGHT_DECAY = 4e-3, 0.01
# every so many samples of an image, because neighbours are nearly equal
_STEP = 4
# SDs, pixels, of the splines that a true centre is disturbed by, and the SD of the logarithm of its half-width
_DISTURBANCE_PX, _DISTURBANCE_WIDTH = (0.5, 1.0, 1.7), 0.08
# weight of the width's error against the centre's
_WIDTH_WEIGHT = 0.5

Array = NDArray[np.float32]


class WindowNetwork(nn.Module):
    """The network of `edge_spine.refine.Refinement`, applied to windows and their mirror images."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(INPUTS, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 2)])

    def answers(self, cut: Tensor) -> Tensor:
        """Map windows (N, 346) to (N, 2) answers."""
        for layer in self.layers[:-1]:
            cut = torch.relu(layer(cut))
        return torch.as_tensor(self.layers[-1](cut))

    def forward(self, cut: Tensor, mirror: Tensor) -> Tensor:
        """Map windows and their mirror images, (N, 346) each, to the distance and what the half-width lacks, (N, 2)."""
        own, other = self.answers(cut), self.answers(mirror)
        return torch.stack([own[:, 0] - other[:, 0], own[:, 1] + other[:, 1]], dim=1)

    def archive(self) -> bytes:
        """Return the weights as `edge_spine.refine.read_refinement` takes them."""
        arrays = {}
        for number, layer in enumerate(self.layers):
            arrays[f"weight{number}"] = layer.weight.detach().numpy().T.copy()
            arrays[f"bias{number}"] = layer.bias.detach().numpy()
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        return stream.getvalue()


def draw(samples: Samples, images: int, rng: np.random.Generator) -> Iterator[tuple[Array, Array]]:
    """Draw the windows (N, 346) and the wanted answers (N, 2) of each of some augmented images."""
    for _ in range(images):
        drawn, targets = samples.batch(1, CROP_SIZE)
        crop, columns = drawn[0].astype(np.float32) / 255, targets.reshape(ROWS, 6).astype(np.float64) * CROP_SIZE
        true, half_width = columns[:, 1], smoothed(columns[:, 2] - columns[:, 0]) / 2
        moved = splines() @ rng.normal(0, rng.choice(_DISTURBANCE_PX), splines().shape[1])
        start = smoothed(true) + moved
        start_width = half_width * np.exp(parts() @ rng.normal(0, _DISTURBANCE_WIDTH, parts().shape[1]))
        profile, _ = scaled_profile(crop, start[SAMPLED], start_width[SAMPLED])
        chosen = np.arange(rng.integers(_STEP), SAMPLED.size, _STEP)
        wanted = np.stack([(true - start) / start_width, half_width / start_width - 1], axis=1)[SAMPLED[chosen]]
        yield windows(profile, chosen), wanted.astype(np.float32)


def fit(samples: Samples, images: int = IMAGES, epochs: int = EPOCHS, seed: int = 0) -> WindowNetwork:
    """Fit the network on so many augmented images: squared errors, AdamW, a rate that rises and falls once."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    parted = list(tqdm(draw(samples, images, rng), total=images, unit="image", disable=None))
    cut, wanted = (np.concatenate(part) for part in zip(*parted, strict=True))
    network = WindowNetwork()
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    steps = max(epochs * len(cut) // BATCH, 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps)
    charge = torch.tensor([1.0, _WIDTH_WEIGHT])
    for _ in range(steps):
        chosen = rng.integers(len(cut), size=BATCH)
        given = cut[chosen]
        answers = network(torch.from_numpy(given), torch.from_numpy(mirrored(given)))
        loss = ((answers - torch.from_numpy(wanted[chosen])).square() * charge).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network


def main(argv: list[str] | None = None) -> int:
    """Fit from the command line."""
    parser = argparse.ArgumentParser(prog="python -m export.training.refinement", description=__doc__)
    parser.add_argument("--cache", type=Path, nargs="+", required=True, metavar="DIR", help="shards to learn from")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the weights, an .npz file")
    parser.add_argument("--images", type=int, default=IMAGES, help="augmented images (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    if options.images < 1:
        parser.error("--images must be at least 1")
    samples = Samples(options.cache, options.seed)
    content = fit(samples, options.images, seed=options.seed).archive()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with beside(options.out) as partial:
        partial.write_bytes(content)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
