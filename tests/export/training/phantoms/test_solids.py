"""Closed-form line integrals against analytic values and against brute-force sampling."""

from __future__ import annotations

import numpy as np
import pytest

from export.training.phantoms.solids import SolidBuilder, Solids, areal_density, areal_density_torch, frame_along

PIXEL = (1.0, 1.0)
SHAPE = (61, 61)
CORNER = (30.0, -30.0)  # z, x of the top-left pixel: the origin is pixel (30, 30)


def _image(build: SolidBuilder) -> np.ndarray:
    return areal_density(build.build(), SHAPE, PIXEL, CORNER)


def _random_solids(seed: int, count: int) -> Solids:
    rng = np.random.default_rng(seed)
    build = SolidBuilder()
    for k in range(count):
        direction = rng.normal(size=3)
        axes = frame_along(direction / np.linalg.norm(direction))
        add = build.cylinder if k % 2 else build.ellipsoid
        add(rng.uniform(-12, 12, 3), rng.uniform(3, 15, 3), float(rng.uniform(0.2, 1.5)), axes)
    return build.build()


def _sampled(solids: Solids, step: float = 0.05) -> np.ndarray:
    """Brute force: sum density over small steps of y."""
    y = np.arange(-45, 45, step) + step / 2
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.zeros(SHAPE)
    for centre, axes, radii, cylinder, density in zip(
        solids.centre, solids.axes, solids.radii, solids.cylinder, solids.density, strict=True
    ):
        x, z = columns - 30.0 - centre[0], 30.0 - rows - centre[2]
        local = [
            (a[0] * x[..., None] + a[1] * (y - centre[1]) + a[2] * z[..., None]) / r
            for a, r in zip(axes, radii, strict=True)
        ]
        across = local[0] ** 2 + local[1] ** 2
        inside = (across <= 1) & (np.abs(local[2]) <= 1) if cylinder else across + local[2] ** 2 <= 1
        image += density * inside.sum(axis=-1) * step / 10
    return image


def test_sphere_has_its_chord_lengths() -> None:
    build = SolidBuilder()
    build.ellipsoid((0, 5, 0), (20, 20, 20), 0.5)
    image = _image(build)
    for away in (0, 7, 15):
        expected = 0.5 * 2 * np.sqrt(20**2 - away**2) / 10
        assert image[30, 30 + away] == pytest.approx(expected, rel=1e-4)
        assert image[30 - away, 30] == pytest.approx(expected, rel=1e-4)
    assert image[30, 51] == 0


def test_cylinder_seen_from_the_side_and_end_on() -> None:
    standing, lying = SolidBuilder(), SolidBuilder()
    standing.cylinder((0, 0, 0), (10, 6, 8), 1.0)
    lying.cylinder((0, 0, 0), (10, 6, 8), 1.0, frame_along(np.array([0.0, 1.0, 0.0])))
    side, end = _image(standing), _image(lying)
    assert side[30, 30] == pytest.approx(1.2, rel=1e-4)
    assert side[30 - 8, 30] > 0 and side[30 - 9, 30] == 0
    assert end[30, 30] == pytest.approx(1.6, rel=1e-3)
    assert end[30, 30 + 9] == pytest.approx(1.6, rel=1e-3)


@pytest.mark.slow
def test_tilted_solids_agree_with_sampling_along_the_ray() -> None:
    solids = _random_solids(3, 12)
    closed, sampled = areal_density(solids, SHAPE, PIXEL, CORNER), _sampled(solids)
    assert closed.max() > 2
    assert np.abs(closed - sampled).max() < 0.02


def test_parts_add_up_and_a_shell_takes_its_inside_away() -> None:
    one, two = _random_solids(1, 5), _random_solids(2, 5)
    both = Solids(*(np.concatenate([getattr(one, name), getattr(two, name)]) for name in one.__dataclass_fields__))
    images = [areal_density(solids, SHAPE, PIXEL, CORNER) for solids in (one, two, both)]
    np.testing.assert_allclose(images[0] + images[1], images[2], atol=1e-5)
    build = SolidBuilder()
    build.shell((0, 0, 0), (20, 20, 20), 2.0, 1.0, 0.1)
    assert _image(build)[30, 30] == pytest.approx((4 * 1.0 + 36 * 0.1) / 10, rel=1e-4)


def test_torch_gives_the_same_image() -> None:
    solids = _random_solids(4, 20)
    expected = areal_density(solids, SHAPE, PIXEL, CORNER)
    found = areal_density_torch(solids, SHAPE, PIXEL, CORNER, "cpu")
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_frame_is_orthonormal_and_right_handed() -> None:
    for direction in ([0, 0, 1], [0, 1, 0], [0, -1, 0], [0.6, 0.0, -0.8], [0.48, 0.6, 0.64]):
        axes = frame_along(np.array(direction, dtype=float))
        np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(axes) == pytest.approx(1)
        np.testing.assert_allclose(axes[2], direction)


def test_an_upright_tube_is_taller_than_thick_and_keeps_its_area() -> None:
    path = np.array([[-10.0, 0, 0], [0, 0, 0], [10, 0, 0]])
    flat, round_ = SolidBuilder(), SolidBuilder()
    flat.tube(path, 4.0, 1.0, 1.0, 0.0, upright=1.5)
    round_.tube(path, 4.0, 1.0, 1.0, 0.0)
    tall, plain = _image(flat), _image(round_)
    assert tall.sum() == pytest.approx(plain.sum(), rel=0.03)
    column = tall[:, 30]
    # 6 mm up, 8 / 3 mm along the beam
    assert column.max() == pytest.approx(2 * 4.0 / 1.5 / 10, rel=1e-4)
    assert np.flatnonzero(column > 0.01).tolist() == list(range(25, 36))
