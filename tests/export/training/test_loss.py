"""The loss charges for flattened waves, and not twice for a shift."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from export.training.loss import CORONAL_TANGENT, curve_loss, tangents

CROP = 224


def _wave(half_waves: int = 5, degrees: float = 6.0) -> torch.Tensor:
    """Curves (1, 209, 6), crop pixels / 224, with a coronal wave of so many degrees at most."""
    along = torch.linspace(0, 1, 209)
    height = np.radians(degrees) * 208 / (np.pi * half_waves)
    curves = torch.full((1, 209, 6), 0.5)
    curves[0, :, :3] += height * torch.sin(np.pi * half_waves * along)[:, None] / CROP
    return curves


def test_a_shift_costs_its_distance_alone() -> None:
    true = _wave()
    assert float(curve_loss(true + 2 / CROP, true)) == pytest.approx(2.0, abs=1e-3)


def test_a_flattened_wave_costs_more_than_its_distance() -> None:
    true = _wave()
    flat = torch.full_like(true, 0.5)
    distance = float((flat - true).abs().mean() * CROP)
    assert float(curve_loss(flat, true)) > 1.3 * distance
    assert float(curve_loss(true, true)) == 0.0


def test_a_tilt_of_a_degree_costs_what_is_documented() -> None:
    rows = torch.arange(209.0)[None, :, None]
    tilt = torch.zeros(1, 209, 6)
    tilt[:, :, :3] = np.radians(1.0) * rows / CROP
    assert tangents(tilt * CROP, 13)[..., :3].numpy() == pytest.approx(1.0, abs=1e-4)
    turned = float(curve_loss(tilt, torch.zeros_like(tilt)) - (tilt * CROP).abs().mean())
    assert turned == pytest.approx(CORONAL_TANGENT / 2, rel=1e-3)


def test_coronal_tangents_weigh_more_than_sagittal_ones() -> None:
    rows = torch.arange(209.0) / CROP / 50
    losses = []
    for columns in (slice(0, 3), slice(3, 6)):
        tilt = torch.zeros(1, 209, 6)
        tilt[0, :, columns] = rows[:, None]
        losses.append(float(curve_loss(tilt.reshape(1, -1), torch.zeros(1, 1254))))
    assert losses[0] > losses[1]
