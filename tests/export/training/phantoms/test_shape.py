"""The drawn spines against the figures measured on supine CT and on standing films."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from export.training.phantoms.shape import (
    FIRST_THORACIC,
    LAST_LUMBAR,
    LEVELS,
    TILT_SHARE,
    SpineShape,
    draw_build,
    draw_cobb,
    draw_shape,
)
from export.training.phantoms.tangents import SAGITTAL_SPREAD, SUPINE, SWING_OVER_COBB, half_waves, sagittal_correlation

Array = NDArray[np.float64]

FILMS = Path(__file__).resolve().parents[5] / "shared" / "data" / "shape" / "coronal_films.json"
CLASSES = {"0-25": (0, 25), "25-45": (25, 45), "45-99": (45, 180)}
TRUNK = slice(FIRST_THORACIC, LAST_LUMBAR + 1)


def _drawn(seed: int, lean_deg: float = 0.0, cobb_deg: float | None = None) -> SpineShape:
    rng = np.random.default_rng(seed)
    return draw_shape(rng, 460.0, draw_build(rng, 1.0), lean_deg, cobb_deg)


@pytest.fixture(scope="module")
def shapes() -> list[SpineShape]:
    return [_drawn(seed) for seed in range(600)]


@pytest.fixture(scope="module")
def films() -> dict[str, Any]:
    if not FILMS.is_file():
        pytest.skip("the figures of the coronal films are not on this machine (looked in ../shared/data/shape)")
    figures: dict[str, Any] = json.loads(FILMS.read_text(encoding="utf-8"))
    return figures


@pytest.fixture(scope="module")
def as_films(films: dict[str, Any]) -> list[SpineShape]:
    """Shapes with the films' distribution of Cobb angles and of common tilts, supine."""
    rng = np.random.default_rng(0)
    known = [8.0, *films["cobb_percentiles_5_25_50_75_95_deg"], 90.0]
    cobb = np.interp(rng.random(8000), [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1], known) * SUPINE * SWING_OVER_COBB
    lean = rng.normal(0, SUPINE * 2.65, len(cobb))
    return [_drawn(seed, lean[seed], cobb[seed]) for seed in range(len(cobb))]


def _tangents(shapes: list[SpineShape], axis: int) -> Array:
    """Tangent (degrees) of each segment T1-2 ... L4-5 towards the left (axis 0) or the back (1) on the way down."""
    step = np.diff(np.stack([s.centre[TRUNK] for s in shapes]), axis=1)
    return np.degrees(np.arctan2(step[:, :, axis], -step[:, :, 2]))


def _tilts(shapes: list[SpineShape]) -> Array:
    """Coronal tilt (degrees) of the vertebrae T1 ... L5, of the sign of the tangents."""
    up = np.stack([s.axes[TRUNK, 2] for s in shapes])
    return np.degrees(np.arctan2(-up[..., 0], up[..., 2]))


def _by_class(shapes: list[SpineShape]) -> dict[str, NDArray[np.bool_]]:
    """Which shapes belong to each class of the films, by the Cobb angle between vertebrae at standing size."""
    cobb = np.ptp(_tilts(shapes), axis=1) / SUPINE
    return {name: (cobb >= low) & (cobb < high) for name, (low, high) in CLASSES.items()}


def test_correlation_has_the_measured_features() -> None:
    correlation = sagittal_correlation()
    np.testing.assert_allclose(np.diag(correlation), 1)
    assert np.linalg.eigvalsh(correlation).min() > -1e-9
    neighbours = np.diag(correlation, 1)
    assert neighbours.min() > 0.84 and neighbours.max() < 0.965
    assert 0.3 < np.diag(correlation, 4)[:5].mean() < 0.5
    assert -0.3 < np.diag(correlation, 4)[-3:].mean() < -0.05
    assert correlation[5, 14] < -0.55


@pytest.mark.slow
def test_mean_and_spread_of_sagittal_tangents(shapes: list[SpineShape]) -> None:
    tangents = _tangents(shapes, 1)
    mean = [24.4, 22.9, 19.2, 13.9, 8.0, 2.1, -3.1, -7.2, -10.1, -11.6, -11.9, -11.4, -10.3, -8.3, -2.6, 14.3]
    spread = np.array([9.4, 6.8, 5.4, 4.8, 4.7, 4.9, 4.9, 4.8, 4.6, 4.3, 4.0, 4.2, 5.0, 5.8, 7.3, 9.8])
    assert SAGITTAL_SPREAD == 1.2
    assert np.abs(tangents.mean(axis=0) - mean).max() < 1.5
    # 600 draws know a spread within 9 % (three standard errors)
    assert np.abs(tangents.std(axis=0) / (1.2 * spread) - 1).max() < 0.1


def test_half_waves_add_up_to_the_mean_square_and_name_the_waves() -> None:
    tangents = np.random.default_rng(0).normal(0, 5, (4, 16))
    np.testing.assert_allclose((half_waves(tangents) ** 2).sum(axis=1), (tangents**2).mean(axis=1))
    waves = half_waves(10 * np.cos(3 * np.pi * (np.arange(16) + 0.5) / 16))
    np.testing.assert_allclose(waves, np.where(np.arange(16) == 3, 10 / np.sqrt(2), 0), atol=1e-9)


def test_half_waves_follow_the_films_own_convention(films: dict[str, Any]) -> None:
    # the calm class has nearly no mean curve, so its squares add up to its variance but for the common tilt
    rms = np.array(films["rms_deg_by_half_waves_0_to_15"]["0-25"])
    spread = np.array(films["by_cobb_deg"]["0-25"]["tangent_sd_deg"])
    assert (rms**2).sum() == pytest.approx((spread**2).mean(), rel=0.1)


@pytest.mark.slow
def test_spread_of_coronal_tangents_is_that_of_films(films: dict[str, Any], as_films: list[SpineShape]) -> None:
    tangents, classes = _tangents(as_films, 0) / SUPINE, _by_class(as_films)
    for name, inside in classes.items():
        measured = np.array(films["by_cobb_deg"][name]["tangent_sd_deg"])
        ratio = tangents[inside].std(axis=0) / measured
        assert abs(np.sqrt((ratio**2).mean()) - 1) < 0.09, name
        assert np.abs(ratio - 1).max() < 0.24, name


@pytest.mark.slow
def test_spread_of_vertebral_tilts_is_that_of_films(films: dict[str, Any], as_films: list[SpineShape]) -> None:
    tilts, classes = _tilts(as_films) / SUPINE, _by_class(as_films)
    for name, inside in classes.items():
        ratio = tilts[inside].std(axis=0) / films["by_cobb_deg"][name]["vertebra_tilt_sd_deg"]
        assert abs(np.sqrt((ratio**2).mean()) - 1) < 0.1, name
        assert np.abs(ratio - 1).max() < 0.27, name


@pytest.mark.slow
def test_waves_of_coronal_tangents_are_those_of_films(films: dict[str, Any], as_films: list[SpineShape]) -> None:
    waves, classes = half_waves(_tangents(as_films, 0)) / SUPINE, _by_class(as_films)
    for name, inside in classes.items():
        measured = np.array(films["rms_deg_by_half_waves_0_to_15"][name])
        ratio = np.sqrt((waves[inside] ** 2).mean(axis=0))[1:] / measured[1:]
        assert ratio[:9].min() > 0.8 and ratio[:9].max() < 1.22, name
        # noise of the landmarks, which is not drawn, has more of the shortest waves
        assert ratio[9:].min() > 0.72 and ratio[9:].max() < 1.25, name


@pytest.mark.slow
def test_correlation_of_coronal_tangents_is_that_of_films(films: dict[str, Any], as_films: list[SpineShape]) -> None:
    apart = np.abs(np.corrcoef(_tangents(as_films, 0).T) - films["tangent_correlation"])
    assert apart[np.triu_indices(16, 1)].mean() < 0.085
    assert apart.max() < 0.26


@pytest.mark.slow
def test_vertebrae_tilt_less_than_the_line(films: dict[str, Any], as_films: list[SpineShape]) -> None:
    tangents, tilts = _tangents(as_films, 0), _tilts(as_films)
    between = (tilts[:, 1:] + tilts[:, :-1]) / 2
    slopes = np.array([np.polyfit(tangents[:, k], between[:, k], 1)[0] for k in range(16)])
    assert np.abs(slopes - films["tilt_over_tangent"]["by_segment"]).max() < 0.12
    line = np.stack([s.tangent[TRUNK] for s in as_films])
    left = tilts - TILT_SHARE * np.degrees(np.arctan2(line[..., 0], -line[..., 2]))
    measured = np.array(films["tilt_over_tangent"]["residual_sd_deg"])
    assert np.sqrt((left**2).mean()) == pytest.approx(SUPINE * np.sqrt((measured**2 - 1).mean()), rel=0.15)


def test_short_waves_are_there_in_calm_spines() -> None:
    waves = half_waves(_tangents([_drawn(seed, 0.0, 6.0) for seed in range(300)], 0))
    short = np.sqrt((waves[:, 4:7] ** 2).mean(axis=0).sum())
    assert 1.0 < short < 2.0
    assert np.sqrt((waves[:, 1:4] ** 2).mean(axis=0).sum()) < 2.0


def test_cobb_angles_cover_the_range_evenly(shapes: list[SpineShape]) -> None:
    cobb = [draw_cobb(np.random.default_rng(seed)) for seed in range(4000)]
    shares = np.histogram(cobb, [0, 9.5, 25, 40, 67])[0] / len(cobb)
    np.testing.assert_allclose(shares, [0.45, 0.19, 0.18, 0.18], atol=0.025)
    swing = np.ptp(_tangents(shapes, 0), axis=1)
    assert 0.3 < np.mean(swing < 10) < 0.5
    for low, high in ((10, 25), (25, 40), (40, 70)):
        assert 0.14 < np.mean((swing >= low) & (swing < high)) < 0.34
    for wanted in (12.0, 30.0, 60.0):
        drawn = np.ptp(_tangents([_drawn(seed, 0.0, wanted) for seed in range(60)], 0), axis=1)
        assert abs(drawn.mean() - wanted) < 3.0 and drawn.std() < 4.0


def test_length_and_places(shapes: list[SpineShape]) -> None:
    for shape in shapes:
        assert np.all(np.diff(shape.line[:, 2]) < 0)
        step = np.linalg.norm(np.diff(shape.line, axis=0), axis=1)
        assert step.min() > 0.9 and step.max() < 1.1
        top = shape.centre[FIRST_THORACIC] - shape.tangent[FIRST_THORACIC] * shape.height[FIRST_THORACIC] / 2
        bottom = shape.centre[LAST_LUMBAR] + shape.tangent[LAST_LUMBAR] * shape.height[LAST_LUMBAR] / 2
        assert np.abs((top + bottom) / 2).max() < 1.5
        inside = (shape.line[:, 2] <= top[2]) & (shape.line[:, 2] >= bottom[2])
        assert step[inside[1:]].sum() == pytest.approx(460, abs=3)
        assert len(shape.centre) == len(LEVELS)


def test_the_line_passes_through_the_centres_and_does_not_overshoot(shapes: list[SpineShape]) -> None:
    for shape in shapes[:100]:
        for axis in range(2):
            there = np.interp(-shape.centre[:, 2], -shape.line[:, 2], shape.line[:, axis])
            np.testing.assert_allclose(there, shape.centre[:, axis], atol=0.05)
        chord = np.degrees(np.arctan2(np.diff(shape.centre[:, 0]), -np.diff(shape.centre[:, 2])))
        line = np.degrees(np.arctan2(np.diff(shape.line[:, 0]), -np.diff(shape.line[:, 2])))
        assert line.max() < chord.max() + 6 and line.min() > chord.min() - 6


def test_the_same_build_is_posed_on_any_curve() -> None:
    build = draw_build(np.random.default_rng(3), 1.1)
    short, long = (draw_shape(np.random.default_rng(seed), mm, build, 0.0) for seed, mm in ((1, 430.0), (2, 470.0)))
    np.testing.assert_allclose(long.pitch / short.pitch, 470 / 430)
    np.testing.assert_allclose(long.pitch / long.pitch.sum(), build.pitch / build.pitch.sum())
    for shape in (short, long):
        assert shape.width is build.width and shape.depth is build.depth and shape.wear is build.wear


def test_frames_are_right_handed_and_follow_tangent_and_rotation(shapes: list[SpineShape]) -> None:
    axes = np.stack([s.axes for s in shapes])
    np.testing.assert_allclose(axes @ axes.transpose(0, 1, 3, 2), np.broadcast_to(np.eye(3), axes.shape), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(axes), 1)
    rotation = np.stack([s.rotation for s in shapes])
    # the front, -back, turns to the left where rotation is positive
    front_left = -axes[:, :, 1, 0]
    assert np.corrcoef(front_left.ravel(), rotation.ravel())[0, 1] > 0.95
    lean = np.degrees(np.arctan2(-axes[:, :, 2, 1], axes[:, :, 2, 2]))
    tangent = np.stack([s.tangent for s in shapes])
    apart = lean - np.degrees(np.arctan2(tangent[..., 1], -tangent[..., 2]))
    assert np.abs(apart.mean(axis=0)).max() < 0.4
    assert apart.std() == pytest.approx(1.5, abs=0.15)


@pytest.mark.slow
def test_vertebrae_turn_to_the_convex_side_in_proportion_to_the_curve() -> None:
    shapes = [_drawn(seed, 0.0, 45.0) for seed in range(600)]
    turned, thoracic, lumbar = [], [], []
    for shape in shapes:
        centre = shape.centre[TRUNK, 0]
        offset = centre - np.linspace(centre[0], centre[-1], len(centre))
        apex = int(np.argmax(np.abs(offset)))
        rotation = shape.rotation[FIRST_THORACIC + apex]
        # positive rotation faces the patient's left, where x grows
        turned.append(np.sign(offset[apex]) * rotation > 0)
        if apex not in (11, 12):
            (thoracic if apex < 11 else lumbar).append(np.sign(offset[apex]) * rotation / 45)
    assert np.mean(turned) > 0.85
    assert len(thoracic) > 40 and len(lumbar) > 40
    assert 0.2 < np.mean(thoracic) < 0.34
    assert 0.1 < np.mean(lumbar) < 0.23
