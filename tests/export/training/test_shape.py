"""The drawn spines against the figures measured on supine CT."""

from __future__ import annotations

import numpy as np
import pytest

from export.training.shape import (
    FIRST_THORACIC,
    LAST_LUMBAR,
    LEVELS,
    SpineShape,
    sagittal_correlation,
)


@pytest.fixture(scope="module")
def shapes() -> list[SpineShape]:
    return [_drawn(seed) for seed in range(400)]


def _sagittal_tangents(shapes: list[SpineShape]) -> np.ndarray:
    """Tangent (degrees) of each segment T1-2 ... L4-5, positive posterior on the way down."""
    centres = np.stack([s.centre[FIRST_THORACIC : LAST_LUMBAR + 1] for s in shapes])
    step = np.diff(centres, axis=1)
    return np.degrees(np.arctan2(step[:, :, 1], -step[:, :, 2]))


def test_correlation_has_the_measured_features() -> None:
    correlation = sagittal_correlation()
    np.testing.assert_allclose(np.diag(correlation), 1)
    assert np.linalg.eigvalsh(correlation).min() > -1e-9
    neighbours = np.diag(correlation, 1)
    assert neighbours.min() > 0.84 and neighbours.max() < 0.965
    assert 0.3 < np.diag(correlation, 4)[:5].mean() < 0.5
    assert -0.3 < np.diag(correlation, 4)[-3:].mean() < -0.05
    assert correlation[5, 14] < -0.55


def test_mean_and_spread_of_sagittal_tangents(shapes: list[SpineShape]) -> None:
    tangents = _sagittal_tangents(shapes)
    mean = [24.4, 22.9, 19.2, 13.9, 8.0, 2.1, -3.1, -7.2, -10.1, -11.6, -11.9, -11.4, -10.3, -8.3, -2.6, 14.3]
    spread = [9.4, 6.8, 5.4, 4.8, 4.7, 4.9, 4.9, 4.8, 4.6, 4.3, 4.0, 4.2, 5.0, 5.8, 7.3, 9.8]
    assert np.abs(tangents.mean(axis=0) - mean).max() < 2.0
    assert np.abs(tangents.std(axis=0) / spread - 1).max() < 0.3


def test_length_and_places(shapes: list[SpineShape]) -> None:
    for shape in shapes[:50]:
        inside = (shape.line[:, 2] <= 235) & (shape.line[:, 2] >= -235)
        assert inside.sum() > 400
        assert np.all(np.diff(shape.line[:, 2]) < 0)
        top = shape.centre[FIRST_THORACIC] - shape.tangent[FIRST_THORACIC] * shape.height[FIRST_THORACIC] / 2
        bottom = shape.centre[LAST_LUMBAR] + shape.tangent[LAST_LUMBAR] * shape.height[LAST_LUMBAR] / 2
        assert np.abs((top + bottom) / 2).max() < 1.5
        assert len(shape.centre) == len(LEVELS)


def test_severity_runs_from_none_to_severe_and_vertebrae_turn_to_the_convex_side(
    shapes: list[SpineShape],
) -> None:
    ranges, turned = [], []
    for shape in shapes:
        step = np.diff(shape.centre[FIRST_THORACIC : LAST_LUMBAR + 1], axis=0)
        tangent = np.degrees(np.arctan2(step[:, 0], -step[:, 2]))
        ranges.append(np.ptp(tangent))
        if np.ptp(tangent) > 35:
            centre = shape.centre[FIRST_THORACIC : LAST_LUMBAR + 1, 0]
            chord = np.linspace(centre[0], centre[-1], len(centre))
            apex = int(np.argmax(np.abs(centre - chord)))
            # positive rotation faces the patient's left, where x grows
            turned.append(np.sign(centre[apex] - chord[apex]) * shape.rotation[FIRST_THORACIC + apex] > 0)
    assert np.median(ranges) < 15
    assert np.mean(np.array(ranges) > 40) > 0.02
    assert len(turned) > 20 and np.mean(turned) > 0.85
