"""Fit a smooth curve to a centreline that follows its noise.

The fit is a polynomial in z: Legendre polynomials up to degree 10, each degree weighted by its Bayesian information
criterion against the noise seen in degrees 11 to 30 (waves of 30 to 80 mm, shorter than any curve of the spine). A
straight line with noise is fitted as straight, and a curve without noise keeps its shape to its ends.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

_MAX_DEGREE = 10
_MAX_NOISE_DEGREE = 30
# above the criterion's log(209) = 5.3, since a false curve is worse than a slightly stiff fit
_DEGREE_PENALTY = 7.0
# a network's error is smoother than white noise, so the noise of 209 rows is taken as at least 0.02 mm each
_NOISE_FLOOR_MM = 0.02
_NOISE_FLOOR_POINTS = 209
# deviation from even spacing, share of half the length, below which the cached polynomials are used; moves no fit by
# a millionth of a millimetre
_EVEN = 1e-12

Polynomials: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]


def fit(down: NDArray[np.float64], columns: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smooth columns over the descent.

    Parameters
    ----------
    down : (N,) array
        Distance of each point below the first, mm, strictly increasing.
    columns : (N, C) array
        Places of the centreline, mm; ValueError where one is not finite.

    Returns
    -------
    fitted, slope : (N, C) arrays
        mm, and mm per mm of descent.
    """
    if not np.all(np.isfinite(columns)):
        raise ValueError("the centreline has values that are not finite numbers")
    points = down.size
    max_degree = _max_degree(points)
    t = 2 * down / down[-1] - 1
    even = np.abs(t - _even_places(points)).max() < _EVEN
    orthonormal, derivatives = _even_polynomials(points) if even else _polynomials(t)
    coefficients = orthonormal.T @ columns

    energy = coefficients**2
    noise = energy[max_degree + 1 :].mean(axis=0)
    noise = np.maximum(noise, _NOISE_FLOOR_MM**2 * points / _NOISE_FLOOR_POINTS)
    explained = np.cumsum(energy[1 : max_degree + 1], axis=0)
    degrees = np.arange(1, max_degree + 1)[:, np.newaxis]
    log_evidence = (explained / noise - _DEGREE_PENALTY * degrees) / 2
    evidence = np.exp(log_evidence - log_evidence.max(axis=0))
    # each coefficient is weighted by the evidence of the degrees that include it
    belief = np.cumsum((evidence / evidence.sum(axis=0))[::-1], axis=0)[::-1]
    kept = coefficients[: max_degree + 1] * np.concatenate([np.ones_like(noise)[np.newaxis], belief])

    fitted: NDArray[np.float64] = orthonormal[:, : max_degree + 1] @ kept
    slope: NDArray[np.float64] = derivatives @ kept * (2 / down[-1])
    return fitted, slope


def gradient(values: NDArray[np.float64], step: float = 1.0) -> NDArray[np.float64]:
    """Return the derivative along evenly spaced rows (N, ...), at least two; `numpy.gradient` takes thrice the time."""
    slope = np.empty(values.shape)
    slope[1:-1] = (values[2:] - values[:-2]) / (2 * step)
    slope[0], slope[-1] = (values[1] - values[0]) / step, (values[-1] - values[-2]) / step
    return slope


def _max_degree(points: int) -> int:
    return min(_MAX_DEGREE, (points - 1) // 3)


def _polynomials(t: NDArray[np.float64]) -> Polynomials:
    """Return polynomials orthonormal on points `t` (-1 to 1), and the derivatives by t of those in the fit.

    Their shapes are (N, noise degrees + 1) and (N, fit degrees + 1).
    """
    kept = _max_degree(t.size) + 1
    basis = legendre.legvander(t, min(_MAX_NOISE_DEGREE, t.size - 1))
    orthonormal, triangle = np.linalg.qr(basis)
    to_series = np.linalg.solve(triangle[:kept, :kept], np.eye(kept))
    derivatives: NDArray[np.float64] = legendre.legval(t, legendre.legder(to_series)).T
    return orthonormal, derivatives


@lru_cache(maxsize=4)
def _even_polynomials(points: int) -> Polynomials:
    """Return `_polynomials` of evenly spaced points, as the rows of a network's curves are."""
    return _polynomials(_even_places(points))


@lru_cache(maxsize=4)
def _even_places(points: int) -> NDArray[np.float64]:
    return np.linspace(-1, 1, points)
