"""Train the network that finds the vertebrae: `python -m export.training.levels --cache DIR ... --out levels.npz`.

Learns from rendered scans of people and phantoms (`export.training.dataset`), augmented as in training. The centreline
is the true one, disturbed at random, so that the fit belongs to no other network. Each strip is stretched and shrunk
along the spine at random, or the network would read average proportions in place of vertebrae; parts of it are blanked
or blurred, or it would read ribs alone or discs alone. `--validation` gives people who are not in `--cache`: the places
found on them are printed after the last step, and turn the spread of a probability into an expected error. With
`--minutes 0` and `--start` they are only printed.
"""

from __future__ import annotations

import argparse
import io
import math
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_spine.files import beside
from edge_spine.locate import (
    CELLS,
    CHANNELS,
    DILATIONS,
    ENTRY_TAPS,
    POINTS,
    STRIDE,
    LevelNetwork,
    continued,
    read_level_network,
    read_places,
    slopes,
    strip,
)
from edge_spine.network import CROP_SIZE, CURVE_ROWS
from edge_spine.vertebrae import LEVELS
from export.training.augment import augment, wandering
from export.training.dataset import MARGIN, load_shards

WIDTH = 64
BATCH, PEAK_RATE, WEIGHT_DECAY, DROPOUT = 32, 3e-3, 0.02, 0.1
# SD of a target's peak, crop rows
_PEAK_ROWS = 2.0
# SDs, pixels, of the disturbance of the centreline
_DISTURBANCE_PX = (0.3, 0.8, 1.5)
# share of strips whose rows are moved, and SDs, rows, of one, two and three half-waves of the movement
_MOVED, _MOVEMENT_ROWS = 0.7, (6.0, 4.0, 1.5)
# shares of strips that are blurred along the spine, lose their sides, lose their middle, or lose some rows
_BLURRED, _SIDES, _MIDDLE, _ROWS = 0.3, 0.12, 0.12, 0.10
_TYPICAL_PIXEL_MM = 2.2
# half the mean distance between two body centres
_HALF_PITCH_PX = 6.2

Array = NDArray[np.float64]
Strip = NDArray[np.float32]
Shards = list[dict[str, NDArray[np.float32]]]


class Network(nn.Module):
    """The network of `edge_spine.locate.LevelNetwork`, from strips (N, 34, 224) to logits (N, 19, 112)."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.entry = nn.Conv1d(CHANNELS, width, ENTRY_TAPS, stride=STRIDE, padding=ENTRY_TAPS // 2)
        self.middle = nn.ModuleList(nn.Conv1d(width, width, 3, padding=d, dilation=d) for d in DILATIONS)
        self.dropout = nn.Dropout(DROPOUT)
        self.exit = nn.Conv1d(width, POINTS, 1)

    def forward(self, strips: Tensor) -> Tensor:
        """Return logits; see the class."""
        hidden = torch.relu(self.entry(strips))
        for layer in self.middle:
            hidden = hidden + torch.relu(layer(hidden))
        return torch.as_tensor(self.exit(self.dropout(hidden)))

    def arrays(self, error_px: tuple[float, float] = (0.0, 1.0)) -> dict[str, Strip]:
        """Return the weights by the names of `LevelNetwork`."""

        def taps_first(layer: nn.Conv1d) -> Strip:
            weight: Strip = layer.weight.detach().numpy().transpose(2, 1, 0)
            return weight.reshape(-1, weight.shape[2]).copy()

        return {
            "entry_weight": taps_first(self.entry),
            "entry_bias": self.entry.bias.detach().numpy(),
            "middle_weight": np.stack([taps_first(layer) for layer in self.middle]),
            "middle_bias": np.stack([layer.bias.detach().numpy() for layer in self.middle]),
            "exit_weight": taps_first(self.exit),
            "exit_bias": self.exit.bias.detach().numpy(),
            "error_px": np.array(error_px, dtype=np.float32),
        }


def archive(arrays: dict[str, Strip]) -> bytes:
    """Return weights as `edge_spine.locate.read_level_network` takes them."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def feet(points: Array, line: Array) -> Array:
    """Return the rows (K,) of a centreline (224,) whose normals pass through points (K, 2), (row, column)."""
    rows = np.arange(float(CROP_SIZE))
    slope = np.interp(points[:, 0], rows, slopes(line))
    beside_px = points[:, 1] - np.interp(points[:, 0], rows, line)
    found: Array = points[:, 0] + beside_px * slope / (1 + slope**2)
    return found


def draw(rng: np.random.Generator, shards: Shards) -> tuple[Strip, Array]:
    """Draw an augmented strip (224, 34) and the rows (19,) of its points."""
    sizes = np.array([len(shard["crop"]) for shard in shards])
    shard = shards[rng.choice(len(shards), p=sizes / sizes.sum())]
    row = int(rng.integers(len(shard["crop"])))
    image, target, points = augment(
        rng, shard["crop"][row].astype(np.uint8), shard["curves"][row], CROP_SIZE, shard["levels"][row]
    )
    line = continued(target[:, 1].astype(np.float64) * CROP_SIZE + wandering(rng, _DISTURBANCE_PX))
    channels, rows = strip(image.astype(np.float32) / 255, line), feet(points.astype(np.float64), line)
    if rng.random() < _MOVED:
        channels, rows = moved(rng, channels, rows)
    return spoiled(rng, channels), rows


def moved(rng: np.random.Generator, channels: Strip, rows: Array) -> tuple[Strip, Array]:
    """Stretch and shrink a strip along the spine, its points with it."""
    place = np.arange(float(CROP_SIZE))
    share = np.linspace(0, 1, CROP_SIZE)
    shift = sum(np.sin(np.pi * k * share) * rng.normal(0, sd) for k, sd in enumerate(_MOVEMENT_ROWS, start=1))
    # rows keep their order
    target = np.maximum.accumulate(place + shift) + 1e-6 * place
    source = np.interp(place, target, place)
    grey = [np.interp(source, place, channel) for channel in channels[:, :-1].T]
    return np.stack([*grey, channels[:, -1]], axis=1).astype(np.float32), np.interp(rows, place, target)


def spoiled(rng: np.random.Generator, channels: Strip) -> Strip:
    """Blur a strip along the spine, or blank its sides, its middle or some rows, at random."""
    grey = channels[:, :-1]
    if rng.random() < _BLURRED:
        grey[:] = cv2.GaussianBlur(grey, (0, 0), sigmaX=0.01, sigmaY=float(rng.uniform(0.5, 4)))
    kind = rng.random()
    if kind < _SIDES:
        grey[:, int(rng.integers(9, 26)) :] = 0
    elif kind < _SIDES + _MIDDLE:
        grey[:, : int(rng.integers(5, 18))] = 0
    elif kind < _SIDES + _MIDDLE + _ROWS:
        first = int(rng.integers(0, 180))
        grey[first : first + int(rng.integers(10, 50))] = 0
    return channels


def targets(rows: Array) -> Tensor:
    """Return (N, 19, 112) weights that sum to one, with a peak at each of the rows (N, 19)."""
    cells = np.arange(CELLS) * float(STRIDE)
    heat = np.exp(-(((cells - rows[:, :, np.newaxis]) / _PEAK_ROWS) ** 2) / 2)
    return torch.from_numpy((heat / np.maximum(heat.sum(axis=2, keepdims=True), 1e-6)).astype(np.float32))


def train(shards: Shards, minutes: float, start: Path | None = None, seed: int = 0, width: int = WIDTH) -> Network:
    """Train for some minutes: cross-entropy of the rows, AdamW, a rate that rises and falls once."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    network = Network(width)
    if start is not None:
        load(network, start)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    began, steps = time.monotonic(), 0
    while (seconds := time.monotonic() - began) < 60 * minutes:
        share = seconds / (60 * minutes)
        for group in optimiser.param_groups:
            group["lr"] = PEAK_RATE * min(20 * share + 0.02, 1.0) * (1 + math.cos(math.pi * share)) / 2
        drawn = [draw(rng, shards) for _ in range(BATCH)]
        strips = torch.from_numpy(np.stack([channels.T for channels, _ in drawn]))
        logarithms = network(strips).log_softmax(dim=2)
        loss = -(targets(np.stack([rows for _, rows in drawn])) * logarithms).sum(dim=2).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        steps += 1
        if steps % 100 == 0:
            print(f"{share:4.0%} {steps} steps, loss {loss.item():.3f}", flush=True)
    return network.eval()


def load(network: Network, path: Path) -> None:
    """Put the weights of an .npz file into a network of the same width."""
    stored = read_level_network(path.read_bytes())
    with torch.no_grad():
        for layer, weight, bias in (
            (network.entry, stored.entry_weight, stored.entry_bias),
            *zip(network.middle, stored.middle_weight, stored.middle_bias, strict=True),
            (network.exit, stored.exit_weight, stored.exit_bias),
        ):
            taps = weight.reshape(layer.kernel_size[0], layer.in_channels, layer.out_channels)
            layer.weight.copy_(torch.from_numpy(taps.transpose(2, 1, 0).copy()))
            layer.bias.copy_(torch.from_numpy(bias))


@dataclass(frozen=True, eq=False)
class Judged:
    """Vertebrae found on N crops.

    Attributes
    ----------
    error_px, expected_px : (N, 19) arrays
        Signed and expected errors, crop pixels.
    uncertain : (N,) bool array
        Whether the count was called uncertain.
    named : (N, 17) bool array
        Whether the true centre that is nearest to each found one has its name.
    """

    error_px: Array
    expected_px: Array
    uncertain: NDArray[np.bool_]
    named: NDArray[np.bool_]

    @property
    def miscounted(self) -> NDArray[np.bool_]:
        """Return whether two body centres or more are further away than half the distance between two, (N,)."""
        return np.asarray((np.abs(self.error_px[:, : len(LEVELS)]) > _HALF_PITCH_PX).sum(axis=1) > 1)


def judge(network: LevelNetwork, shards: Shards, seed: int = 0) -> Judged:
    """Find the vertebrae on undisturbed crops, which are shifted by up to 4 pixels."""
    rng = np.random.default_rng(seed)
    errors, expected, uncertain, named = [], [], [], []
    for shard in shards:
        for crop, curves, points in zip(shard["crop"], shard["curves"], shard["levels"], strict=True):
            down, right = rng.integers(-4, 5, 2)
            first = MARGIN + down, MARGIN + right
            seen = crop[first[0] : first[0] + CROP_SIZE, first[1] : first[1] + CROP_SIZE].astype(np.float32) / 255
            centre = np.interp(CURVE_ROWS, np.arange(len(curves)) - first[0], curves[:, 1] - right)
            line = continued(centre)
            found = read_places(network.log_probabilities(strip(seen, line)), network.error_px)
            true = feet(points.astype(np.float64) - (down, right), line)
            errors.append(found.rows - true)
            expected.append(found.error_px)
            uncertain.append(found.uncertain)
            away = np.abs(found.rows[: len(LEVELS), np.newaxis] - true[: len(LEVELS)])
            named.append(away.argmin(axis=1) == np.arange(len(LEVELS)))
    return Judged(np.array(errors), np.array(expected), np.array(uncertain), np.array(named))


def fit_expected(error_px: Array, spread_px: Array) -> tuple[float, float]:
    """Fit the mean absolute error as a constant plus a multiple, none negative, of the spread; least squares."""
    wanted, given = np.abs(error_px).ravel(), spread_px.ravel()
    slope, constant = np.polyfit(given, wanted, 1)
    if slope < 0 or constant < 0:
        return (float(wanted.mean()), 0.0) if slope < 0 else (0.0, float(wanted @ given / (given @ given)))
    return float(constant), float(slope)


def report(name: str, judged: Judged) -> str:
    """Return a line on the errors of one person or kind."""
    size = np.abs(judged.error_px) * _TYPICAL_PIXEL_MM
    centres, ends = size[:, : len(LEVELS)], size[:, len(LEVELS) :]
    wrong = judged.miscounted
    shares = [f"{judged.uncertain[part].mean():.1%}" if part.any() else "-" for part in (wrong, ~wrong)]
    return (
        f"{name}: body centres {centres.mean():.2f} mm, 95 % within {np.percentile(centres, 95):.1f}; "
        f"ends {ends.mean():.2f} mm; named right {judged.named.mean():.1%}; miscounted {wrong.mean():.1%}; "
        f"called uncertain {shares[0]} of these, {shares[1]} of the others"
    )


def main(argv: list[str] | None = None) -> int:
    """Train from the command line."""
    parser = argparse.ArgumentParser(prog="python -m export.training.levels", description=__doc__)
    parser.add_argument("--cache", type=Path, nargs="+", required=True, metavar="DIR", help="shards to learn from")
    parser.add_argument("--validation", type=Path, nargs="+", required=True, metavar="DIR", help="shards to judge on")
    parser.add_argument("--start", type=Path, metavar="NPZ", help="weights to go on from (default: random)")
    parser.add_argument("--out", type=Path, required=True, metavar="NPZ")
    parser.add_argument("--minutes", type=float, default=30.0, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    network = train(_load(options.cache), options.minutes, options.start, options.seed)
    plain = LevelNetwork(**network.arrays())
    judged = {folder.name: judge(plain, _load([folder])) for folder in options.validation}
    for name, found in judged.items():
        print(report(name, found))
    expected = fit_expected(
        np.concatenate([found.error_px for found in judged.values()]),
        np.concatenate([found.expected_px for found in judged.values()]),
    )
    print(f"expected error, crop pixels: {expected[0]:.3f} + {expected[1]:.3f} x spread")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with beside(options.out) as partial:
        partial.write_bytes(archive(network.arrays(expected)))
    return 0


def _load(folders: list[Path]) -> Shards:
    shards = [s for folder in folders for s in load_shards(folder, fields=("crop", "curves", "levels")).values()]
    if not shards:
        raise SystemExit(f"no shards in {', '.join(map(str, folders))}: run python -m export.training.dataset first")
    return shards


if __name__ == "__main__":
    raise SystemExit(main())
