"""Train the localiser on cached phantoms: `python -m export.training.localiser --cache DIR --out localiser.onnx`.

A small fully convolutional network with dilated convolutions marks the crop centre, the top of T1 and the bottom of
L5 on a 7 mm thumbnail. It is trained on scans that are shifted, tilted, scaled and cut at feet, arms or head, and on
images without an upright body, where it must mark nothing.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from tqdm import tqdm

from edge_spine.files import beside
from edge_spine.preprocessing.locator import INPUT_SHAPE, STRIDE, read_heat_maps
from export.training.dataset import load_shards

POINTS = 3
CELLS = (INPUT_SHAPE[0] // STRIDE, INPUT_SHAPE[1] // STRIDE)
_DILATIONS = (1, 2, 4, 8, 8, 4)
_NEGATIVES = 0.15


class LocaliserNetwork(nn.Module):
    """Map (N, 1, 288, 112) thumbnails to (N, 3, 72, 28) heat-map logits."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.entry = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, width, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.middle = nn.ModuleList(nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in _DILATIONS)
        self.exit = nn.Conv2d(width, POINTS, 1)

    def forward(self, thumbnails: Tensor) -> Tensor:
        """Return logits; see the class."""
        features = self.entry(thumbnails)
        for layer in self.middle:
            features = features + torch.relu(layer(features))
        return self.exit(features)


def disturb(
    rng: np.random.Generator, thumbnail: NDArray[np.uint8], landmarks: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Draw a training sample: a thumbnail (288, 112) in [0, 1] and its landmarks (3, 2), None if there are none."""
    negative = rng.random() < _NEGATIVES
    turn, scale = float(np.clip(rng.normal(0, 6), -15, 15)), float(rng.uniform(0.84, 1.18))
    shift = rng.uniform((-14, -45), (14, 45))
    if negative:
        turn, scale = turn + float(rng.choice([180, 90, 270])), float(rng.uniform(0.5, 3.0))
    matrix = cv2.getRotationMatrix2D(((INPUT_SHAPE[1] - 1) / 2, (INPUT_SHAPE[0] - 1) / 2), turn, scale)
    matrix[:, 2] += shift
    image = cv2.warpAffine(thumbnail, matrix, INPUT_SHAPE[::-1], flags=cv2.INTER_LINEAR).astype(np.float32) / 255
    places = landmarks[:, ::-1] @ matrix[:, :2].T + matrix[:, 2]
    points = places[:, ::-1].astype(np.float32)
    if negative and rng.random() < 0.3:
        image = cv2.GaussianBlur(rng.random(INPUT_SHAPE, dtype=np.float32), (0, 0), float(rng.uniform(0.3, 8)))
        image = (image - image.min()) / (image.max() - image.min())
    if not negative:
        _cut(rng, image, points)
        if np.any(points < 4) or np.any(points > np.array(INPUT_SHAPE) - 5):
            return disturb(rng, thumbnail, landmarks)
    image = image ** np.float32(np.exp(rng.normal(0, 0.25)))
    image = image * np.float32(rng.normal(1, 0.1)) + np.float32(rng.normal(0, 0.03)) * (image > 0)
    image += rng.standard_normal(INPUT_SHAPE, dtype=np.float32) * np.float32(rng.uniform(0, 0.06))
    return np.clip(image, 0, 1), None if negative else points


def _cut(rng: np.random.Generator, image: NDArray[np.float32], points: NDArray[np.float32]) -> None:
    """Blank parts that a scan may lack: feet, head, an arm."""
    top, bottom = points[1, 0], points[2, 0]
    if rng.random() < 0.3:
        image[int(bottom + rng.uniform(0.3, 2.2) * (bottom - top)) :] = 0
    if rng.random() < 0.1:
        image[: max(0, int(top - rng.uniform(0.1, 0.5) * (bottom - top)))] = 0
    if rng.random() < 0.15:
        edge = int(rng.uniform(0.4, 0.9) * (bottom - top))
        if rng.random() < 0.5:
            image[:, : max(0, int(points[0, 1]) - edge)] = 0
        else:
            image[:, int(points[0, 1]) + edge :] = 0


def heat_targets(points: list[NDArray[np.float32] | None]) -> Tensor:
    """Return (N, 3, 72, 28) weights that sum to one: a peak at each landmark, uniform without landmarks."""
    rows, columns = np.mgrid[: CELLS[0], : CELLS[1]].astype(np.float32)
    heat = np.full((len(points), POINTS, *CELLS), 1 / (CELLS[0] * CELLS[1]), dtype=np.float32)
    for target, places in zip(heat, points, strict=True):
        if places is not None:
            for spot, (row, column) in zip(target, (places + 0.5) / STRIDE - 0.5, strict=True):
                spot[:] = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 2)
                spot /= spot.sum()
    return torch.from_numpy(heat)


def read_onnx(path: Path) -> LocaliserNetwork:
    """Read the weights of a file that `write_onnx` wrote."""
    stored = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in onnx.load(path).graph.initializer}
    network = LocaliserNetwork()
    network.load_state_dict({name: torch.from_numpy(stored[name]) for name in network.state_dict()})
    return network


def train(cache: Path, steps: int, batch: int = 32, start: Path | None = None) -> LocaliserNetwork:
    """Train on the thumbnails of a folder of shards, from scratch or, at a lower rate, from `start`."""
    shards = load_shards(cache, fields=("thumbnail", "landmarks")).values()
    thumbnails = np.concatenate([shard["thumbnail"] for shard in shards])
    landmarks = np.concatenate([shard["landmarks"] for shard in shards])
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    network, rate = (LocaliserNetwork(), 3e-3) if start is None else (read_onnx(start), 1e-3)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    bar = tqdm(range(steps), unit="step", disable=None)
    for _ in bar:
        drawn = [disturb(rng, thumbnails[k], landmarks[k]) for k in rng.integers(len(thumbnails), size=batch)]
        images = torch.from_numpy(np.stack([image for image, _ in drawn]))[:, None]
        target = heat_targets([points for _, points in drawn])
        logits = network(images).flatten(2).log_softmax(dim=2)
        loss = -(target.flatten(2) * logits).sum(dim=2).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        plan.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    return network.eval()


def write_onnx(network: LocaliserNetwork, path: Path) -> None:
    """Write the network for OpenCV, atomically."""
    with warnings.catch_warnings(), beside(path) as partial:
        # The tracing exporter is deprecated, but the new one requires onnxscript.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(1, 1, *INPUT_SHAPE),),
            str(partial),
            opset_version=13,
            input_names=["thumbnail"],
            output_names=["heat"],
            dynamo=False,
        )


def report(network: LocaliserNetwork, cache: Path, count: int = 500) -> None:
    """Print the distance (mm) of the found crop centre from the true one on disturbed thumbnails."""
    shards = load_shards(cache, fields=("thumbnail", "landmarks")).values()
    thumbnails = np.concatenate([shard["thumbnail"] for shard in shards])[:count]
    landmarks = np.concatenate([shard["landmarks"] for shard in shards])[:count]
    rng = np.random.default_rng(1)
    found, sure, unsure = [], [], []
    for thumbnail, places in zip(thumbnails, landmarks, strict=True):
        image, points = disturb(rng, thumbnail, places)
        with torch.no_grad():
            heat = network(torch.from_numpy(image)[None, None])[0].numpy()
        spots, confidence = read_heat_maps(heat)
        if points is None:
            unsure.append(confidence)
        else:
            sure.append(confidence)
            found.append(np.abs(np.array(spots[0]) - points[0]).max() * 7.0)
    print(f"crop centre, larger of row and column error, mm: median {np.median(found):.1f}, ", end="")
    print(f"p99 {np.percentile(found, 99):.1f}, worst {max(found):.1f} ({len(found)} disturbed thumbnails)")
    print(f"confidence: bodies p1 {np.percentile(sure, 1):.2f}, others p99 {np.percentile(unsure, 99):.2f}")


def main(argv: list[str] | None = None) -> int:
    """Train from the command line."""
    parser = argparse.ArgumentParser(prog="python -m export.training.localiser", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="shards to learn from")
    parser.add_argument("--validation", type=Path, help="shards to report on")
    parser.add_argument("--start", type=Path, help="localiser.onnx to go on from (default: from scratch)")
    parser.add_argument("--out", type=Path, required=True, help="localiser.onnx")
    parser.add_argument("--steps", type=int, default=2500)
    options = parser.parse_args(argv)
    network = train(options.cache, options.steps, start=options.start)
    write_onnx(network, options.out)
    if options.validation:
        report(network, options.validation)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
