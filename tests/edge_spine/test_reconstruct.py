from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_spine.errors import Refusal
from edge_spine.network import CropPlacement
from edge_spine.reconstruct import Curves, Spine, curves_from_output, reconstruct

ROWS = 209
PITCH = 2.2
Z = -PITCH * np.arange(ROWS)


@dataclass(frozen=True)
class Placement(CropPlacement):
    model_pixel_mm: float = 2.2
    crop_origin_px: tuple[float, float] = (100.5, 40.25)
    pixel_spacing_mm: tuple[float, float] = (2.4, 2.0)


def tube(x: NDArray[np.float64], y: NDArray[np.float64], width: float = 36.0, depth: float = 28.0) -> Curves:
    return Curves(
        z=Z,
        coronal=np.stack([x - width / 2, x, x + width / 2], axis=1),
        sagittal=np.stack([y - depth / 2, y, y + depth / 2], axis=1),
    )


def signed_volume(vertices: NDArray[np.float64], faces: NDArray[np.int32]) -> float:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def s_curve() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return 25 * np.sin(2 * np.pi * Z / 300), 30 * np.cos(2 * np.pi * Z / 400)


# From the network's output to millimetres


def test_output_is_anchored_to_the_scan() -> None:
    output = np.full((ROWS, 6), 0.5)
    output[:, :3] = [0.4, 0.5, 0.6]
    curves = curves_from_output(output.ravel(), Placement())
    np.testing.assert_allclose(curves.coronal[0], 40.25 * 2.0 + np.array([0.4, 0.5, 0.6]) * 224 * 2.2)
    assert curves.z[0] == pytest.approx(-(100.5 * 2.4 + 7.5 * 2.2))
    assert curves.z[-1] == pytest.approx(-(100.5 * 2.4 + 215.5 * 2.2))


def test_y_is_relative_to_the_mean_of_the_centre_and_grows_to_posterior() -> None:
    output = np.full((ROWS, 6), 0.5)
    output[:, 4] += np.linspace(-0.1, 0.3, ROWS)
    output[:, 5] = output[:, 4] + 0.05
    sagittal = curves_from_output(output.ravel(), Placement()).sagittal
    assert sagittal[:, 1].mean() == pytest.approx(0.0, abs=1e-9)
    assert np.ptp(sagittal[:, 1]) == pytest.approx(0.4 * 224 * 2.2)
    np.testing.assert_allclose(sagittal[:, 2] - sagittal[:, 1], 0.05 * 224 * 2.2)


def test_float32_output_is_taken_row_by_row() -> None:
    output = np.arange(ROWS * 6, dtype=np.float32)
    curves = curves_from_output(output, Placement(model_pixel_mm=1 / 224, crop_origin_px=(0, 0)))
    np.testing.assert_allclose(curves.coronal[1], [6, 7, 8])
    np.testing.assert_allclose(np.diff(curves.sagittal, axis=1), 1.0)
    assert curves.coronal.dtype == np.float64


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_output_that_is_not_finite_is_refused(bad: float) -> None:
    output = np.full(ROWS * 6, 0.5)
    output[777] = bad
    with pytest.raises(Refusal) as refusal:
        curves_from_output(output, Placement())
    assert refusal.value.code == "implausible-curves"


def test_curves_between_other_heights_run_on_straight() -> None:
    z = -100 - 2.2 * np.arange(209.0)
    lean, bow = 0.2 * z, 30 * np.cos(np.pi * np.linspace(-1, 1, 209))
    curves = Curves(z, np.stack([lean - 18, lean, lean + 18], axis=1), np.stack([bow - 14, bow, bow + 14], axis=1))
    moved = curves.between(-95.0, -550.0)
    assert moved.z[0] == -95 and moved.z[-1] == -550 and len(moved.z) == 209
    np.testing.assert_allclose(moved.coronal[:, 1], 0.2 * moved.z, atol=1e-9)
    assert moved.sagittal[:, 1].mean() == pytest.approx(0, abs=1e-9)
    # the shape stays; only its mean is taken off again
    inner = slice(5, -5)
    shift = np.interp(-moved.z, -z, bow) - moved.sagittal[:, 1]
    assert np.ptp(shift[inner]) < 0.05
    np.testing.assert_allclose(moved.sagittal[:, 2] - moved.sagittal[:, 0], 28)


def test_output_of_another_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="1254"):
        curves_from_output(np.zeros(1200), Placement())


# From curves to a spine


def test_centres_and_half_axes_of_a_tube() -> None:
    x, y = s_curve()
    spine = reconstruct(tube(x, y))
    np.testing.assert_allclose(spine.centreline, np.stack([x, y, Z], axis=1), atol=0.03)
    np.testing.assert_allclose(spine.half_width, 18.0)
    np.testing.assert_allclose(spine.half_depth, 14.0)


def test_smoothing_takes_jitter_off_and_keeps_the_shape() -> None:
    rng = np.random.default_rng(1)
    x, y = s_curve()
    clean = tube(x, y)
    errors = []
    for _ in range(20):
        noisy = replace(clean, coronal=clean.coronal + rng.normal(0, 0.3, clean.coronal.shape))
        errors.append(reconstruct(noisy).centreline[:, 0] - x)
    spread = np.std(errors, axis=0)
    assert spread[5:-5].mean() < 0.15
    assert spread.max() < 0.35
    assert np.abs(np.mean(errors, axis=0)).max() < 0.3


def test_smoothing_keeps_the_waists_of_the_vertebrae() -> None:
    x = np.zeros(ROWS)
    curves = tube(x, x)
    waist = 1.0 * np.sin(2 * np.pi * Z / 34)  # an upper lumbar vertebra and its disc
    curves.coronal[:, 0] -= waist
    curves.coronal[:, 2] += waist
    assert np.abs(reconstruct(curves).half_width - (18 + waist)).max() < 0.1


def test_smoothing_leaves_cubics_alone_up_to_the_ends() -> None:
    u = Z / 200
    x = 5 + 20 * u - 8 * u**2 + 3 * u**3
    np.testing.assert_allclose(reconstruct(tube(x, x)).centreline[:, 0], x, atol=1e-9)


@pytest.mark.parametrize("name", ["coronal", "sagittal", "z"])
def test_curves_that_are_not_finite_are_refused(name: str) -> None:
    curves = tube(*s_curve())
    values = getattr(curves, name).copy()
    values.flat[50] = np.nan
    with pytest.raises(Refusal) as refusal:
        reconstruct(replace(curves, **{name: values}))
    assert refusal.value.code == "implausible-curves"


@pytest.mark.parametrize(("name", "what"), [("coronal", "width"), ("sagittal", "depth")])
def test_borders_that_touch_or_cross_are_refused(name: str, what: str) -> None:
    for gap in (0.0, -3.0):
        curves = tube(*s_curve())
        values = getattr(curves, name)
        values[120, 2] = values[120, 0] + gap
        with pytest.raises(Refusal, match=f"{what} is not positive in 1 of 209 rows .first: row 120") as refusal:
            reconstruct(curves)
        assert refusal.value.code == "implausible-curves"


def test_widths_that_only_smoothing_makes_negative_are_refused() -> None:
    curves = tube(np.zeros(ROWS), np.zeros(ROWS), width=0.01)
    curves.coronal[100, 2] += 500.0
    with pytest.raises(Refusal, match="width"):
        reconstruct(curves)


# Length and volume


def test_length_of_a_helix() -> None:
    radius, turn = 20.0, 300.0
    angle = 2 * np.pi * Z / turn
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    expected = np.hypot(1, 2 * np.pi * radius / turn) * (Z[0] - Z[-1])
    assert reconstruct(tube(x, y)).length_mm == pytest.approx(expected, rel=1e-3)


def test_volume_of_an_elliptical_cylinder_straight_or_bent() -> None:
    expected = np.pi * 18 * 14 * PITCH * (ROWS - 1) / 1000
    assert reconstruct(tube(np.zeros(ROWS), np.zeros(ROWS))).volume_ml == pytest.approx(expected)
    assert reconstruct(tube(*s_curve())).volume_ml == pytest.approx(expected)


def test_volume_of_a_cone_frustum_from_its_two_ends() -> None:
    spine = Spine(np.array([[0, 0, 0], [5, 7, -90.0]]), np.array([10.0, 20.0]), np.array([10.0, 20.0]))
    assert spine.volume_ml == pytest.approx(np.pi * 90 / 3 * (100 + 200 + 400) / 1000)


# Surface


@pytest.fixture
def bent() -> Spine:
    spine = reconstruct(tube(*s_curve()))
    return replace(spine, half_width=14 + 8 * np.linspace(0, 1, ROWS), half_depth=12 + np.cos(Z / 5))


def test_mesh_is_watertight_and_consistently_oriented(bent: Spine) -> None:
    vertices, faces = bent.mesh()
    edges = Counter((int(a), int(b)) for face in faces for a, b in zip(face, np.roll(face, -1), strict=True))
    assert set(edges.values()) == {1}
    assert all((b, a) in edges for a, b in edges)
    assert len(vertices) - len(edges) // 2 + len(faces) == 2  # Euler: one closed surface without handles
    assert set(np.unique(faces)) == set(range(len(vertices)))


def test_mesh_encloses_the_volume_and_faces_outward(bent: Spine) -> None:
    vertices, faces = bent.mesh()
    assert signed_volume(vertices, faces) / 1000 == pytest.approx(bent.volume_ml, rel=0.005)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normals, middles = np.cross(b - a, c - a), (a + b + c) / 3
    assert np.linalg.norm(normals, axis=1).min() > 0
    upward = bent.centreline[::-1]
    axis = np.stack([np.interp(middles[:, 2], upward[:, 2], upward[:, k]) for k in range(2)], axis=1)
    outward = np.einsum("ij,ij->i", normals[:, :2], middles[:, :2] - axis)
    side = np.ptp(np.stack([a[:, 2], b[:, 2], c[:, 2]]), axis=0) > 0
    assert np.all(outward[side] > 0)
    top = ~side & (middles[:, 2] == Z[0])
    assert top.sum() == (~side).sum() // 2
    assert np.all(normals[top, 2] > 0) and np.all(normals[~side & ~top, 2] < 0)


def test_mesh_rings_lie_on_the_ellipses(bent: Spine) -> None:
    vertices, _ = bent.mesh()
    rings = vertices[:-2].reshape(ROWS, -1, 3)
    assert 32 <= rings.shape[1] <= 48
    u = (rings[:, :, 0] - bent.centreline[:, :1]) / bent.half_width[:, np.newaxis]
    v = (rings[:, :, 1] - bent.centreline[:, 1:2]) / bent.half_depth[:, np.newaxis]
    np.testing.assert_allclose(u**2 + v**2, 1.0)
    assert np.all(rings[:, :, 2] == Z[:, np.newaxis])


def test_spine_checks_its_arrays() -> None:
    with pytest.raises(ValueError, match="do not match"):
        Spine(np.zeros((5, 3)), np.ones(5), np.ones(4))
    with pytest.raises(ValueError, match="decrease"):
        Spine(np.array([[0, 0, 0], [0, 0, 1.0]]), np.ones(2), np.ones(2))


def test_smoothing_is_a_cubic_in_every_window() -> None:
    curves = _curves_of_noise()
    smooth = reconstruct(curves).centreline[:, 0]
    place = np.arange(11.0)
    for row, window, within in ((0, 0, 0), (4, 0, 4), (5, 0, 5), (100, 95, 5), (203, 198, 5), (208, 198, 10)):
        cubic = np.polyfit(place, curves.coronal[window : window + 11, 1], 3)
        assert smooth[row] == pytest.approx(np.polyval(cubic, within), abs=1e-9)


def _curves_of_noise() -> Curves:
    noise = 0.3 * np.random.default_rng(1).standard_normal((209, 6))
    columns = noise + [80.0, 100.0, 120.0, -15.0, 0.0, 15.0]
    return Curves(z=-2.2 * np.arange(209.0), coronal=columns[:, :3], sagittal=columns[:, 3:])
