from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_spine.measure import scoliosis_curves
from edge_spine.reconstruct import Curves, reconstruct
from edge_spine.smooth_fit import fit, gradient
from tests.edge_spine.test_measure import DOWN, ROWS, Z, arc, sine

Array = NDArray[np.float64]


def test_a_smooth_curve_and_its_slope_are_kept() -> None:
    x = 20 * np.sin(2 * np.pi * DOWN / 460)
    fitted, slope = fit(DOWN, x[:, np.newaxis])
    np.testing.assert_allclose(fitted[:, 0], x, atol=0.05)
    np.testing.assert_allclose(slope[:, 0], 20 * 2 * np.pi / 460 * np.cos(2 * np.pi * DOWN / 460), atol=0.01)


@pytest.mark.parametrize("shape", [(2,), (3, 2), (209,), (209, 2)])
def test_the_gradient_is_that_of_numpy(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_allclose(gradient(values, 2.0), np.gradient(values, 2.0, axis=0), rtol=1e-12)


def test_noise_is_not_followed() -> None:
    noise = np.random.default_rng(3).normal(0, 0.5, (209, 2))
    fitted, slope = fit(DOWN, 0.05 * DOWN[:, np.newaxis] + noise)
    assert np.abs(fitted - 0.05 * DOWN[:, np.newaxis]).max() < 0.3
    assert np.abs(slope - 0.05).max() < 0.01


def test_values_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(ValueError, match="finite"):
        fit(DOWN, np.full((209, 1), np.nan))


# Noise: white, per row, as a network's jitter; once as it is and once after the smoothing of `reconstruct`


def as_it_is(x: Array) -> Array:
    return x


def smoothed(x: Array) -> Array:
    columns = np.stack([x - 18, x, x + 18], axis=1)
    return reconstruct(Curves(Z, columns, columns)).centreline[:, 0]


@pytest.mark.parametrize("path", [as_it_is, smoothed])
@pytest.mark.parametrize("sigma", [0.3, 0.5])
def test_noise_makes_no_curve_of_a_straight_spine(path: Callable[[Array], Array], sigma: float) -> None:
    rng = np.random.default_rng(7)
    runs = [scoliosis_curves(path(DOWN * 0.05 + rng.normal(0, sigma, ROWS)), Z) for _ in range(200)]
    assert sum(bool(curves) for curves in runs) <= 2


@pytest.mark.parametrize("path", [as_it_is, smoothed])
@pytest.mark.parametrize("cobb", [10.0, 35.0, 60.0])
@pytest.mark.parametrize("halves", [1, 2])
def test_noise_moves_the_angle_of_a_curve_by_less_than_two_degrees(
    path: Callable[[Array], Array], cobb: float, halves: int
) -> None:
    rng = np.random.default_rng(8)
    worst = []
    for _ in range(100):
        curves = scoliosis_curves(path(sine(cobb, halves) + rng.normal(0, 0.4, ROWS)), Z)
        assert len(curves) >= halves
        worst.append(max(abs(c.cobb_deg - cobb) for c in curves[:halves]))
    assert np.percentile(worst, 90) < 2.0
    assert np.mean(worst) < 1.2


def test_noise_leaves_apex_and_side() -> None:
    rng = np.random.default_rng(9)
    for _ in range(50):
        curve = scoliosis_curves(-arc(20) + rng.normal(0, 0.4, ROWS), Z)[0]
        assert curve.side == "right"
        assert abs(curve.apex - 104) < 10
