"""Errors on held-out crops: a flattened curve shows in the gain, the slope and the bias."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from export.training.validation import coronal_tangents, errors, tangent_gain


def _people(count: int = 12) -> np.ndarray:
    rng = np.random.default_rng(0)
    along = np.linspace(0, 1, 209)
    curves = np.full((count, 209, 6), 0.5, np.float32)
    for person in curves:
        for half_waves in range(1, 9):
            person[:, :3] += (rng.normal(0, 2) * np.sin(np.pi * half_waves * along)[:, None] / half_waves) / 224
    return curves


class _Answers(nn.Module):
    """FAKE network: the first pixel of a crop is the index of its answer."""

    def __init__(self, rows: np.ndarray) -> None:
        super().__init__()
        self.rows = torch.from_numpy(rows.reshape(len(rows), -1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.rows[(images[:, 0, 0, 0] * 255).round().long()]


def test_the_truth_has_no_error_and_a_flattened_answer_has_its_gain() -> None:
    true = _people()
    crops = torch.arange(len(true), dtype=torch.uint8)[:, None, None].expand(-1, 32, 32)
    exact = errors(_Answers(true), (crops, true), "cpu")
    assert exact["loss_px"] == 0 and exact["coronal_px"] == 0 and exact["tangent_gain"] == [1.0] * 8
    assert exact["curve_slope"] == 1 and exact["curve_bias_deg"] == 0

    flat = true.copy()
    flat[:, :, :3] = 0.5 + 0.6 * (true[:, :, :3] - 0.5)
    said = errors(_Answers(flat), (crops, true), "cpu")
    assert said["tangent_gain"] == pytest.approx([0.6] * 8, abs=0.02)
    assert said["curve_slope"] == pytest.approx(0.6, abs=0.03) and said["curve_bias_deg"] < -1
    assert said["sagittal_px"] == 0 < 1.1 * said["coronal_px"] / 2 < said["loss_px"]


def test_gains_belong_to_their_half_waves() -> None:
    along = (np.arange(196) + 0.5) / 196
    second, sixth = np.cos(2 * np.pi * along), np.cos(6 * np.pi * along)
    rng = np.random.default_rng(1)
    sizes = rng.normal(0, 5, (20, 2))
    true = sizes[:, :1] * second + sizes[:, 1:] * sixth
    said = sizes[:, :1] * second + 0.3 * sizes[:, 1:] * sixth
    gain = tangent_gain(said, true)
    assert gain[1] == pytest.approx(1.0, abs=1e-6) and gain[5] == pytest.approx(0.3, abs=1e-6)


def test_tangents_are_degrees() -> None:
    curves = np.zeros((1, 209, 6), np.float32)
    curves[0, :, 1] = np.tan(np.radians(10)) * np.arange(209) / 224
    np.testing.assert_allclose(coronal_tangents(curves), 10, atol=1e-3)
