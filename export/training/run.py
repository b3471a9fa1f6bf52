"""Training run: plan of the budget, model and optimiser, and state on disk."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge_spine.files import beside
from edge_spine.network import CROP_SIZE
from export.checkpoint import load_regressor, load_trunk
from export.lite import Network, SpineLite
from export.regressor import SpineRegressor
from export.training.freeze import fold_norms, frozen_part, norms
from export.training.head import ShapeHead, write_weights
from export.training.loss import curve_loss
from export.training.precision import autocast
from export.training.samples import Samples
from export.training.validation import as_images, coronal_tangents

AVERAGING = 0.998
# Samples whose curves give the principal shapes of the last layer.
SHAPE_SAMPLES = 3000
_COUNTERS = ("elapsed", "step", "images", "best", "worse")


@dataclass(frozen=True)
class Plan:
    """Plan of the time budget.

    Attributes
    ----------
    stages : tuple of (share, size, batch)
        Curriculum: until which share of the budget images of which size are drawn, how many a step.
    peak_rate, warm_up : float
        Highest learning rate, and the share of the budget in which it is reached; a cosine to zero follows.
    patience : int
        Checkpoints without a better left-out error after which training ends.
    transformer : bool
        False trains ResNet50 alone.
    lite : bool
        Train `export.lite.SpineLite` in place of the published network.
    images : int, optional
        Budget in images, in place of the run's minutes.
    freeze : int, optional
        The stem and so many stages keep their weights and statistics; nothing is frozen where it is not given.
    freeze_norms : bool
        Every batch norm keeps its running statistics, which are folded into the convolutions while training.
    dropout : float
        Share of the features that the last layer does not see in a step.
    """

    stages: tuple[tuple[float, int, int], ...]
    peak_rate: float
    warm_up: float = 0.01
    patience: int = 12
    transformer: bool = True
    lite: bool = False
    images: int | None = None
    freeze: int | None = None
    freeze_norms: bool = False
    dropout: float = 0.0


FROM_SCRATCH = Plan(stages=((0.34, 128, 16), (0.52, 160, 16), (1.0, 224, 16)), peak_rate=4e-4)
FROM_WEIGHTS = Plan(stages=((1.0, CROP_SIZE, 16),), peak_rate=3e-4, warm_up=0.03)
LITE = Plan(stages=((1.0, CROP_SIZE, 32),), peak_rate=8e-4, warm_up=0.03, lite=True)


class Run:
    """One training run: model, averaged model, optimiser, and the time used so far."""

    def __init__(
        self,
        samples: Samples,
        out: Path,
        minutes: float,
        device: str,
        plan: Plan,
        start: Path | None = None,
        trunk: Path | None = None,
    ) -> None:
        self.samples, self.out, self.budget, self.device, self.plan = samples, out, minutes * 60, device, plan
        self.elapsed, self.step, self.images = 0.0, 0, 0
        self.best, self.worse = float("inf"), 0
        torch.manual_seed(0)
        _, targets = samples.batch(SHAPE_SAMPLES, 32)
        self.model: Any = SpineLite() if plan.lite else SpineRegressor(transformer=plan.transformer)
        head = ShapeHead(targets, self.model.linear.in_features, plan.dropout)
        self.state_path = out / "state.pt"
        if start is None:
            if plan.freeze is not None or plan.freeze_norms:
                raise SystemExit("--freeze and --freeze-norm keep what --start brings; give --start")
            self.model.init_()
            if trunk is not None:
                load_trunk(trunk, self.model)
        else:
            given, _ = load_regressor(start)
            if type(given) is type(self.model):
                self.model = given
                head.take(given.linear)
                if not self.state_path.exists():
                    print(_left_out(given, head, samples))
            elif plan.lite:
                self.model.start_from(given)
            else:
                raise SystemExit(f"{start.name} holds spine-lite, which --lite trains")
        self.model.linear = head
        if plan.freeze_norms:
            fold_norms(self.model)
        self.model = self.model.to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model)
        self.frozen: list[nn.Module] = [] if plan.freeze is None else frozen_part(self.model, plan.freeze)
        for part in self.frozen:
            part.requires_grad_(False)
        if plan.freeze_norms:
            self.frozen += norms(self.model)
        self.learning = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        self.optimiser = torch.optim.AdamW(self.learning.values(), lr=plan.peak_rate, weight_decay=0.02, fused=True)
        if self.state_path.exists():
            self._resume()

    def _resume(self) -> None:
        state = torch.load(self.state_path, map_location=self.device, weights_only=True)
        if "moments" not in state:
            raise SystemExit(f"{self.state_path} was written by an earlier version; use another --out")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        # by name, so that a run can go on with another part frozen
        for name, value in self.learning.items():
            if name in state["moments"]:
                self.optimiser.state[value] = state["moments"][name]
        for name in _COUNTERS:
            setattr(self, name, state[name])

    def save(self) -> None:
        """Write the state to resume from."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "moments": {name: dict(self.optimiser.state[value]) for name, value in self.learning.items()},
            **{name: getattr(self, name) for name in _COUNTERS},
        }
        with beside(self.state_path) as partial:
            torch.save(state, partial)

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
        """Used fraction of the budget."""
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
        for part in self.frozen:
            part.eval()
        with autocast(self.device):
            output = self.model(as_images(torch.from_numpy(images), self.device))
        loss = curve_loss(output, torch.from_numpy(targets).to(self.device))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.learning.values(), 5.0)
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


@torch.no_grad()
def _left_out(given: Network, head: ShapeHead, samples: Samples) -> str:
    """Print how much outputs change when a trained last layer is replaced by principal shapes."""
    images = as_images(torch.from_numpy(samples.batch(16, CROP_SIZE)[0]), "cpu")
    features: list[torch.Tensor] = []
    hook = given.linear.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    given.eval()(images)
    hook.remove()
    plain, held = (layer.eval()(features[0]).numpy().reshape(-1, 209, 6) for layer in (given.linear, head))
    turned = np.abs(coronal_tangents(held) - coronal_tangents(plain)).mean()
    moved = np.abs(held - plain).mean() * CROP_SIZE
    return f"start: {len(head.basis)} shapes move its answers by {moved:.3f} px and {turned:.2f} degrees on average"
