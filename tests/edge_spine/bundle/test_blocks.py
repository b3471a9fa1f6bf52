"""Blocks of a manifest: what is read from them, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_spine.bundle import load_bundle
from edge_spine.errors import BundleError
from tests.edge_spine.bundle.changing import ANGLES, fake_population, refusal, rewrite, with_population
from tests.edge_spine.fake_bundle import fake_bundle, fake_calibration


def test_bands_are_read_and_no_bundle_needs_them(folder: Path) -> None:
    assert load_bundle(folder).bands is None
    rewrite(folder, lambda m: m.update(bands=fake_calibration()))
    bands = load_bundle(folder).bands
    assert bands is not None
    assert bands.coronal.tolist() == [0.5] * 209 and bands.sagittal.tolist() == [1.5] * 208 + [3]
    straight, bent = bands.at(2.0, 0.0), bands.at(2.0, 30.0)
    assert set(straight.coronal.tolist()) == {1.0} and set(bent.coronal.tolist()) == {2.0}
    assert bent.sagittal[0] == pytest.approx(1.5 * 2 * 1.25) and bent.sagittal[-1] == pytest.approx(3 * 2 * 1.25)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nominal": 0.95}, "'nominal' must be 0.9"),
        ({"schema": "edge-spine/bands/3"}, "'schema' must be"),
        ({"sagittal_gain": 0.2}, "an object with"),
        ({"schema": "edge-spine/bands/2", "sagittal_gain": 1.0}, "'sagittal_gain' must be"),
        ({"schema": "edge-spine/bands/2", "sagittal_gain": True}, "'sagittal_gain' must be"),
        ({"schema": "edge-spine/bands/2", "sagittal_gain": "0.2"}, "'sagittal_gain' must be"),
        ({"schema": "edge-spine/bands/2", "more": 1}, "an object with"),
        ({"unit": "mm"}, "'unit' must be"),
        ({"coronal": [0.5] * 208}, "'coronal' must be 209 numbers"),
        ({"coronal": "0" * 209}, "'coronal' must be 209 numbers"),
        ({"sagittal": [0.5] * 208 + [0]}, "'sagittal' must be 209 numbers"),
        ({"sagittal": [-1.5] * 209}, "'sagittal' must be 209 numbers"),
        ({"sagittal": [True] * 209}, "'sagittal' must be 209 numbers"),
        ({"sagittal": [10**400] * 209}, "'sagittal' must be 209 numbers"),
        ({"sagittal": ["1"] * 209}, "'sagittal' must be 209 numbers"),
        ({"severity_deg": {"coronal": 30.0}}, "'severity_deg' must be an object"),
        ({"severity_deg": {"coronal": 30.0, "sagittal": 0}}, "'severity_deg' must be an object"),
        ({"count": 0}, "'count' must be"),
        ({"weights_sha256": " "}, "'weights_sha256' must be a text"),
        ({"note": "more"}, "an object with"),
    ],
)
def test_bands_that_are_wrong_are_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    rewrite(folder, lambda m: m.update(bands=fake_calibration(**change)))
    refused = refusal(folder)
    assert "'bands'" in refused and message in refused


def fake_angles(**changes: Any) -> dict[str, Any]:
    """FAKE errors of the angles as they lie in a file."""
    return {
        "schema": "edge-spine/angles/1",
        "nominal": 0.9,
        "cobb_from_deg": [0, 10, 25],
        "cobb_deg": [3.0, 4.0, 6.5],
        "kyphosis_deg": 9.0,
        "lordosis_deg": 10.0,
        "count": 100,
        "calibrated_on": "nothing: invented",
        "method": "none",
        "weights_sha256": "a" * 64,
        **changes,
    }


def test_errors_of_angles_are_read_and_no_bundle_needs_them(folder: Path) -> None:
    assert load_bundle(folder).angle_errors is None
    rewrite(folder, lambda m: m.update(angles=fake_angles()))
    errors = load_bundle(folder).angle_errors
    assert errors is not None and [errors.of_cobb(angle) for angle in (0, 10, 70)] == [3.0, 4.0, 6.5]
    assert (errors.kyphosis_deg, errors.lordosis_deg) == (9.0, 10.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "edge-spine/angles/2"}, "'schema' must be"),
        ({"nominal": 0.95}, "'nominal' must be 0.9"),
        ({"cobb_from_deg": [5, 10, 25]}, "'cobb_from_deg' must be"),
        ({"cobb_from_deg": [0, 25, 10]}, "'cobb_from_deg' must be"),
        ({"cobb_from_deg": [0, True, 25]}, "'cobb_from_deg' must be"),
        ({"cobb_from_deg": []}, "'cobb_from_deg' must be"),
        ({"cobb_from_deg": [0, "10", 25]}, "'cobb_from_deg' must be"),
        ({"cobb_deg": [3.0, 4.0]}, "same length"),
        ({"cobb_deg": [3.0, 4.0, 0]}, "'cobb_deg' must be"),
        ({"kyphosis_deg": -1}, "'kyphosis_deg' must be"),
        ({"lordosis_deg": "10"}, "'lordosis_deg' must be"),
        ({"note": "more"}, "an object with"),
    ],
)
def test_errors_of_angles_that_are_wrong_are_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    rewrite(folder, lambda m: m.update(angles=fake_angles(**change)))
    refused = refusal(folder)
    assert "'angles'" in refused and message in refused


@pytest.mark.parametrize("bands", [None, [], 1, {}])
def test_bands_must_be_an_object(folder: Path, bands: Any) -> None:
    rewrite(folder, lambda m: m.update(bands=bands))
    assert "'bands': an object" in refusal(folder)


def test_a_bundle_may_carry_a_range(tmp_path: Path) -> None:
    found = load_bundle(with_population(tmp_path / "with", fake_population())).population
    assert found is not None
    scaled = found.at(2.0)
    assert scaled.low.tolist() == [-20.0] * 209 and scaled.high.tolist() == [24.0] * 208 + [26.0]
    assert load_bundle(fake_bundle(tmp_path / "without")).population is None


def test_a_range_may_have_limits_of_the_angles(tmp_path: Path) -> None:
    found = load_bundle(with_population(tmp_path / "with", fake_population(**ANGLES))).population
    assert found is not None and found.at(2.0).kyphosis_deg == (10.5, 52.0) and found.lordosis_deg == (13.0, 68.0)
    old = load_bundle(with_population(tmp_path / "old", fake_population())).population
    assert old is not None and old.kyphosis_deg is None and old.lordosis_deg is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "edge-spine/population/3"}, "'schema' must be"),
        ({"schema": "edge-spine/population/2"}, "an object with"),
        ({"kyphosis_deg": [10, 50]}, "an object with"),
        ({**ANGLES, "kyphosis_deg": [10, 50, 60]}, "'kyphosis_deg' must be two angles"),
        ({**ANGLES, "lordosis_deg": [10, "50"]}, "'lordosis_deg' must be two angles"),
        ({**ANGLES, "lordosis_deg": [True, 50]}, "'lordosis_deg' must be two angles"),
        ({**ANGLES, "kyphosis_deg": [50, 10]}, "'kyphosis_deg' must be two angles"),
        ({**ANGLES, "angles_of": "guesses"}, "'angles_of' must be"),
        ({"share": 0.5}, "'share' must be"),
        ({"unit": "mm"}, "'unit' must be"),
        ({"low": [0.0] * 208}, "'low' must be 209 numbers"),
        ({"high": ["7"] * 209}, "'high' must be 209 numbers"),
        ({"high": [True] * 209}, "'high' must be 209 numbers"),
        ({"low": [12.5] * 209}, "below 'high'"),
        ({"count": 0}, "'count' must be"),
        ({"described": " "}, "'described' must be"),
        ({"more": 1}, "an object with"),
    ],
)
def test_a_range_that_is_wrong_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError) as caught:
        load_bundle(with_population(tmp_path / "model", fake_population(**change)))
    assert "'population'" in str(caught.value) and message in str(caught.value)
