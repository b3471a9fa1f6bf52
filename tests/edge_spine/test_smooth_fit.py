from __future__ import annotations

import numpy as np
import pytest

from edge_spine.smooth_fit import fit

DOWN = np.linspace(0, 460, 209)


def test_a_smooth_curve_and_its_slope_are_kept() -> None:
    x = 20 * np.sin(2 * np.pi * DOWN / 460)
    fitted, slope = fit(DOWN, x[:, np.newaxis])
    np.testing.assert_allclose(fitted[:, 0], x, atol=0.05)
    np.testing.assert_allclose(slope[:, 0], 20 * 2 * np.pi / 460 * np.cos(2 * np.pi * DOWN / 460), atol=0.01)


def test_noise_is_not_followed() -> None:
    noise = np.random.default_rng(3).normal(0, 0.5, (209, 2))
    fitted, slope = fit(DOWN, 0.05 * DOWN[:, np.newaxis] + noise)
    assert np.abs(fitted - 0.05 * DOWN[:, np.newaxis]).max() < 0.3
    assert np.abs(slope - 0.05).max() < 0.01


def test_values_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(ValueError, match="finite"):
        fit(DOWN, np.full((209, 1), np.nan))
