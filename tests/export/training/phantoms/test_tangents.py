from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy", reason="pip install '.[export]'")

from export.training.phantoms.tangents import coronal_correlation, factor_of, sagittal_correlation


@pytest.mark.parametrize("correlation", [coronal_correlation(), sagittal_correlation(), np.eye(4)])
def test_a_factor_gives_its_correlation_and_is_unique(correlation: np.ndarray) -> None:
    """Scaled eigenvectors are not: where eigenvalues are equal, processors return other ones."""
    factor = factor_of(correlation)
    np.testing.assert_allclose(factor @ factor.T, correlation, atol=1e-9)
    np.testing.assert_allclose(factor, factor.T, atol=1e-9)
    np.testing.assert_array_less(-1e-9, np.linalg.eigvalsh(factor))


def test_a_factor_does_not_depend_on_the_choice_of_eigenvectors(monkeypatch: pytest.MonkeyPatch) -> None:
    correlation, solve = coronal_correlation(), np.linalg.eigh
    expected = factor_of(correlation)

    def other(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = solve(matrix)
        turned = np.eye(len(values))
        # The first eigenvalues are equal: a rotation of their vectors is as good.
        turned[:2, :2] = [[0.6, -0.8], [0.8, 0.6]]
        turned[-1, -1] = -1
        return values, vectors @ turned

    monkeypatch.setattr(np.linalg, "eigh", other)
    np.testing.assert_allclose(factor_of(correlation), expected, atol=1e-6)
