"""Compute bands for unseen people: a conformal quantile over people and their images.

Errors of one person's images are not independent: a large part is the same in each image. Each person therefore has
equal weight (pooling of distribution functions: Dunn, Wasserman and Ramdas, JASA 2023), and the pooled 90 % quantile of
each row, smoothed along the rows, is inflated for the small number of people: by t / z at 95 %, with K / share^2
degrees of freedom (Satterthwaite 1946), where share is the part of the mean square error that is constant within a
person. No rule without assumptions can give 90 % from fewer than nine people, since the next one is worse than all of K
with a chance of 1 / (K + 1); this one assumes that the constant errors of people are normal around zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.stats import norm, t

from edge_spine.bundle.bands import NOMINAL
from edge_spine.errors import UsageError

LEAST_PEOPLE, LEAST_IMAGES = 3, 5
SMOOTHING_ROWS = 10.0
METHOD = (
    "over people: 90 % quantile of each row with every person weighing the same, smoothed along the rows (Gaussian, "
    f"{SMOOTHING_ROWS:.0f} rows), times t / z at 95 % with people / share^2 degrees of freedom, share being the part "
    "of the mean square error that is constant within a person; the larger of it and the phantoms' row is kept"
)

Array = NDArray[np.float64]


def pooled_quantile(people: Sequence[Array], nominal: float = NOMINAL) -> Array:
    """Return the smallest score (209,) that covers the nominal share, with equal weight of each person.

    Parameters
    ----------
    people : sequence of (N, 209) array
        Scores of each person's images; N may differ.
    nominal : float
        Probability.
    """
    scores = np.concatenate(people)
    weights = np.concatenate([np.full(len(person), 1 / (len(people) * len(person))) for person in people])
    order = np.argsort(scores, axis=0)
    # Rounded, since binary weights may sum to slightly less than the nominal share.
    reached = np.cumsum(weights[order], axis=0).round(9) >= nominal
    chosen = np.take_along_axis(order, reached.argmax(axis=0)[np.newaxis], axis=0)
    quantile: Array = np.take_along_axis(scores, chosen, axis=0)[0]
    return quantile


def constant_share(people: Sequence[Array]) -> float:
    """Return the part, 0 to 1, of the mean square of signed errors (N, 209) that is constant within a person."""
    squares = sum(float((person**2).mean(axis=0).sum()) for person in people)
    constant = sum(
        float((person.mean(axis=0) ** 2 - person.var(axis=0, ddof=1) / len(person)).sum()) for person in people
    )
    return float(np.clip(constant / squares, 0.0, 1.0)) if squares > 0 else 0.0


def inflation(count: int, share: float) -> float:
    """Return the factor, 1 or more, on the quantile of `count` people whose errors are constant to this share."""
    two_sided = (1 + NOMINAL) / 2
    # If errors vary only between images, many images are as good as many people.
    freedom = count / max(share, 1e-3) ** 2
    return float(t.ppf(two_sided, freedom) / norm.ppf(two_sided))


def people_rows(people: Sequence[Array]) -> Array:
    """Return the half-width (209,) of each row's band from each person's signed errors (N, 209), in their unit.

    Raises
    ------
    UsageError
        There are too few people, or too few images of a person.
    """
    if len(people) < LEAST_PEOPLE - 1 or min(map(len, people)) < LEAST_IMAGES:
        raise UsageError(f"bands over people need {LEAST_PEOPLE} people or more, with {LEAST_IMAGES} images each")
    quantile = pooled_quantile([np.abs(person) for person in people])
    smooth: Array = gaussian_filter1d(quantile, SMOOTHING_ROWS, mode="nearest")
    return smooth * inflation(len(people), constant_share(people))


def coverage(rows: Array, errors: Array) -> float:
    """Return the share of errors (N, 209) that lie within half-widths (209,)."""
    return float((np.abs(errors) <= rows).mean())


def left_out_coverage(people: Mapping[str, Array], floor: Array) -> dict[str, float]:
    """Return the coverage of each person by bands from all others, at least as wide as `floor` (209,)."""
    found = {}
    for name, errors in people.items():
        others = [person for other, person in people.items() if other != name]
        found[name] = coverage(np.maximum(floor, people_rows(others)), errors)
    return found
