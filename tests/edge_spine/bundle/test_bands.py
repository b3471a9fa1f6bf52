from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_spine.bundle import load_bundle
from edge_spine.bundle.bands import PopulationRange
from edge_spine.bundle.blocks import parsed_population
from edge_spine.bundle.load import manifest_bytes
from edge_spine.errors import BundleError
from edge_spine.outputs import preview_png
from edge_spine.outputs.drawing import palette, panels
from tests.edge_spine.fake_bundle import fake_bundle
from tests.edge_spine.fake_result import fake_result

# what the schema "edge-spine/population/2" adds
ANGLES: dict[str, Any] = {
    "schema": "edge-spine/population/2",
    "kyphosis_deg": [10.5, 52.0],
    "lordosis_deg": [13, 68.0],
    "angles_of": "true curves",
}


def fake_population(**changes: Any) -> dict[str, Any]:
    return {
        "schema": "edge-spine/population/1",
        "share": 0.9,
        "unit": "crop pixels",
        "low": [-10.0] * 209,
        "high": [12.0] * 208 + [13],
        "count": 7,
        "described": "nothing: invented",
        **changes,
    }


def with_population(folder: Path, population: object) -> Path:
    made = fake_bundle(folder, population=population)
    manifest = json.loads((made / "manifest.json").read_bytes())
    (made / "manifest.json").write_bytes(manifest_bytes(manifest))
    return made


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
    ("kyphosis", "lordosis", "atypical"),
    [(30, 40, False), (10.5, 68, False), (10.4, 40, True), (52.1, 40, True), (30, 12.9, True), (30, 68.1, True)],
)
def test_a_side_view_outside_the_limits_is_atypical(kyphosis: float, lordosis: float, atypical: bool) -> None:
    found = replace(fake_result().measurements, kyphosis_t4_t12_deg=float(kyphosis), lordosis_l1_l5_deg=float(lordosis))
    assert parsed_population(fake_population(**ANGLES)).is_atypical(found) is atypical
    assert not parsed_population(fake_population()).is_atypical(found)


def test_the_packaged_bundle_carries_one() -> None:
    found = load_bundle().population
    assert found is not None
    # 90 % of supine adults: centimetres, and widest where the spine sways most
    width = (found.high - found.low) * 2.2
    assert width.min() > 10 and width.max() < 100
    assert (found.low < 0).any() and (found.high > 0).any()


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


def test_the_side_view_shows_the_range_and_says_what_it_is() -> None:
    usual = PopulationRange(np.full(209, -45.0), np.full(209, 45.0))
    plain, shown = preview_png.draw(fake_result()), preview_png.draw(fake_result(population=usual))
    assert "grey: 90 % of the phantoms" in [text for text, _ in shown.texts]
    assert "grey: 90 % of the phantoms" not in [text for text, _ in plain.texts]
    box = panels.picture_box(preview_png.PAGE.cards()[2])
    part = shown.image[box.y : box.bottom, box.x : box.right]
    grey = (part == np.array(palette.POPULATION[::-1])).all(axis=-1)
    assert grey.sum() > 0.1 * grey.size
    outside = np.ones(plain.image.shape[:2], bool)
    outside[box.y : box.bottom, box.x : box.right] = False
    np.testing.assert_array_equal(shown.image[outside], plain.image[outside])
