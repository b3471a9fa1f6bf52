"""Ridge regression in dual form with the penalty chosen by exact leave-group-out errors.

With a kernel of inner products the cost depends on the number of samples alone. Ridge regression is linear in the
targets, so the residuals of left-out samples follow from one decomposition of the whole
training set, without a new fit: with the smoother H and residuals r, they are (I - H_DD)^-1 r_D (Cook and Weisberg,
Residuals and Influence in Regression, 1982). The intercept carries no penalty and is part of H.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Fractions of the kernel's mean diagonal after centring.
PENALTIES = tuple(float(p) for p in np.logspace(-4, 1, 11))

Rows = NDArray[np.int64]
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fold:
    """Samples left out together, as indices into the training set.

    Attributes
    ----------
    removed : (d,) int array
        All samples to leave out, including `judged`.
    judged : (j,) int array
        Samples whose error is used.
    """

    removed: Rows
    judged: Rows


@dataclass(frozen=True, eq=False)
class Ridge:
    """A fit.

    Attributes
    ----------
    dual : (n, k) array
        Weights of the training samples.
    mean : (k,) array
        Mean target.
    row_means : (n,) array
        Means of the rows of the training kernel.
    penalty : float
        Fraction of the kernel's mean diagonal.
    errors : (penalties,) array
        Mean squared left-out error of each penalty, summed over targets.
    """

    dual: Array
    mean: Array
    row_means: Array
    penalty: float
    errors: Array

    def predict(self, cross: NDArray[np.floating]) -> Array:
        """Map inner products (m, n) of new samples with the training samples to targets (m, k)."""
        centred = cross.astype(np.float64) - self.row_means
        centred -= centred.mean(axis=1, keepdims=True)
        answer: Array = centred @ self.dual + self.mean
        return answer


def fit_ridge(
    kernel: NDArray[np.floating],
    targets: Sequence[NDArray[np.floating]],
    folds: Sequence[Fold],
    penalties: Sequence[float] = PENALTIES,
) -> list[Ridge]:
    """Fit each block of targets with the penalty of the lowest error on left-out samples.

    Parameters
    ----------
    kernel : (n, n) array
        Inner products of the training samples' features.
    targets : sequence of (n, k) arrays
        Blocks with separate penalties.
    folds : sequence of Fold
        Folds with equal weight.
    penalties : sequence of float
        Fractions of the centred kernel's mean diagonal.

    Returns
    -------
    list of Ridge
        One for each block.

    Raises
    ------
    ValueError
        Several penalties but no folds are given.
    """
    if not folds and len(penalties) > 1:
        raise ValueError(f"{len(penalties)} penalties and no folds to choose by; give folds or one penalty")
    gram = kernel.astype(np.float64)
    row_means = gram.mean(axis=1)
    centred = gram - row_means - row_means[:, None] + row_means.mean()
    scale = float(np.trace(centred)) / len(gram)
    values, vectors = np.linalg.eigh(centred)
    values = np.maximum(values, 0)
    means = [block.mean(axis=0, dtype=np.float64) for block in targets]
    # Targets projected on the eigenvectors.
    along = [vectors.T @ (block - mean) for block, mean in zip(targets, means, strict=True)]
    errors = np.zeros((len(targets), len(penalties)))
    for column, penalty in enumerate(penalties):
        kept = values / (values + penalty * scale)
        for fold in folds:
            part = vectors[fold.removed]
            rest = np.eye(len(part)) - (part * kept) @ part.T - 1 / len(gram)
            place = np.searchsorted(fold.removed, fold.judged)
            for row, block in enumerate(along):
                residual = np.linalg.solve(rest, part @ ((1 - kept)[:, None] * block))[place]
                errors[row, column] += (residual**2).sum(axis=1).mean() / len(folds)
    fits = []
    for block, mean, error in zip(along, means, errors, strict=True):
        penalty = penalties[int(np.argmin(error))]
        dual = vectors @ (block / (values + penalty * scale)[:, None])
        fits.append(Ridge(dual, mean, row_means, penalty, error))
    return fits
