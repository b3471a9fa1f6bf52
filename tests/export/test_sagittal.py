"""Direction of the sagittal columns: mirrored exactly, decided by pairs, refused where pairs do not tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edge_spine.errors import UsageError
from export.sagittal import decide, turned
from export.training.dataset import MARGIN, Sample, shard_path, write_shard


class _Network(nn.Module):
    """Answers the same curves to every image."""

    def __init__(self, curves: np.ndarray) -> None:
        super().__init__()
        self.linear: Any = nn.Linear(4, 1254)
        with torch.no_grad():
            self.linear.weight.normal_(std=1e-4)
            self.linear.bias.copy_(torch.from_numpy(curves.ravel()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.linear(images.mean(dim=(2, 3))[:, [0, 1, 2, 0]])
        return features


def _curves(bend: float) -> np.ndarray:
    """Curves (272, 6), crop pixels, bent to posterior in the middle by some pixels."""
    middle = bend * np.sin(np.pi * np.arange(272) / 271)
    columns = [middle * 0 + 100, middle * 0 + 112, middle * 0 + 124, middle - 8, middle, middle + 9]
    return np.stack(columns, axis=1).astype(np.float32)


def _answer(bend: float) -> np.ndarray:
    curves = _curves(bend)[MARGIN + 7 : MARGIN + 216] / 224
    curves[:, 3:] += 0.5 - curves[:, 4].mean()
    return curves.astype(np.float32)


def _pairs(folder: Path, bend: float) -> Path:
    crop, small = np.zeros((272, 272), np.uint8), np.zeros((288, 112), np.uint8)
    sample = Sample(crop, _curves(bend), small, np.zeros((3, 2), np.float32), np.zeros((19, 2), np.float32))
    (folder / "validation").mkdir(parents=True)
    write_shard(shard_path(folder / "validation", 0), [sample], model_pixel_mm=np.array([2.2]))
    return folder


def test_turned_columns_are_mirrored_and_change_places() -> None:
    network: Any = _Network(_answer(20))
    image = torch.rand(2, 3, 8, 8)
    before, after = (n(image).detach().reshape(2, 209, 6) for n in (network, turned(network)))
    torch.testing.assert_close(after[..., :3], before[..., :3])
    torch.testing.assert_close(after[..., 3:], 1 - before[..., 3:].flip(-1))
    assert (after[..., 3] < after[..., 5]).all()
    torch.testing.assert_close(turned(turned(network))(image), network(image))


@pytest.mark.parametrize(("bend", "direction"), [(20.0, "posterior"), (-20.0, "anterior")])
def test_pairs_decide(tmp_path: Path, bend: float, direction: str) -> None:
    network: Any = _Network(_answer(bend))
    assert decide(network, _pairs(tmp_path / "pairs", 18.0)) == direction


def test_pairs_that_do_not_tell_are_refused(tmp_path: Path) -> None:
    network: Any = _Network(_answer(1.0))
    with pytest.raises(UsageError, match="do not tell"):
        decide(network, _pairs(tmp_path / "pairs", 18.0))
    with pytest.raises(UsageError, match="no pairs"):
        decide(network, tmp_path)
