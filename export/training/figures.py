"""Compute figures of results on people, with intervals over images and over people.

A group holds the N images of one person, as columns of which each has the images along its first axis:

- one value an image, (N,): the errors of `export.training.agreement.compare` and the other names in `MEANS`, those of
  `judge_levels` (absent for the baseline), what the bands hold (`BAND_MEANS`, absent without bands),
  `baseline_sagittal_mae_mm`, and for each angle of `ANGLES` the measured `<angle>_deg` and the `true_<angle>_deg`,
  degrees;
- `waves` and `true_waves`, (N, 10): `tangent_waves` of the coronal centrelines, degrees;
- `sagittal_error_mm`, (N, 209): signed error of the sagittal centre, mm, positive to posterior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

from edge_spine.bundle.bands import VIEWS
from export.training.agreement import FIGURES, LEVEL_FIGURES

Array = NDArray[np.float64]
Group = dict[str, Array]
Interval = tuple[float, float]

MEANS = (*FIGURES, "coronal_centre_mae_mm", "coronal_borders_mae_mm", "sagittal_centre_mae_mm")
BAND_MEANS = tuple(f"{view}_{name}" for view in VIEWS for name in ("coverage", "half_width_mm"))
ANGLES = ("cobb", "kyphosis", "lordosis")
# of the target for the slope: hardly anyone lies on a scanner with more
COBB_LIMIT_DEG = 60.0
WAVES = 10
SEGMENTS = 16
_RESAMPLES = 1000
_LEAST_FOR_LINE = 3


def tangent_waves(x: Array, z: Array) -> Array:
    """Signed amplitudes (10,) of a coronal centreline's tangents by number of half-waves over its length, degrees.

    The tangents are those of 16 chords between 17 evenly spaced rows, long enough that the jitter of single rows does
    not matter; their cosine transform (DCT-II) has 0 half-waves first, which is the tilt of the whole. An amplitude is
    the root mean square over the tangents that the wave gives them, positive where it starts to the patient's left.

    Parameters
    ----------
    x, z : (N,) arrays
        mm, from the top down; N - 1 a multiple of 16, as for the 209 rows of a result.

    Raises
    ------
    ValueError
        The rows cannot be divided into 16 equal parts, or do not run down.
    """
    if (x.size - 1) % SEGMENTS or x.shape != z.shape:
        raise ValueError(f"{x.shape} and {z.shape} points cannot be divided into {SEGMENTS} equal parts")
    if not (np.diff(z) < 0).all():
        raise ValueError("z must be strictly decreasing, from the top down")
    step = (x.size - 1) // SEGMENTS
    tangents = np.degrees(np.arctan2(np.diff(x[::step]), -np.diff(z[::step])))
    waves: Array = dct(tangents, type=2, norm="ortho")[:WAVES] / math.sqrt(SEGMENTS)
    return waves


def gain(found: Array, true: Array) -> Array:
    """Share of each true amplitude that is found, least squares through zero; (N, K) each, returns (K,).

    A share of 1 keeps the curve, 0.6 flattens it; NaN where the truth has none of a wave.
    """
    power = (true**2).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share: Array = np.where(power > 0, (found * true).sum(axis=0) / power, np.nan)
    return share


def line_through(true: Array, found: Array) -> tuple[float, float]:
    """Slope of the least-squares line of `found` on `true` (N,), and their correlation; NaN where undefined."""
    if true.size < _LEAST_FOR_LINE:
        return math.nan, math.nan
    x, y = true - true.mean(), found - found.mean()
    spread_x, spread_y = float(x @ x), float(y @ y)
    if spread_x < 1e-12:
        return math.nan, math.nan
    slope = float(x @ y) / spread_x
    return slope, float(x @ y) / math.sqrt(spread_x * spread_y) if spread_y > 1e-12 else math.nan


def constant_error(error: Array) -> tuple[Array, float, float]:
    """Divide signed errors (N, R) of one person into what all images share and the rest.

    Returns
    -------
    curve : (R,) array
        Mean error of each row.
    constant : float
        Mean absolute value of that curve. Of few images it is too large, since it holds a share of the rest as well.
    rest : float
        Mean absolute error after the curve is taken off.
    """
    curve: Array = error.mean(axis=0)
    return curve, float(np.abs(curve).mean()), float(np.abs(error - curve).mean())


def figures(groups: Sequence[Group]) -> dict[str, float]:
    """All figures of the images of one or more people.

    Parameters
    ----------
    groups : sequence of dict
        One a person, none empty, see the module; images count alike, except that the constant errors are means over
        people.

    Returns
    -------
    dict
        `MEANS` and, with bands, `BAND_MEANS`; `sagittal_ratio` (of the error to the baseline's);
        `cobb_bias_deg` (measured minus true); for each angle `<angle>_slope` and `<angle>_correlation` of measured on
        true (Cobb: up to `COBB_LIMIT_DEG`); `gain_0` to `gain_9` by half-waves, `gain_least` of 0 to 5, and
        `wave_0_deg` to `wave_9_deg`, the root mean square of the true amplitudes; `sagittal_constant_mm` and
        `sagittal_rest_mm`. NaN where undefined.
    """
    names = [name for name in groups[0] if name != "sagittal_error_mm"]
    pooled = {name: np.concatenate([group[name] for group in groups]) for name in names}
    found = {name: float(pooled[name].mean()) for name in (*MEANS, *LEVEL_FIGURES, *BAND_MEANS) if name in pooled}
    found["sagittal_ratio"] = found["sagittal_mae_mm"] / float(pooled["baseline_sagittal_mae_mm"].mean())
    found["cobb_bias_deg"] = float((pooled["cobb_deg"] - pooled["true_cobb_deg"]).mean())
    for angle in ANGLES:
        true, measured = pooled[f"true_{angle}_deg"], pooled[f"{angle}_deg"]
        if angle == "cobb":
            true, measured = true[true <= COBB_LIMIT_DEG], measured[true <= COBB_LIMIT_DEG]
        found[f"{angle}_slope"], found[f"{angle}_correlation"] = line_through(true, measured)
    gains = gain(pooled["waves"], pooled["true_waves"])
    power = np.sqrt((pooled["true_waves"] ** 2).mean(axis=0))
    found["gain_least"] = float(gains[:6].min())
    for k in range(WAVES):
        found[f"gain_{k}"], found[f"wave_{k}_deg"] = float(gains[k]), float(power[k])
    parts = np.array([constant_error(group["sagittal_error_mm"])[1:] for group in groups])
    found["sagittal_constant_mm"], found["sagittal_rest_mm"] = (float(value) for value in parts.mean(axis=0))
    return found


def bootstrap(groups: Sequence[Group], *, over_people: bool, resamples: int = _RESAMPLES) -> dict[str, Interval]:
    """95 % percentile intervals of `figures`.

    Parameters
    ----------
    groups : sequence of dict
        As for `figures`.
    over_people : bool
        Draw people first and then images of each, which says what other people like these would give; else images of
        these very people.
    resamples : int
        How many times to draw.

    Returns
    -------
    dict
        Two ends for each figure; NaN where most of the draws leave it undefined. Those of `sagittal_constant_mm` are
        too high for few images a person, since drawing images twice leaves more of the rest in their mean.
    """
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(resamples):
        chosen = rng.integers(len(groups), size=len(groups)) if over_people else range(len(groups))
        draws.append(figures([_resampled(groups[k], rng) for k in chosen]))
    return {name: _ends(np.array([draw[name] for draw in draws])) for name in draws[0]}


def chosen_images(groups: Sequence[Group], low_deg: float, high_deg: float) -> list[Group]:
    """Keep the images whose true Cobb angle is at least `low_deg` and below `high_deg`; people without any go."""
    kept = []
    for group in groups:
        inside = (group["true_cobb_deg"] >= low_deg) & (group["true_cobb_deg"] < high_deg)
        if inside.any():
            kept.append({name: values[inside] for name, values in group.items()})
    return kept


def _resampled(group: Group, rng: np.random.Generator) -> Group:
    count = len(group["true_cobb_deg"])
    drawn = rng.integers(count, size=count)
    return {name: values[drawn] for name, values in group.items()}


def _ends(values: Array) -> Interval:
    finite = values[np.isfinite(values)]
    if finite.size < values.size / 2:
        return math.nan, math.nan
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)
