"""Compute and cache features of the frozen trunk up to ResNet's layer 3, and the network's outputs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from tqdm import tqdm

from edge_spine.files import beside
from edge_spine.network import CROP_SIZE, CURVE_ROWS
from export.regressor import OUTPUTS, SpineRegressor
from export.training.augment import augment
from export.training.dataset import MARGIN, target_of
from export.training.precision import autocast
from export.training.validation import as_images

# Children of the trunk up to layer 3: 14 x 14 cells of 16 crop pixels, 1024 channels.
LAYER3 = 7
CELLS = 14
# Cells around the middle column: 96 crop pixels, with the spine and its surroundings.
MIDDLE = 6
BATCH = 25
AUGMENTING_SEED = 45_000_000


@dataclass(frozen=True, eq=False)
class Frozen:
    """Features and outputs of the frozen network for samples, in one or two views (unchanged, and augmented once).

    Attributes
    ----------
    features : (views, N, F) float16 array
    targets : (views, N, 209, 6) float32 array
        Crop pixels, as `dataset.target_of` times 224.
    answers : (N, 209, 6) float32 array
        Outputs of the network for the unchanged view, crop pixels.
    packs : tuple of N frozensets
        Names of the bone packs of each sample; empty for phantoms.
    """

    features: NDArray[np.float16]
    targets: NDArray[np.float32]
    answers: NDArray[np.float32]
    packs: tuple[frozenset[str], ...]


def views_of(
    crops: NDArray[np.uint8], curves: NDArray[np.float32], views: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Cut samples unchanged and, for two views, augment each once.

    Parameters
    ----------
    crops, curves : (N, 272, 272), (N, 272, 6) arrays
        As in `dataset.Sample`.

    Returns
    -------
    images : (views, N, 224, 224) uint8 array
    targets : (views, N, 209, 6) float32 array
        Crop pixels / 224.
    """
    rows = int(CURVE_ROWS[0] - 0.5) + MARGIN
    # The rows of the curves are half way between two rows of the crop.
    between = (curves[:, rows : rows + len(CURVE_ROWS)] + curves[:, rows + 1 : rows + 1 + len(CURVE_ROWS)]) / 2
    images = [crops[:, MARGIN:-MARGIN, MARGIN:-MARGIN]]
    targets = [np.stack([target_of(curve) for curve in between])]
    if views == 2:
        rng = np.random.default_rng(AUGMENTING_SEED)
        drawn = [augment(rng, crop, curve, CROP_SIZE)[:2] for crop, curve in zip(crops, curves, strict=True)]
        images.append(np.stack([image for image, _ in drawn]))
        targets.append(np.stack([target for _, target in drawn]))
    return np.stack(images), np.stack(targets)


@torch.no_grad()
def features_of(
    model: SpineRegressor, images: NDArray[np.uint8], grid: tuple[int, int]
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Run images through the network.

    Parameters
    ----------
    images : (N, 224, 224) uint8 array
    grid : (rows, columns)
        Grid to which the middle 14 x 6 cells of layer 3 are averaged.

    Returns
    -------
    features : (N, rows * columns * 1024) float16 array
    answers : (N, 209, 6) float32 array
        Crop pixels.
    """
    first = (CELLS - MIDDLE) // 2
    features, answers = [], []
    for start in range(0, len(images), BATCH):
        part = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH]))
        with autocast("cpu"):
            cells = model.model[:LAYER3](as_images(part, "cpu"))
            last = model.layer(model.model[LAYER3](cells))
        pooled = functional.adaptive_avg_pool2d(cells.float()[..., first : first + MIDDLE], grid)
        features.append(pooled.flatten(1).half().numpy())
        # bfloat16 would round coordinates to half a pixel.
        answers.append(model.linear(last.float().mean(dim=(2, 3))).numpy() * CROP_SIZE)
    return np.concatenate(features), np.concatenate(answers).reshape(-1, OUTPUTS // 6, 6)


def packs_of(stored: dict[str, NDArray[Any]], count: int) -> tuple[frozenset[str], ...]:
    """Return the pack names of a shard's samples; phantoms have none."""
    if "packs" not in stored:
        return (frozenset(),) * count
    return tuple(frozenset(str(names).split("+")) for names in stored["packs"])


def load_frozen(
    folders: list[Path], model: SpineRegressor, key: str, cache: Path, grid: tuple[int, int], views: int, limit: int
) -> Frozen:
    """Compute or read the features of shards, at most `limit` samples of each folder.

    Parameters
    ----------
    key : str
        Identity of the weights; with content of the shard, grid and views it names the file in `cache`.

    Raises
    ------
    ValueError
        A folder contains no shards.
    """
    cache.mkdir(parents=True, exist_ok=True)
    features, targets, answers, packs = [], [], [], []
    for folder in folders:
        paths = sorted(folder.glob("shard_????????.npz"))
        if not paths:
            raise ValueError(f"{folder}: no shards found; give a folder that export.training.dataset wrote")
        left = limit
        for path in tqdm(paths, unit="shard", disable=None):
            if left <= 0:
                break
            with np.load(path, allow_pickle=False) as file:
                stored = {name: file[name][:left] for name in ("crop", "curves", "packs") if name in file}
            images, target = views_of(stored["crop"], stored["curves"], views)
            digest = hashlib.sha256(f"{key} {grid}".encode() + images.tobytes()).hexdigest()[:20]
            kept = cache / f"layer3_{digest}.npz"
            if not kept.exists():
                made = [features_of(model, view, grid) for view in images]
                with beside(kept) as partial, partial.open("wb") as stream:
                    np.savez(stream, features=np.stack([f for f, _ in made]), answers=made[0][1])
            with np.load(kept, allow_pickle=False) as file:
                features.append(file["features"])
                answers.append(file["answers"])
            targets.append(target * CROP_SIZE)
            packs += packs_of(stored, len(stored["crop"]))
            left -= len(stored["crop"])
    return Frozen(
        np.concatenate(features, axis=1), np.concatenate(targets, axis=1), np.concatenate(answers), tuple(packs)
    )


def kernel_of(features: NDArray[np.float16], reference: NDArray[np.bool_], block: int = 4096) -> NDArray[np.float32]:
    """Return the inner products of standardised features, divided by their number.

    Parameters
    ----------
    features : (n, F) float16 array
    reference : (n,) bool array
        Samples whose mean and deviation standardise each feature; no tested samples.
    block : int
        Number of features per step.

    Returns
    -------
    (n, n) float32 array
    """
    total = np.zeros((len(features), len(features)), dtype=np.float32)
    for start in range(0, features.shape[1], block):
        part = features[:, start : start + block].astype(np.float32)
        part -= part[reference].mean(axis=0)
        spread = part[reference].std(axis=0)
        # Otherwise a rarely active feature would have the same weight as all others.
        part /= np.maximum(spread, 0.1 * float(np.median(spread)) + 1e-6)
        total += part @ part.T
    return total / np.float32(features.shape[1])
