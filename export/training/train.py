"""Train the regressor on cached phantoms: `python -m export.training.train --cache DIR --out DIR --minutes 90`.

L1 loss on coordinates, as published. From scratch on a CPU, what makes it affordable is bfloat16, smaller images
first, and a last layer that learns the main shapes of the curves (a principal-component basis, folded into the
published linear layer when a checkpoint is written). `--start` goes on from trained weights instead, with large
images and a lower rate. Time is the budget: the learning rate falls to zero when `--minutes` are used up. Every few
minutes the state is written, and the same command goes on from it; the averaged weights are kept where they are the
best so far on held-out samples, and training ends early when they have not been for a while.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from edge_spine.bundle import load_bundle
from edge_spine.engines import open_engine
from edge_spine.layout import CROP_SIZE
from edge_spine.verification import crop_tensor
from export.checkpoint import load_regressor
from export.lite import Network, SpineLite
from export.regressor import CHANNELS, OUTPUTS, SpineRegressor
from export.training.dataset import MARGIN, augment, load_shards, target_of

SHAPES = 48
AVERAGING = 0.998
TEACHER_SHARE = 0.7
_COUNTERS = ("elapsed", "step", "images", "best", "worse")


@dataclass(frozen=True)
class Plan:
    """How the time budget is spent.

    Attributes
    ----------
    stages : tuple of (share, size, batch)
        Curriculum: until which share of the budget images of which size are drawn, how many a step.
    peak_rate, warm_up : float
        Highest learning rate, and the share of the budget in which it is reached; a cosine to zero follows.
    patience : int
        Checkpoints without a better held-out error after which training ends.
    transformer : bool
        False trains ResNet50 alone.
    lite : bool
        Train `export.lite.SpineLite` in place of the published network.
    images : int, optional
        Budget in images, in place of the run's minutes.
    """

    stages: tuple[tuple[float, int, int], ...]
    peak_rate: float
    warm_up: float = 0.01
    patience: int = 8
    transformer: bool = True
    lite: bool = False
    images: int | None = None


FROM_SCRATCH = Plan(stages=((0.34, 128, 16), (0.52, 160, 16), (1.0, 224, 16)), peak_rate=4e-4)
FROM_WEIGHTS = Plan(stages=((0.25, 160, 16), (1.0, 224, 16)), peak_rate=3e-4, warm_up=0.03)
LITE = Plan(stages=((1.0, CROP_SIZE, 32),), peak_rate=8e-4, warm_up=0.03, lite=True)


class ShapeHead(nn.Module):
    """A last layer that adds principal shapes to the mean curves; it folds into one linear layer.

    Parameters
    ----------
    targets : (samples, 1254) array
        Training targets the shapes are taken from.
    channels : int
        Features that the layer reads.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, targets: NDArray[np.float32], channels: int = CHANNELS) -> None:
        super().__init__()
        mean = targets.mean(axis=0)
        _, size, shapes = np.linalg.svd(targets - mean, full_matrices=False)
        spread = size[:SHAPES, None] / np.sqrt(len(targets))
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("basis", torch.from_numpy((shapes[:SHAPES] * spread).astype(np.float32)))
        self.weights = nn.Linear(channels, SHAPES)
        nn.init.normal_(self.weights.weight, std=0.01)
        nn.init.zeros_(self.weights.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, channels) to (N, 1254)."""
        return self.weights(features).float() @ self.basis + self.mean

    @torch.no_grad()
    def take(self, linear: nn.Linear) -> None:
        """Set the weights so that the folded layer is as near to `linear` as the shapes allow."""
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


Shards = dict[str, dict[str, NDArray[Any]]]
# what happens to a wide crop, given its curves, before anything is drawn from it
Change = Callable[[NDArray[np.uint8], NDArray[np.float32]], NDArray[np.uint8]]
# what another network answers, (N, 1254), to (N, 224, 224) images
Teacher = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class Samples:
    """Augmented batches from shards.

    Parameters
    ----------
    source : Path or shards
        A folder of shards, where new ones are picked up as they appear, or shards that are loaded already.
    seed : int
        Of the order and the augmentation.
    change : callable, optional
        Applied to every wide crop.
    teacher : callable, optional
        Its answers make up `TEACHER_SHARE` of the targets of images of full size: what no image can tell is then no
        noise in them.
    """

    def __init__(
        self, source: Path | Shards, seed: int, change: Change | None = None, teacher: Teacher | None = None
    ) -> None:
        self.rng, self.change, self.teacher = np.random.default_rng(seed), change, teacher
        self.folder = source if isinstance(source, Path) else None
        self.shards: Shards = {} if isinstance(source, Path) else source
        self.refresh()
        if not self.shards:
            raise SystemExit(f"no shards in {source}: run python -m export.training.dataset --out {source} first")

    def refresh(self) -> None:
        """Load shards that appeared since the last look."""
        if self.folder is not None:
            self.shards.update(load_shards(self.folder, frozenset(self.shards)))

    def __len__(self) -> int:
        return sum(len(shard["crop"]) for shard in self.shards.values())

    def batch(self, count: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Draw (count, size, size) images and (count, 1254) targets."""
        shards = list(self.shards.values())
        weight = np.array([len(shard["crop"]) for shard in shards], dtype=float)
        images, targets = [], []
        for chosen in self.rng.choice(len(shards), count, p=weight / weight.sum()):
            row = int(self.rng.integers(len(shards[chosen]["crop"])))
            crop, curves = shards[chosen]["crop"][row], shards[chosen]["curves"][row]
            if self.change is not None:
                crop = self.change(crop, curves)
            image, target = augment(self.rng, crop, curves, size)
            images.append(image)
            targets.append(target.ravel())
        drawn, wanted = np.stack(images), np.stack(targets)
        if self.teacher is not None and size == CROP_SIZE:
            wanted += np.float32(TEACHER_SHARE) * (self.teacher(drawn) - wanted)
        return drawn, wanted


def prefetch(samples: Samples, stage: Any) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32], int]]:
    """Draw batches in a thread beside the training step; `stage()` gives the size and batch wanted now."""
    ready: queue.Queue[Any] = queue.Queue(maxsize=4)

    def work() -> None:
        drawn = 0
        while True:
            size, count = stage()
            ready.put((*samples.batch(count, size), size))
            drawn += 1
            if drawn % 200 == 0:
                samples.refresh()

    threading.Thread(target=work, daemon=True).start()
    while True:
        yield ready.get()


def held_out(source: Path | Shards, limit: int, change: Change | None = None) -> tuple[Tensor, NDArray[np.float32]]:
    """Return undistorted crops (N, 224, 224) uint8 and targets (N, 209, 6) of shards, or of a folder of them."""
    shards = (load_shards(source) if isinstance(source, Path) else source).values()
    wide = np.concatenate([shard["crop"] for shard in shards])[:limit]
    curves = np.concatenate([shard["curves"] for shard in shards])[:limit]
    if change is not None:
        wide = np.stack([change(*pair) for pair in zip(wide, curves, strict=True)])
    crops = wide[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    first = MARGIN + 7
    between = (curves[:, first : first + 209] + curves[:, first + 1 : first + 210]) / 2
    return torch.from_numpy(np.ascontiguousarray(crops)), np.stack([target_of(c) for c in between])


def predict(
    model: nn.Module, crops: Tensor, device: str, batch: int = 25, *, bfloat16: bool = True
) -> NDArray[np.float32]:
    """Run (N, 224, 224) uint8 crops through a model; returns (N, 209, 6).

    In bfloat16 a last layer that is no `ShapeHead` would round its coordinates to half a pixel.
    """
    model.eval()
    outputs = []
    with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16, enabled=bfloat16):
        for part in crops.split(batch):
            outputs.append(model(as_images(part, device)).float().cpu().numpy())
    return np.concatenate(outputs).reshape(-1, 209, 6)


def as_images(crops: Tensor, device: str) -> Tensor:
    """Turn (N, S, S) uint8 crops into the network's (N, 3, S, S) float input."""
    images = crops.to(device).float().div_(255)[:, None].expand(-1, 3, -1, -1)
    return images.contiguous(memory_format=torch.channels_last)


def answers_of(folder: Path) -> Teacher:
    """Return a model bundle as a teacher, on the processor."""
    engine = open_engine(load_bundle(folder), "onnx-cpu")
    return lambda images: np.concatenate([engine.infer(crop_tensor(image)) for image in images])


def write_weights(model: Network, path: Path) -> None:
    """Write a model whose last layer may be a `ShapeHead` as float16 safetensors in the published layout."""
    plain = copy.deepcopy(model).cpu().float()
    if isinstance(plain.linear, ShapeHead):
        plain.linear = plain.linear.folded()
    state = {name: value.half() if value.is_floating_point() else value for name, value in plain.state_dict().items()}
    beside = path.with_name(path.name + ".part")
    save_file({name: value.contiguous() for name, value in state.items()}, beside)
    beside.replace(path)


class Run:
    """One training run: model, averaged model, optimiser, and the time used so far."""

    def __init__(
        self, samples: Samples, out: Path, minutes: float, device: str, plan: Plan, start: Path | None = None
    ) -> None:
        self.samples, self.out, self.budget, self.device, self.plan = samples, out, minutes * 60, device, plan
        self.elapsed, self.step, self.images = 0.0, 0, 0
        self.best, self.worse = float("inf"), 0
        torch.manual_seed(0)
        _, targets = samples.batch(3000, 32)
        self.model: Any = SpineLite() if plan.lite else SpineRegressor(transformer=plan.transformer)
        head = ShapeHead(targets, self.model.linear.in_features)
        if start is None:
            self.model.init_()
        else:
            given, _ = load_regressor(start)
            if type(given) is type(self.model):
                self.model = given
                head.take(given.linear)
            elif plan.lite:
                self.model.start_from(given)
            else:
                raise SystemExit(f"{start.name} holds spine-lite, which --teacher trains")
        self.model.linear = head
        self.model = self.model.to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=plan.peak_rate, weight_decay=0.02, fused=True)
        self.state_path = out / "state.pt"
        if self.state_path.exists():
            self._resume()

    def _resume(self) -> None:
        state = torch.load(self.state_path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name in _COUNTERS:
            setattr(self, name, state[name])

    def save(self) -> None:
        """Write the state to resume from."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            **{name: getattr(self, name) for name in _COUNTERS},
        }
        beside = self.state_path.with_name("state.part")
        torch.save(state, beside)
        beside.replace(self.state_path)

    def judge(self, error: float) -> bool:
        """Keep the averaged weights if `error` is the lowest so far; False when patience has run out."""
        if error < self.best:
            self.best, self.worse = error, 0
            write_weights(self.average, self.out / "weights.safetensors")
        else:
            self.worse += 1
        return self.worse < self.plan.patience

    @property
    def progress(self) -> float:
        """Share of the budget that is used up."""
        used = self.images / self.plan.images if self.plan.images else self.elapsed / self.budget
        return min(used, 1.0)

    def stage(self) -> tuple[int, int]:
        """Image size and batch of the present stage."""
        return next((size, batch) for end, size, batch in self.plan.stages if self.progress <= end)

    def train_step(self, images: NDArray[np.uint8], targets: NDArray[np.float32]) -> float:
        """Take one step; returns the loss in crop pixels."""
        rise, fall = self.progress / self.plan.warm_up, 0.5 + 0.5 * np.cos(np.pi * self.progress)
        rate = self.plan.peak_rate * min(rise, fall)
        for group in self.optimiser.param_groups:
            group["lr"] = max(float(rate), 1e-6)
        self.model.train()
        with torch.autocast(self.device, dtype=torch.bfloat16):
            output = self.model(as_images(torch.from_numpy(images), self.device))
        loss = (output.float() - torch.from_numpy(targets).to(self.device)).abs().mean() * CROP_SIZE
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimiser.step()
        self.step += 1
        self.images += len(images)
        if self.step % 4 == 0:
            self._follow(min(AVERAGING**4, (1 + self.step) / (40 + self.step)))
        return float(loss.detach())

    @torch.no_grad()
    def _follow(self, keep: float) -> None:
        for mean, value in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - keep)
            else:
                mean.copy_(value)


def train(run: Run, validation: tuple[Tensor, NDArray[np.float32]] | None, every: float) -> None:
    """Train until the time budget is used up or nothing gets better.

    Writes to the run's folder: the state every `every` seconds, `weights.safetensors` (the best averaged weights,
    or the last without `validation`), one line a checkpoint in `log.jsonl`, and `run.json`, the record of the run.
    """
    log = run.out / "log.jsonl"
    bar = tqdm(total=round(run.budget), initial=round(run.elapsed), unit="s", disable=None)
    last = saved = time.monotonic()
    losses: list[float] = []
    going = True
    for images, targets, size in prefetch(run.samples, run.stage):
        losses.append(run.train_step(images, targets))
        now = time.monotonic()
        run.elapsed += now - last
        bar.update(min(round(now - last, 2), bar.total - bar.n))
        last = now
        done = run.progress >= 1.0
        if done or now - saved > every:
            entry = {"step": run.step, "elapsed_s": round(run.elapsed), "images": run.images, "size": size}
            entry |= {"samples": len(run.samples), "loss_px": round(float(np.mean(losses)), 4)}
            # a network in training at a small size is not yet one for large images
            if done or size == CROP_SIZE:
                going = _check(run, validation, entry)
            run.save()
            with log.open("a", encoding="utf-8") as lines:
                print(json.dumps(entry), file=lines)
            losses.clear()
            saved = last = time.monotonic()
        if done or not going:
            break
    bar.close()
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    (run.out / "run.json").write_text(json.dumps({**record(run), "log": entries}, indent=1), encoding="utf-8")


def _check(run: Run, validation: tuple[Tensor, NDArray[np.float32]] | None, entry: dict[str, Any]) -> bool:
    """Measure the averaged network, keep its weights if they are the best, and say whether to go on."""
    if validation is None:
        write_weights(run.average, run.out / "weights.safetensors")
        return True
    error = np.abs(predict(run.average, validation[0], run.device) - validation[1]) * CROP_SIZE
    entry["coronal_px"] = round(float(error[:, :, :3].mean()), 3)
    entry["sagittal_px"] = round(float(error[:, :, 3:].mean()), 3)
    return run.judge(float(error.mean()))


def record(run: Run) -> dict[str, Any]:
    """Return the settings and the hardware of a run."""
    gpu = torch.cuda.get_device_name() if run.device == "cuda" else None
    return {
        "loss": "L1 on coordinates, all columns alike",
        "optimiser": "AdamW, weight decay 0.02, cosine over the time budget, bfloat16",
        "averaging": AVERAGING,
        "principal_shapes": SHAPES,
        **asdict(run.plan),
        "minutes": run.budget / 60,
        "hardware": gpu or f"{torch.get_num_threads()} threads, {platform.machine()}",
        "torch": torch.__version__,
        "best_held_out_px": None if run.best == float("inf") else round(run.best, 4),
    }


def main(argv: list[str] | None = None) -> int:
    """Train from the command line."""
    parser = argparse.ArgumentParser(prog="python -m export.training.train", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--cache", type=Path, help="shards to learn from")
    source.add_argument(
        "--pairs",
        type=Path,
        metavar="DIR",
        help="real pairs, as export.training.align writes them: learns from DIR/train, reports the error on "
        "DIR/validation, and never reads DIR/test",
    )
    parser.add_argument("--validation", type=Path, help="shards to report the error on while training")
    parser.add_argument("--out", type=Path, required=True, help="state, weights.safetensors and log.jsonl go here")
    parser.add_argument("--start", type=Path, help="weights to go on from (default: from scratch)")
    parser.add_argument(
        "--teacher",
        type=Path,
        metavar="BUNDLE",
        help="train spine-lite with the answers of this model; --start are then the large network's weights, or lite's",
    )
    parser.add_argument("--minutes", type=float, default=90, help="time budget over all resumes (default 90)")
    parser.add_argument("--every", type=float, default=300, help="seconds between checkpoints (default 300)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="CPU threads")
    options = parser.parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.pairs is not None:
        if options.validation is not None:
            parser.error("--pairs brings its own validation split; leave --validation out")
        options.cache, options.validation = options.pairs / "train", options.pairs / "validation"
        for split in (options.cache, options.validation):
            if not any(split.glob("shard_*.npz")):
                raise SystemExit(f"no shards in {split}: python -m export.training.align makes them")
    options.out.mkdir(parents=True, exist_ok=True)
    # not a fixed seed: a resumed run must not draw the same samples again
    teacher = None if options.teacher is None else answers_of(options.teacher)
    samples = Samples(options.cache, seed=time.time_ns(), teacher=teacher)
    plan = LITE if teacher else FROM_SCRATCH if options.start is None else FROM_WEIGHTS
    run = Run(samples, options.out, options.minutes, options.device, plan, options.start)
    train(run, held_out(options.validation, 200) if options.validation else None, options.every)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
