from __future__ import annotations

import numpy as np
import pytest

from export.studies.contrast import PARTS, ROWS, contrast, steepest_edges, straighten

OFFSET = np.arange(-90, 91)


def _constructed(wave: float, strip: float, rib: float) -> tuple[np.ndarray, np.ndarray]:
    """A straightened spine: brightness 0.6 over a background of 0.2, half width 15 mm, waves of 20 mm along it."""
    z = np.arange(440)
    ripple = np.sqrt(2) * np.sin(2 * np.pi * z / 20)[:, None]
    away = np.abs(OFFSET)[None, :]
    image = np.full((len(z), len(OFFSET)), 0.2)
    image = np.where(away <= 15, 0.6 + 0.4 * wave * ripple, image)
    image = np.where((away > 15) & (away <= 28), 0.2 + 0.4 * strip, image)
    image = np.where((away >= 35) & (away <= 57), 0.2 + 0.4 * rib * ripple, image)
    return image, z / (len(z) - 1)


def test_contrast_finds_the_modulation_that_was_put_in() -> None:
    image, share = _constructed(wave=0.15, strip=0.3, rib=0.25)
    # the background beyond the strip is counted from 18 to 32 mm outside the border
    found = contrast(image, np.full((len(image), 2), 15.0), share)
    assert set(found) == {f"{row}, {part}" for row in ROWS for part in PARTS} - {f"{ROWS[2]}, L1-L5"}
    for part in PARTS:
        # a Gaussian mean of 18 mm takes nothing off a wave of 20 mm
        assert found[f"{ROWS[0]}, {part}"] == pytest.approx(0.15, rel=0.04)
        assert found[f"{ROWS[1]}, {part}"] == pytest.approx(0.3, rel=0.04)
    for part in ("T1-T5", "T6-T12"):
        assert found[f"{ROWS[2]}, {part}"] == pytest.approx(0.25, rel=0.04)


def test_contrast_ignores_slow_changes_and_scales_with_the_level() -> None:
    image, share = _constructed(wave=0.15, strip=0.3, rib=0.25)
    edges = np.full((len(image), 2), 15.0)
    plain = contrast(image, edges, share)
    sloped = contrast(image + 0.3 * share[:, None], edges, share)
    brighter = contrast(3 * image + 1, edges, share)
    for key, value in plain.items():
        assert brighter[key] == pytest.approx(value, rel=1e-6)
    assert sloped["in-spine modulation, T6-T12"] == pytest.approx(plain["in-spine modulation, T6-T12"], rel=0.03)
    # parts are told apart
    calm = image.copy()
    calm[share > 0.62] = np.where(np.abs(OFFSET) <= 15, 0.6, 0.2)
    found = contrast(calm, edges, share)
    assert found["in-spine modulation, T1-T5"] == pytest.approx(0.15, rel=0.04)
    assert found["in-spine modulation, L1-L5"] < 0.02 and found["strip over level, L1-L5"] == pytest.approx(0, abs=0.01)


def test_borders_lie_at_the_steepest_edge_of_each_side() -> None:
    z = np.arange(300)
    left = 17 + z / 100
    image = np.where((OFFSET[None, :] > -14.5) & (OFFSET[None, :] < left[:, None]), 1.0, 0.2)
    found = steepest_edges(image, np.full(len(z), 16.0))
    np.testing.assert_allclose(found[20:-20, 0], 14.5, atol=1.0)
    np.testing.assert_allclose(found[20:-20, 1], left[20:-20], atol=1.2)


def test_straightening_follows_a_line_at_one_millimetre() -> None:
    pixel = 2.0
    rows, columns = np.mgrid[:200, :200].astype(np.float64)
    middle = 100 + 12 * np.sin(rows / 40)
    image = np.exp(-(((columns - middle) / 3) ** 2) / 2).astype(np.float32)
    row = np.arange(10.0, 190.0)
    straight = straighten(image, np.stack([row, 100 + 12 * np.sin(row / 40)], axis=1), pixel)
    arc = pixel * np.sum(np.hypot(1, 12 / 40 * np.cos(row / 40)))
    assert straight.shape[1] == 181 and abs(len(straight) - arc) < 5
    inner = straight[10:-10]
    np.testing.assert_allclose(inner.argmax(axis=1), 90, atol=1)
    # 6 mm from the middle lies one spread of the bright line
    np.testing.assert_allclose(inner[:, 96], np.exp(-0.5), atol=0.05)
    # columns grow to the same side as the image's
    slope = straighten((columns / 200).astype(np.float32), np.stack([row, np.full(180, 100.0)], axis=1), pixel)
    assert slope[50, 100] - slope[50, 90] == pytest.approx(10 / pixel / 200, rel=1e-3)
