"""Draw the sagittal and coronal tangents of spines, from the mean and correlation of measured ones."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

from edge_spine.vertebrae import LEVELS

Array = NDArray[np.float64]

SEGMENTS = len(LEVELS) - 1
# Tangents of T1-2 ... L4-5, degrees; positive is posterior on the way down.
_SAGITTAL = np.array(
    [24.4, 22.9, 19.2, 13.9, 8.0, 2.1, -3.1, -7.2, -10.1, -11.6, -11.9, -11.4, -10.3, -8.3, -2.6, 14.3]
)
_SAGITTAL_SD = np.array([9.4, 6.8, 5.4, 4.8, 4.7, 4.9, 4.9, 4.8, 4.6, 4.3, 4.0, 4.2, 5.0, 5.8, 7.3, 9.8])
SAGITTAL_SPREAD = 1.2
_CERVICAL = np.array([3.0, 7.0, 12.0, 17.0, 22.0])
_SACRAL = np.array([31.0, 48.0, 55.0, 52.0, 40.0, 25.0])
# Coronal figures of standing films in classes of these median Cobb angles, degrees, and the supine share of them.
SUPINE = 0.8
_CLASS_COBB = (17.0, 35.0, 58.0)
# A film's Cobb angle is measured between vertebrae, which tilt less than the line.
SWING_OVER_COBB = 1.16
# SD of the common tilt of the films' tangents, degrees
_FILM_TILT_SD = 2.65
# SD of the tangents T1-2 ... L4-5 by class, degrees
_CORONAL_SD = np.array(
    [
        [6.2, 6.7, 6.6, 5.9, 6.2, 5.7, 5.2, 4.9, 5.2, 6.8, 7.2, 7.0, 6.3, 7.1, 8.4, 9.8],
        [8.2, 9.0, 9.2, 8.7, 9.5, 10.9, 9.2, 8.6, 9.9, 11.2, 10.8, 9.7, 10.7, 13.2, 13.4, 11.7],
        [12.8, 15.6, 17.7, 18.9, 19.1, 19.5, 18.0, 17.5, 19.7, 20.8, 19.0, 18.0, 19.9, 23.7, 21.4, 18.3],
    ]
)
# RMS of the tangents' short waves by class, degrees, for half-waves 4, 5, ... 15 over T1-L5
_SHORT_RMS = np.array(
    [
        [2.1, 1.4, 1.2, 1.05, 0.95, 0.9, 0.75, 0.7, 0.7, 0.6, 0.55, 0.6],
        [2.95, 2.3, 1.4, 1.0, 0.95, 1.0, 0.7, 0.75, 0.7, 0.65, 1.0, 1.0],
        [4.6, 2.9, 1.9, 1.4, 1.2, 1.15, 0.95, 0.75, 0.75, 0.9, 0.95, 0.65],
    ]
)
# Mean amplitude of one and of three half-waves by class, degrees RMS; most curves are right thoracic, left lumbar.
_MEAN_WAVES = np.array([[0.0, 2.0], [0.0, 6.3], [-6.0, 9.5]])
FIRST_SHORT = 4
LANDMARK_NOISE_DEG = 1.0
# Number of candidates for the requested Cobb angle.
_CANDIDATES = 24
# Short waves 4, 5, ... of a straight spine relative to the films' straightest class (estimated).
_CALM_SHORT = np.interp(np.arange(4, 16), [6, 10], [0.95, 0.5])
# Half-waves that affect a Cobb angle.
_READ_WAVES = 9


def sagittal_correlation() -> Array:
    """Return the (16, 16) correlation of the sagittal tangents T1-2 to L4-5.

    A cosine of half-period ten segments under slow decay, on a level axis that runs faster in the lumbar spine: it
    gives the measured 0.84-0.96 between neighbours, 0.3-0.5 four levels apart in the upper half, about -0.2 in the
    lower, and about -0.76 between T6-7 and L3-4.
    """
    place = np.cumsum(np.where(np.arange(16) < 10, 0.85, 1.45))
    apart = place[:, None] - place[None, :]
    slow = np.exp(-(apart**2) / (2 * 12.0**2)) * np.cos(np.pi * apart / 10.0)
    quick = np.exp(-(apart**2) / (2 * 2.0**2))
    return 0.92 * slow + 0.08 * quick


def coronal_correlation() -> Array:
    """Return the (16, 16) correlation of the coronal tangents T1-2 to L4-5, before scaling of the waves.

    A decaying cosine with a half-period of 7.9 segments, on a level axis that runs fastest at mid-spine, plus an
    independent part of each segment. Fitted to the films' correlation, with a mean error of 0.06, after scaling of
    deviation, waves and common tilt.
    """
    place = np.cumsum(np.exp(np.interp(np.arange(SEGMENTS), [0, 7.5, 15], [-1.82, 0.14, -0.64])))
    place = (place - place[0]) / (place[-1] - place[0]) * 15
    apart = place[:, None] - place[None, :]
    waves = np.exp(-(apart**2) / (2 * 14.3**2)) * np.cos(np.pi * apart / 7.9)
    return (waves + 0.27 * np.eye(SEGMENTS)) / 1.27


def half_waves(tangents: Array) -> Array:
    """Split tangents T1-2 to L4-5 into half-waves.

    Parameters
    ----------
    tangents : (..., 16) array
        Degrees.

    Returns
    -------
    (..., 16) array
        Degrees: coefficients of the DCT-II, scaled so that their squares add up to the mean square of the tangents.
        Number k belongs to cos(pi k x), x from 0 to 1 over the segments.
    """
    waves: Array = dct(tangents, axis=-1, norm="ortho") / np.sqrt(tangents.shape[-1])
    return waves


def draw_sagittal(rng: np.random.Generator) -> Array:
    """Draw the sagittal tangent below each level, degrees."""
    spread = SAGITTAL_SPREAD * _SAGITTAL_SD
    departure = np.clip(_factor("sagittal") @ rng.standard_normal(SEGMENTS), -2.8, 2.8) * spread
    spine = _SAGITTAL + departure
    neck = _CERVICAL + departure[0] * np.linspace(0.2, 0.9, 5) + rng.normal(0, 3) * np.linspace(1, 0.2, 5)
    tail = _SACRAL + departure[-1] * np.array([0.8, 0.6, 0.5, 0.4, 0.3, 0.2]) + rng.normal(0, 4)
    return np.concatenate([neck, spine, tail])


def draw_coronal(rng: np.random.Generator, cobb_deg: float) -> Array:
    """Draw the coronal tangents T1-2 to L4-5, degrees, with a mean of 0 and about the requested Cobb angle."""
    spread, gain, mean = _coronal_class(cobb_deg)
    waves = half_waves(rng.standard_normal((_CANDIDATES, SEGMENTS)) @ _factor("coronal").T * spread) * gain + mean
    swing = np.ptp(waves @ _reading_basis(), axis=1)
    chosen: Array = waves[np.argmin(np.abs(swing - cobb_deg))] @ _wave_basis()
    return chosen


def _coronal_class(cobb_deg: float) -> tuple[Array, Array, Array]:
    """Return spread by level, gain and mean by half-wave, each (16,), supine, of spines of one Cobb angle."""
    knots = SWING_OVER_COBB * SUPINE * np.array([0.0, *_CLASS_COBB])
    spread, gain, mean = _class_tables()
    # Proportional beyond the most severe class.
    more = max(cobb_deg / knots[-1], 1.0)
    found = np.searchsorted(knots, min(cobb_deg, knots[-1] - 1e-9), side="right") - 1
    part = (min(cobb_deg, knots[-1]) - knots[found]) / (knots[found + 1] - knots[found])
    a, b, c = ((1 - part) * t[found] + part * t[found + 1] for t in (spread, gain, mean))
    return a * more, b, c * more


@lru_cache(maxsize=1)
def _class_tables() -> tuple[Array, Array, Array]:
    """Spread by level, gain and mean by half-wave of the classes, (4, 16) each; the first is a straight spine's."""
    # Noise of landmarks alternates between segments and affects short waves most.
    noise = LANDMARK_NOISE_DEG**2 * np.sin(np.pi * np.arange(FIRST_SHORT, SEGMENTS) / (2 * SEGMENTS)) ** 2 / 8
    short = SUPINE * np.sqrt(_SHORT_RMS**2 - noise)
    target = SUPINE * np.sqrt(_CORONAL_SD**2 - LANDMARK_NOISE_DEG**2)
    spread, gain, basis = target.copy(), np.ones_like(target), _wave_basis()
    gain[:, 0] = 0.0
    # Find the deviation that matches the films' after scaling of the waves, without the common tilt.
    for _ in range(30):
        for k in range(len(target)):
            waves = half_waves(half_waves(coronal_correlation() * np.outer(spread[k], spread[k])).T)
            gain[k, FIRST_SHORT:] = short[k] / np.sqrt(np.diag(waves)[FIRST_SHORT:])
            made = np.diag(basis.T @ (waves * np.outer(gain[k], gain[k])) @ basis)
            spread[k] *= np.sqrt(target[k] / np.sqrt(made + (SUPINE * _FILM_TILT_SD) ** 2))
    straight = np.concatenate([np.zeros(FIRST_SHORT), _CALM_SHORT * gain[0, FIRST_SHORT:]])
    mean = np.zeros((4, SEGMENTS))
    mean[1:, [1, 3]] = SUPINE * _MEAN_WAVES
    return np.concatenate([spread[:1], spread]), np.concatenate([straight[None], gain]), mean


@lru_cache(maxsize=1)
def _wave_basis() -> Array:
    """(16, 16): tangents of each half-wave; `half_waves(t) @ _wave_basis()` is t."""
    basis: Array = np.linalg.inv(half_waves(np.eye(SEGMENTS)))
    return basis


@lru_cache(maxsize=1)
def _reading_basis() -> Array:
    """(16, 49): tangents along the smooth line, T1 to L5, from which a Cobb angle is read, of each half-wave."""
    number = np.arange(SEGMENTS)[:, None]
    # a chord shows less of a wave than the line has
    line = np.sqrt(2) * np.cos(np.pi * number * np.linspace(0, 1, 49)) / np.sinc(number / (2 * SEGMENTS))
    return np.where((number > 0) & (number < _READ_WAVES), line, 0.0)


@lru_cache(maxsize=2)
def _factor(which: str) -> Array:
    """Matrix that gives standard normal numbers the correlation of sagittal or coronal tangents."""
    return factor_of(sagittal_correlation() if which == "sagittal" else coronal_correlation())


def factor_of(correlation: Array) -> Array:
    """Return the matrix that gives standard normal numbers a correlation: its symmetric square root.

    Unlike the scaled eigenvectors, it is unique where eigenvalues are equal, so that a seed gives the same curve on
    every processor.
    """
    values, vectors = np.linalg.eigh(correlation)
    factor: Array = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return factor


def continue_coronal(rng: np.random.Generator, spine: Array) -> Array:
    """Add the tangents of the neck and the sacrum, which fade from those of the ends, to those of T1-2 to L4-5."""
    above, below = np.arange(5, 0, -1), np.arange(1, 7)
    neck = (spine[0] + 0.5 * (spine[0] - spine[1]) * above * np.exp(-above)) * np.exp(-above / 4)
    neck += rng.normal(0, 3) * (1 - np.exp(-above / 3))
    tail = (spine[-1] + 0.5 * (spine[-1] - spine[-2]) * below * np.exp(-below)) * np.exp(-below / 2.5)
    tail += rng.normal(0, 2) * (1 - np.exp(-below / 2))
    return np.concatenate([neck, spine, tail])
