"""Draw augmented batches from shards, and read undistorted crops for validation."""

from __future__ import annotations

import queue
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from edge_spine.bundle import load_bundle
from edge_spine.engines import open_engine
from edge_spine.engines.verification import crop_tensor
from edge_spine.errors import UsageError
from edge_spine.network import CROP_SIZE
from export.training.augment import augment
from export.training.dataset import MARGIN, PIXEL, load_shards, target_of

TEACHER_SHARE = 0.7
# batches after which folders are looked at for new shards
REFRESH = 200

# of the images that come from each folder, in any unit
Shares = Sequence[float] | NDArray[np.float64]
Shards = dict[str, dict[str, NDArray[Any]]]
# undistorted crops (N, 224, 224) uint8 and targets (N, 209, 6)
HeldOut = tuple[Tensor, NDArray[np.float32]]
# what happens to a wide crop, given its curves, before anything is drawn from it
Change = Callable[[NDArray[np.uint8], NDArray[np.float32]], NDArray[np.uint8]]
# what another network answers, (N, 1254), to (N, 224, 224) images
Teacher = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class Samples:
    """Augmented batches from shards.

    Parameters
    ----------
    sources : Path, shards, or a sequence of Path
        Folders of shards, where new ones are picked up as they appear, or shards that are loaded already.
    seed : int
        Of the order and the augmentation.
    change : callable, optional
        Applied to every wide crop.
    teacher : callable, optional
        Its answers make up `TEACHER_SHARE` of the targets of images of full size: what no image can tell is then no
        noise in them.
    shares : sequence of float, optional
        Share of the images drawn from each folder, in any unit; by size where it is not given.
    """

    def __init__(
        self,
        sources: Path | Shards | Sequence[Path],
        seed: int,
        change: Change | None = None,
        teacher: Teacher | None = None,
        shares: Shares | None = None,
    ) -> None:
        self.rng, self.change, self.teacher = np.random.default_rng(seed), change, teacher
        if isinstance(sources, dict):
            self.folders: list[Path] = []
            self.shards: list[Shards] = [sources]
        else:
            self.folders = [sources] if isinstance(sources, Path) else list(sources)
            self.shards = [{} for _ in self.folders]
        self.shares = None if shares is None else _as_shares(shares, len(self.shards))
        self.refresh()
        for folder, shards in zip(self.folders or [None], self.shards, strict=True):
            if not shards:
                raise SystemExit(f"no shards in {folder}: run python -m export.training.dataset --out {folder} first")

    def refresh(self) -> None:
        """Load new shards."""
        for number, folder in enumerate(self.folders):
            found = load_shards(folder, frozenset(self.shards[number]))
            # a new dictionary, because another thread may be counting the old one
            self.shards[number] = {**self.shards[number], **found}

    def sizes(self) -> list[int]:
        """Return the number of samples of each source."""
        return [sum(len(shard["crop"]) for shard in shards.values()) for shards in self.shards]

    def __len__(self) -> int:
        return sum(self.sizes())

    def batch(self, count: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Draw (count, size, size) images and (count, 1254) targets."""
        shards = [shard for source in self.shards for shard in source.values()]
        images, targets = [], []
        for chosen in self.rng.choice(len(shards), count, p=self._weights()):
            row = int(self.rng.integers(len(shards[chosen]["crop"])))
            crop, curves = shards[chosen]["crop"][row], shards[chosen]["curves"][row]
            if self.change is not None:
                crop = self.change(crop, curves)
            image, target, _ = augment(self.rng, crop, curves, size)
            images.append(image)
            targets.append(target.ravel())
        drawn, wanted = np.stack(images), np.stack(targets)
        if self.teacher is not None and size == CROP_SIZE:
            wanted += np.float32(TEACHER_SHARE) * (self.teacher(drawn) - wanted)
        return drawn, wanted

    def _weights(self) -> NDArray[np.float64]:
        """Return the probability of each shard, source after source."""
        weights = []
        for number, shards in enumerate(self.shards):
            counts = np.array([len(shard["crop"]) for shard in shards.values()], dtype=float)
            weights.append(counts if self.shares is None else self.shares[number] * counts / counts.sum())
        joined = np.concatenate(weights)
        return joined / joined.sum()


def _as_shares(shares: Shares, sources: int) -> NDArray[np.float64]:
    given = np.array(shares, dtype=float)
    if len(given) != sources or not np.isfinite(given).all() or (given < 0).any() or given.sum() <= 0:
        raise SystemExit(f"--share needs one number of 0 or more for each of {sources} --cache, not all 0: {shares}")
    return given / given.sum()


def prefetch(
    samples: Samples, stage: Callable[[], tuple[int, int]], workers: int = 0
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32], int]]:
    """Draw batches in the background while training runs; `stage()` gives the size and batch wanted now.

    Without `workers` a thread draws them; otherwise so many processes do, each from its own copy of the folders, and
    sizes are those of the stage at the start.
    Yields images, targets and the images' size; what fails beside the training is raised here.
    """
    if workers:
        size, count = stage()
        drawn = DataLoader(
            Drawn(samples.folders, samples.shares, count, size),
            batch_size=None,
            num_workers=workers,
            multiprocessing_context="spawn",
            collate_fn=_as_it_is,
        )
        for images, targets in drawn:
            yield images, targets, size
    else:
        yield from _prefetch_in_thread(samples, stage)


class Drawn(IterableDataset[Any]):
    """Endless batches of one size, for the processes of a `DataLoader`; each draws others."""

    def __init__(self, folders: list[Path], shares: Shares | None, count: int, size: int) -> None:
        self.folders, self.shares, self.count, self.size = folders, shares, count, size

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        cv2.setNumThreads(1)
        samples = Samples(self.folders, seed=torch.initial_seed(), shares=self.shares)
        while True:
            for _ in range(REFRESH):
                yield samples.batch(self.count, self.size)
            samples.refresh()


def _as_it_is(drawn: Any) -> Any:
    return drawn


def _prefetch_in_thread(
    samples: Samples, stage: Callable[[], tuple[int, int]]
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32], int]]:
    ready: queue.Queue[Any] = queue.Queue(maxsize=4)

    def work() -> None:
        drawn = 0
        try:
            while True:
                size, count = stage()
                ready.put((*samples.batch(count, size), size))
                drawn += 1
                if drawn % REFRESH == 0:
                    samples.refresh()
        except Exception as error:  # any: training would wait for ever for the next batch
            ready.put(error)

    threading.Thread(target=work, daemon=True).start()
    while True:
        drawn = ready.get()
        if isinstance(drawn, Exception):
            raise drawn
        yield drawn


def held_out(source: Path | Shards, limit: int, change: Change | None = None) -> HeldOut:
    """Return undistorted crops (N, 224, 224) uint8 and targets (N, 209, 6) of shards, or of a folder of them."""
    shards = (load_shards(source) if isinstance(source, Path) else source).values()
    if not shards:
        raise SystemExit(f"no shards in {source}: nothing to judge training on")
    wide = np.concatenate([shard["crop"] for shard in shards])
    curves = np.concatenate([shard["curves"] for shard in shards])
    # spread over all shards, because the order may be that of the people
    chosen = np.linspace(0, len(wide) - 1, min(limit, len(wide))).round().astype(int)
    wide, curves = wide[chosen], curves[chosen]
    if change is not None:
        wide = np.stack([change(*pair) for pair in zip(wide, curves, strict=True)])
    return torch.from_numpy(_undistorted(wide)), _targets(curves)


def held_out_pairs(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float64]]:
    """Return all undistorted crops, targets and sizes of a canonical pixel (mm) of the pairs in a folder.

    Raises
    ------
    UsageError
        There are none, or a shard is not one of pairs.
    """
    try:
        shards = load_shards(folder, fields=("crop", "curves", PIXEL)).values()
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"the shards in {folder} cannot be read ({type(error).__name__})") from None
    if not shards:
        raise UsageError(f"no pairs in {folder}: python -m export.training.alignment.align makes them")
    wide, curves, pixel_mm = (np.concatenate([shard[key] for shard in shards]) for key in ("crop", "curves", PIXEL))
    return _undistorted(wide), _targets(curves), pixel_mm


def _undistorted(wide: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(wide[:, MARGIN:-MARGIN, MARGIN:-MARGIN])


def _targets(curves: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the network's targets (N, 209, 6), which lie between the rows of a crop."""
    first = MARGIN + 7
    between = (curves[:, first : first + 209] + curves[:, first + 1 : first + 210]) / 2
    return np.stack([target_of(c) for c in between])


def answers_of(folder: Path) -> Teacher:
    """Return a model bundle as a teacher, on the processor."""
    engine = open_engine(load_bundle(folder), "onnx-cpu")
    return lambda images: np.concatenate([engine.infer(crop_tensor(image)) for image in images])
