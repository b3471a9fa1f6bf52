"""The dual ridge fit: it recovers a line, and its left-out errors are those of fits without the samples."""

from __future__ import annotations

import numpy as np
import pytest

from export.studies.ridge import Fold, fit_ridge


def _problem(noise: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    features = rng.standard_normal((60, 5)) + 3
    return features, features @ rng.standard_normal((5, 2)) + 7 + noise * rng.standard_normal((60, 2))


def test_a_linear_problem_is_recovered() -> None:
    features, targets = _problem(0.0)
    known, new = slice(0, 40), slice(40, 60)
    (fit,) = fit_ridge(features[known] @ features[known].T, [targets[known]], [], penalties=(1e-9,))
    np.testing.assert_allclose(fit.predict(features[new] @ features[known].T), targets[new], atol=1e-5)


def test_left_out_errors_are_those_of_fits_without_the_samples() -> None:
    features, targets = _problem(0.5)
    kernel = features @ features.T
    removed, judged = np.array([3, 4, 20, 21, 22]), np.array([4, 21])
    centred = features - features.mean(axis=0)
    scale = (centred**2).sum() / len(features)
    penalties = (0.01, 0.3)
    (fit,) = fit_ridge(kernel, [targets], [Fold(removed, judged)], penalties)
    rest = np.setdiff1d(np.arange(60), removed)
    for penalty, found in zip(penalties, fit.errors, strict=True):
        x, y = features[rest], targets[rest]
        inner = x - x.mean(axis=0)
        slope = np.linalg.solve(inner.T @ inner + penalty * scale * np.eye(5), inner.T @ (y - y.mean(axis=0)))
        answer = (features[judged] - x.mean(axis=0)) @ slope + y.mean(axis=0)
        assert found == pytest.approx(((answer - targets[judged]) ** 2).sum(axis=1).mean(), rel=1e-9)


def test_each_block_takes_the_penalty_of_its_lowest_left_out_error() -> None:
    features, targets = _problem(0.1)
    noise = np.random.default_rng(2).standard_normal((60, 2))
    folds = [Fold(np.arange(k, k + 10), np.arange(k, k + 10)) for k in range(0, 60, 10)]
    line, nothing = fit_ridge(features @ features.T, [targets, noise], folds, (1e-6, 100.0))
    assert (line.penalty, nothing.penalty) == (1e-6, 100.0)


def test_a_choice_needs_folds() -> None:
    with pytest.raises(ValueError, match="no folds"):
        fit_ridge(np.eye(3), [np.ones((3, 1))], [])
