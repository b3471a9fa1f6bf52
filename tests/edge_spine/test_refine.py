"""The centreline follows the column that an image shows, and stays the network's where it shows none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_spine import SpineEstimator
from edge_spine.bundle import load_bundle
from edge_spine.bundle.blocks import block_problem, parsed_refinement
from edge_spine.errors import BundleError
from edge_spine.network import CURVE_ROWS
from edge_spine.preprocessing.crop import as_tensor
from edge_spine.refine import (
    HALF_WAVES,
    LIMIT_PX,
    SCHEMA,
    TAPS,
    Refinement,
    errors_px,
    half_waves,
    refined,
    scaled_profile,
    seen_px,
)
from edge_spine.scan import Scan
from tests.edge_spine.fake_bundle import fake_bundle, fake_output
from tests.edge_spine.fake_result import phantom_pixels

HALF_WIDTH = 8.0
T = (CURVE_ROWS - CURVE_ROWS[0]) / (CURVE_ROWS[-1] - CURVE_ROWS[0])
FIVE_HALF_WAVES = 2.0 * np.cos(5 * np.pi * T)


# like those fitted on people: no short wave
FITTED_SHARES = [1.0] * 11 + [0.0] * 5


def block(**changes: Any) -> dict[str, Any]:
    """A refinement as it lies in a manifest, with a filter like those fitted on people."""
    offsets = np.arange(1, TAPS + 1) / 10
    bump = 0.15 * np.exp(-(((offsets - 1.0) / 0.12) ** 2) / 2) - 0.15 * np.exp(-(((offsets - 0.6) / 0.12) ** 2) / 2)
    return {
        "schema": SCHEMA,
        "filters": [bump.tolist()] * 3,
        "smoothness": 100,
        "outlier": 0.2,
        "shares": FITTED_SHARES,
        "width_share": 0.0,
        "width_offsets": [0.0] * 3,
        **changes,
    }


def refinement(**changes: Any) -> Refinement:
    assert block_problem("refine", block(**changes)) is None
    return parsed_refinement(block(**changes))


def column_image(centre: NDArray[np.float64], level: float = 0.5, background: float = 0.2) -> NDArray[np.float32]:
    """A crop (224, 224) with a blurred bright column about `centre` (209,), crop pixels."""
    every = np.interp(np.arange(224), CURVE_ROWS, centre)[:, np.newaxis]
    distance = np.abs(np.arange(224) - every)
    crop = background + (level - background) / (1 + np.exp((distance - HALF_WIDTH) / 0.7))
    return crop.astype(np.float32)


def output_at(centre: NDArray[np.float64]) -> NDArray[np.float32]:
    """A network's output (1254,) with this coronal centreline, crop pixels."""
    output = fake_output().reshape(209, 6).copy()
    for column, side in enumerate((-1, 0, 1)):
        output[:, column] = (centre + side * HALF_WIDTH) / 224
    return output.reshape(-1)


def shift(crop: NDArray[np.float32], output: NDArray[np.float32], chosen: Refinement | None = None) -> Any:
    """Shift (209,) of the centre, crop pixels."""
    moved = refined(as_tensor(crop), output, chosen or refinement())
    return (moved.reshape(209, 6)[:, 1].astype(np.float64) - output.reshape(209, 6)[:, 1]) * 224


STRAIGHT = np.full(209, 112.0)


def test_a_wave_is_followed_from_a_straight_line() -> None:
    found = shift(column_image(112 + FIVE_HALF_WAVES), output_at(STRAIGHT))
    gain = float(found @ FIVE_HALF_WAVES) / float(FIVE_HALF_WAVES @ FIVE_HALF_WAVES)
    assert 0.9 < gain < 1.1
    assert np.abs(found - FIVE_HALF_WAVES).mean() < 0.3


def test_the_three_coronal_columns_move_alike_and_the_sagittal_ones_stay() -> None:
    before = output_at(STRAIGHT).reshape(209, 6)
    after = refined(as_tensor(column_image(112 + FIVE_HALF_WAVES)), output_at(STRAIGHT), refinement()).reshape(209, 6)
    assert after.dtype == np.float32
    moved = after[:, :3] - before[:, :3]
    assert np.abs(moved).max() > 0.005
    np.testing.assert_allclose(moved, np.repeat(moved[:, 1:2], 3, axis=1), atol=2e-7)
    np.testing.assert_array_equal(after[:, 3:], before[:, 3:])


def test_a_column_where_the_network_put_it_stays() -> None:
    assert np.abs(shift(column_image(112 + FIVE_HALF_WAVES), output_at(112 + FIVE_HALF_WAVES))).max() < 0.05


def test_the_width_of_the_column_moves_nothing() -> None:
    wide = output_at(STRAIGHT).reshape(209, 6)
    wide[:, 0] -= 1.5 / 224
    wide[:, 2] += 1.5 / 224
    assert np.abs(shift(column_image(STRAIGHT), wide.reshape(-1))).max() < 0.05


@pytest.mark.parametrize("kind", ["blank", "noise", "dark column"])
def test_without_a_column_the_network_is_believed(kind: str) -> None:
    crop = np.full((224, 224), 0.3, np.float32)
    if kind == "noise":
        crop += np.random.default_rng(0).normal(0, 0.05, crop.shape).astype(np.float32)
    elif kind == "dark column":
        crop = column_image(112 + FIVE_HALF_WAVES, level=0.2, background=0.5)
    assert np.abs(shift(crop, output_at(STRAIGHT))).max() < 0.02


def test_left_and_right_are_treated_alike() -> None:
    rng = np.random.default_rng(1)
    crop = column_image(110 + FIVE_HALF_WAVES)
    crop += cv2.GaussianBlur(rng.normal(0, 0.3, crop.shape).astype(np.float32), (0, 0), 2)
    crop[60:64, 118:150] = 1.0
    output = output_at(110 + 0.5 * FIVE_HALF_WAVES + 2 * T)
    turned = output.reshape(209, 6).copy()
    turned[:, :3] = 223 / 224 - turned[:, 2::-1]
    found = shift(crop, output)
    assert np.abs(found).max() > 1
    np.testing.assert_allclose(shift(crop[:, ::-1], turned.reshape(-1)), -found, atol=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_a_small_change_of_the_input_is_a_small_change_of_the_result(seed: int) -> None:
    rng = np.random.default_rng(seed)
    crop = column_image(112 + FIVE_HALF_WAVES)
    crop += cv2.GaussianBlur(rng.normal(0, 0.4, crop.shape).astype(np.float32), (0, 0), 2)
    crop[60:64, 118:150] = 1.0
    output = output_at(STRAIGHT)
    found = shift(crop, output)
    other = crop + rng.normal(0, 1e-4, crop.shape).astype(np.float32)
    np.testing.assert_allclose(shift(other, output), found, atol=0.02)
    # what two engines differ by
    near = (output + rng.normal(0, 0.02 / 224, output.size)).astype(np.float32)
    end = (near.reshape(209, 6)[:, 1] - output.reshape(209, 6)[:, 1]) * 224 + shift(crop, near)
    assert np.abs(end - found).max() < 0.1 and np.abs(end - found).mean() < 0.025
    np.testing.assert_array_equal(shift(crop, output), found)


@pytest.mark.parametrize("kind", ["ribs", "processes", "metal", "clavicle"])
def test_what_lies_beside_the_column_hardly_moves_it(kind: str) -> None:
    crop = column_image(STRAIGHT)
    if kind == "ribs":
        for row in range(30, 130, 11):
            crop[row : row + 3, 119:170] = 0.45
    elif kind == "processes":
        for row in range(140, 210, 16):
            crop[row : row + 4, 119:130] = 0.4
    elif kind == "metal":
        crop[90:100, 119:127] = 1.0
    else:
        cv2.line(crop, (60, 20), (118, 48), 0.6, 5)
    crop = cv2.GaussianBlur(crop, (0, 0), 0.8)
    found, trusting = (
        np.abs(shift(crop, output_at(STRAIGHT), refinement(smoothness=1000, outlier=outlier))).max()
        for outlier in (0.2, 100)
    )
    assert found < (0.7 if kind == "metal" else 0.35)
    if kind == "metal":
        # the other border outvotes it only with weights
        assert found < 0.6 * trusting
    # and a true shift beside it is still found
    assert shift(crop, output_at(STRAIGHT - 2)).mean() == pytest.approx(2, abs=0.3)


def test_of_each_half_wave_its_share_is_kept() -> None:
    crop = column_image(112 + FIVE_HALF_WAVES)
    shares = [1.0] * HALF_WAVES
    whole = shift(crop, output_at(STRAIGHT), refinement(shares=shares)) @ half_waves()
    shares[5] = 0.25
    kept = shift(crop, output_at(STRAIGHT), refinement(shares=shares)) @ half_waves()
    assert abs(whole[5]) > 15
    assert kept[5] == pytest.approx(0.25 * whole[5], rel=0.02)
    nothing = shift(crop, output_at(STRAIGHT), refinement(shares=[0.0] * HALF_WAVES))
    assert np.abs(nothing).max() < 1e-4


def test_the_width_follows_its_line() -> None:
    crop, narrow, right, wide = column_image(STRAIGHT), *(np.full(209, HALF_WIDTH + d) for d in (-1.0, 0.0, 1.5))
    told = [seen_px(crop, STRAIGHT, half_width, refinement())[1].mean() for half_width in (narrow, right, wide)]
    assert told[0] > told[1] + 0.4 > told[2] + 0.8
    line = refinement(width_share=0.4, width_offsets=[0.02, 0.02, 0.02])
    _, lacking = errors_px(crop, STRAIGHT, right, line)
    assert lacking.mean() == pytest.approx(0.4 * told[1] + 0.02 * HALF_WIDTH, abs=0.02)
    output = output_at(STRAIGHT)
    borders = (refined(as_tensor(crop), output, line) - output).reshape(209, 6)[:, :3] * 224
    np.testing.assert_allclose(borders[:, 2] - borders[:, 1], lacking, atol=1e-3)
    np.testing.assert_allclose(borders[:, 1] - borders[:, 0], lacking, atol=1e-3)


def test_no_shift_exceeds_the_limit() -> None:
    # a filter that asks for far too much
    filters = [[4 * value for value in values] for values in block()["filters"]]
    found = shift(column_image(STRAIGHT + 5), output_at(STRAIGHT), refinement(filters=filters, outlier=100))
    assert LIMIT_PX - 1 < np.abs(found).max() < LIMIT_PX + 1e-3


def test_the_profile_of_a_tilted_column_is_that_along_its_normal() -> None:
    tilted = 80 + 0.4 * (CURVE_ROWS - CURVE_ROWS[0])
    profile, seen = scaled_profile(column_image(tilted), tilted, np.full(209, HALF_WIDTH))
    middle = profile[40:-40].mean(axis=0)
    offsets = np.arange(-TAPS, TAPS + 1) / 10
    np.testing.assert_allclose(middle[np.isclose(np.abs(offsets), 1)], 0.5, atol=0.05)
    assert middle[np.abs(offsets) < 0.75].min() > 0.9 and middle[np.abs(offsets) > 1.25].max() < 0.1
    assert seen.min() > 0.7


@pytest.mark.parametrize("wrong", ["not finite", "crossed", "far outside"])
def test_an_output_that_is_no_spine_is_given_back(wrong: str) -> None:
    output = output_at(STRAIGHT).reshape(209, 6)
    if wrong == "not finite":
        output[7, 3] = np.nan
    elif wrong == "crossed":
        output[:, :3] = output[:, 2::-1].copy()
    else:
        output[:, :3] += 1e6
    found = refined(as_tensor(column_image(STRAIGHT)), output.reshape(-1), refinement())
    np.testing.assert_array_equal(found, output.reshape(-1))


def test_all_rows_are_sampled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    remap = cv2.remap

    def counted(*arguments: Any, **more: Any) -> Any:
        shapes.append(arguments[1].shape)
        return remap(*arguments, **more)

    monkeypatch.setattr(cv2, "remap", counted)
    shift(column_image(STRAIGHT), output_at(STRAIGHT))
    assert 1 <= len(shapes) <= 3 and set(shapes) == {(209, 2 * TAPS + 1)}


# --- the switch in the bundle


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "edge-spine/refine/2"}, "'schema' must be"),
        ({"filters": [[0.0] * TAPS] * 2}, "'filters' must be 3 lists"),
        ({"filters": [[0.0] * 23] * 3}, "24 numbers"),
        ({"filters": [[True] * TAPS] * 3}, "24 numbers"),
        ({"filters": [[float("nan")] * TAPS] * 3}, "24 numbers"),
        ({"smoothness": -1}, "'smoothness' must be"),
        ({"outlier": 0}, "'outlier' must be"),
        ({"shares": [1.0] * 3}, "'shares' must be"),
        ({"shares": [2.0] * HALF_WAVES}, "'shares' must be"),
        ({"width_share": 1.5}, "'width_share' must be"),
        ({"width_offsets": [0.0]}, "'width_offsets' must be"),
        ({"more": 1}, "an object with"),
    ],
)
def test_a_block_that_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    problem = block_problem("refine", block(**change))
    assert problem is not None and message in problem


@pytest.mark.parametrize("wrong", [None, [], {}])
def test_a_bundle_with_a_wrong_block_is_refused(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(BundleError, match="'refine': an object"):
        load_bundle(fake_bundle(tmp_path, refine=wrong))


def test_only_a_bundle_with_the_block_is_refined(tmp_path: Path) -> None:
    assert load_bundle(fake_bundle(tmp_path / "off")).refinement is None
    scan = Scan(phantom_pixels(), (2.427, 2.419), "FAKE.npy", None, ())
    results = []
    for folder in (fake_bundle(tmp_path / "off"), fake_bundle(tmp_path / "on", refine=block())):
        with SpineEstimator("onnx-cpu", folder, threads=1) as estimator:
            results.append(estimator(scan))
    off, on = results
    expected = refined(off.prepared.tensor, fake_output(), refinement()).reshape(209, 6) - fake_output().reshape(209, 6)
    moved = on.curves.coronal - off.curves.coronal
    assert np.abs(moved).max() > 0.1
    np.testing.assert_allclose(moved, expected[:, :3] * 224 * off.prepared.model_pixel_mm, atol=1e-3)
    np.testing.assert_array_equal(on.curves.sagittal, off.curves.sagittal)
