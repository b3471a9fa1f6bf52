"""The centreline follows the column that an image shows, and stays the network's where it shows none."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_spine import SpineEstimator, estimator
from edge_spine.bundle import load_bundle
from edge_spine.errors import BundleError
from edge_spine.network import CURVE_ROWS
from edge_spine.preprocessing.crop import as_tensor
from edge_spine.refine import (
    INPUTS,
    LIMIT_PX,
    SAMPLED,
    TAPS,
    WIDTH_LIMIT_PX,
    WINDOW,
    Refinement,
    errors_px,
    mirrored,
    read_refinement,
    refined,
    scaled_profile,
    windows,
)
from edge_spine.scan import Scan
from tests.edge_spine.fake_bundle import fake_bundle, fake_output
from tests.edge_spine.fake_result import phantom_pixels

HALF_WIDTH = 8.0
T = (CURVE_ROWS - CURVE_ROWS[0]) / (CURVE_ROWS[-1] - CURVE_ROWS[0])
FIVE_HALF_WAVES = 2.0 * np.cos(5 * np.pi * T)


OFFSETS = np.arange(-TAPS, TAPS + 1) / 10


def border_reader(gain: float = 1.0) -> Refinement:
    """FAKE weights that read the two borders of a column in the middle row of a window, by hand.

    A border that lies outside of 1 half-width has more grey at 1 and less at 0.6 than one that lies on it.
    """
    outwards = np.exp(-(((abs(OFFSETS) - 1.0) / 0.12) ** 2) / 2) - np.exp(-(((abs(OFFSETS) - 0.6) / 0.12) ** 2) / 2)
    middle = len(WINDOW) // 2 * OFFSETS.size
    aside, wider = np.zeros((2, INPUTS))
    aside[middle : middle + OFFSETS.size] = 0.1 * gain * outwards * np.sign(OFFSETS)
    wider[middle : middle + OFFSETS.size] = 0.1 * gain * outwards
    # a linear unit is the difference of two rectified ones; half of an answer is the window's, half its mirror image's
    return Refinement(
        weight0=np.stack([aside, -aside, wider, -wider], axis=1).astype(np.float32),
        bias0=np.zeros(4, np.float32),
        weight1=np.eye(4, dtype=np.float32),
        bias1=np.zeros(4, np.float32),
        weight2=np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]], np.float32),
        bias2=np.array([0, 0.15 * gain], np.float32),
    )


def archive(refinement: Refinement, **changes: Any) -> bytes:
    """A refinement as an .npz file."""
    stream = io.BytesIO()
    arrays = {**vars(refinement), **changes}
    np.savez(stream, **{name: array for name, array in arrays.items() if array is not None})
    return stream.getvalue()


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
    moved = refined(as_tensor(crop), output, chosen or border_reader())
    return (moved.reshape(209, 6)[:, 1].astype(np.float64) - output.reshape(209, 6)[:, 1]) * 224


STRAIGHT = np.full(209, 112.0)


def test_a_wave_is_followed_from_a_straight_line() -> None:
    found = shift(column_image(112 + FIVE_HALF_WAVES), output_at(STRAIGHT))
    gain = float(found @ FIVE_HALF_WAVES) / float(FIVE_HALF_WAVES @ FIVE_HALF_WAVES)
    assert 0.9 < gain < 1.1
    assert np.abs(found - FIVE_HALF_WAVES).mean() < 0.3


def test_the_centre_and_its_borders_move_alike_and_the_sagittal_ones_stay() -> None:
    before = output_at(STRAIGHT).reshape(209, 6)
    after = refined(as_tensor(column_image(112 + FIVE_HALF_WAVES)), output_at(STRAIGHT), border_reader()).reshape(
        209, 6
    )
    assert after.dtype == np.float32
    moved = (after - before)[:, :3] * 224
    assert np.abs(moved[:, 1]).max() > 1
    np.testing.assert_allclose(moved[:, [0, 2]].mean(axis=1), moved[:, 1], atol=1e-3)
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
    fitted = load_bundle().refinement
    moved = np.abs(
        shift(crop, output_at(STRAIGHT), fitted) - shift(column_image(STRAIGHT), output_at(STRAIGHT), fitted)
    )
    assert moved.max() < 0.6
    # and a true shift beside it is still found
    assert shift(crop, output_at(STRAIGHT - 2), fitted).mean() == pytest.approx(2, abs=0.5)


def test_a_width_that_is_off_is_put_right() -> None:
    crop = column_image(STRAIGHT)
    for said in (HALF_WIDTH - 1.0, HALF_WIDTH + 1.5):
        _, lacking = errors_px(crop, STRAIGHT, np.full(209, said), border_reader())
        assert lacking.mean() == pytest.approx(HALF_WIDTH - said, abs=0.3)
    output = output_at(STRAIGHT).reshape(209, 6)
    output[:, 0] += 1 / 224
    output[:, 2] -= 1 / 224
    moved = (refined(as_tensor(crop), output.reshape(-1), border_reader()).reshape(209, 6) - output)[:, :3] * 224
    np.testing.assert_allclose(moved.mean(axis=0), [-1, 0, 1], atol=0.3)


def test_no_shift_exceeds_the_limit() -> None:
    greedy = border_reader(gain=8)
    found = shift(column_image(STRAIGHT + 5), output_at(STRAIGHT), greedy)
    assert LIMIT_PX - 1 < np.abs(found).max() < LIMIT_PX + 1e-3
    _, lacking = errors_px(column_image(STRAIGHT), STRAIGHT, np.full(209, 5.0), greedy)
    assert 1 < np.abs(lacking).max() < WIDTH_LIMIT_PX + 1e-3


def test_the_windows_of_a_mirrored_profile_are_the_mirrored_windows() -> None:
    profile = np.random.default_rng(0).normal(size=(SAMPLED.size, OFFSETS.size)).astype(np.float32)
    samples = np.array([0, 50, 104])
    cut = windows(profile, samples)
    assert cut.shape == (3, INPUTS)
    np.testing.assert_allclose(windows(profile[:, ::-1], samples), mirrored(cut), atol=1e-6)
    np.testing.assert_array_equal(mirrored(mirrored(cut)), cut)


def test_both_answers_are_those_of_a_window_and_of_its_mirror_image() -> None:
    fitted = load_bundle().refinement
    assert fitted is not None
    cut = np.random.default_rng(0).normal(size=(5, INPUTS)).astype(np.float32)
    answers = []
    for seen in (cut, mirrored(cut)):
        hidden = np.maximum(seen @ fitted.weight0 + fitted.bias0, 0)
        answers.append(np.maximum(hidden @ fitted.weight1 + fitted.bias1, 0) @ fitted.weight2 + fitted.bias2)
    aside, wider = fitted.read(cut)
    np.testing.assert_allclose(aside, answers[0][:, 0] - answers[1][:, 0], atol=1e-5)
    np.testing.assert_allclose(wider, answers[0][:, 1] + answers[1][:, 1], atol=1e-5)


def test_the_profile_of_a_tilted_column_is_that_along_its_normal() -> None:
    tilted = 80 + 0.4 * (CURVE_ROWS - CURVE_ROWS[0])
    profile, seen = scaled_profile(column_image(tilted), tilted[SAMPLED], np.full(SAMPLED.size, HALF_WIDTH))
    middle = profile[20:-20].mean(axis=0)
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
    found = refined(as_tensor(column_image(STRAIGHT)), output.reshape(-1), border_reader())
    np.testing.assert_array_equal(found, output.reshape(-1))


def test_all_rows_are_sampled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    remap = cv2.remap

    def counted(*arguments: Any, **more: Any) -> Any:
        shapes.append(arguments[1].shape)
        return remap(*arguments, **more)

    monkeypatch.setattr(cv2, "remap", counted)
    shift(column_image(STRAIGHT), output_at(STRAIGHT))
    assert 1 <= len(shapes) <= 3 and set(shapes) == {(SAMPLED.size, OFFSETS.size)}


# --- the file in the bundle


def test_weights_are_read_back() -> None:
    given = border_reader()
    for name, array in vars(read_refinement(archive(given))).items():
        np.testing.assert_array_equal(array, getattr(given, name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight1": None}, "weight1"),
        ({"weight0": np.zeros((INPUTS - 1, 4), np.float32)}, rf"weight0 is float32 \({INPUTS - 1}, 4\)"),
        ({"weight1": np.zeros((4, 5), np.float32)}, "weight1"),
        ({"bias2": np.zeros(3, np.float32)}, "bias2"),
        ({"bias0": np.zeros((4, 1), np.float32)}, "bias0"),
        ({"weight2": np.zeros((4, 2))}, "weight2 is float64"),
        ({"weight2": np.full((4, 2), np.nan, np.float32)}, "finite"),
        ({"weight2": np.array([object()])}, "weight2"),
    ],
)
def test_weights_that_are_wrong_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read_refinement(archive(border_reader(), **change))


def test_no_engine_is_opened_for_a_bundle_with_wrong_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimator, "open_engine", lambda *_, **__: pytest.fail("an engine was opened"))
    with pytest.raises(BundleError, match="refinement is no"):
        SpineEstimator("onnx-cpu", fake_bundle(tmp_path, refinement=b"no archive"), threads=1)


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive", archive(border_reader())[:-40]])
def test_a_file_that_is_no_archive_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match="refinement is no"):
        read_refinement(content)


def test_only_a_bundle_with_the_file_is_refined(tmp_path: Path) -> None:
    assert load_bundle(fake_bundle(tmp_path / "off")).refinement is None
    scan = Scan(phantom_pixels(), (2.427, 2.419), "FAKE.npy", None, ())
    results = []
    for folder in (fake_bundle(tmp_path / "off"), fake_bundle(tmp_path / "on", refinement=archive(border_reader()))):
        with SpineEstimator("onnx-cpu", folder, threads=1) as opened:
            results.append(opened(scan))
    off, on = results
    expected = refined(off.prepared.tensor, fake_output(), border_reader()) - fake_output()
    moved = on.curves.coronal - off.curves.coronal
    assert np.abs(moved).max() > 0.1
    wanted_mm = expected.reshape(209, 6)[:, :3] * 224 * off.prepared.model_pixel_mm
    np.testing.assert_allclose(moved, wanted_mm, atol=1e-3)
    np.testing.assert_array_equal(on.curves.sagittal, off.curves.sagittal)
