"""The scene of the 3D viewer: surface, curves, lines of the Cobb angle and the plane of the scan."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from edge_spine.outputs import preview_png
from edge_spine.outputs.report.scene import PLANE_BEHIND_MM, scene
from edge_spine.vertebrae import LEVELS
from tests.edge_spine.fake_result import fake_curves, fake_pixels, fake_result
from tests.edge_spine.outputs.report.packed import unpacked


def test_the_curves_lie_in_lps() -> None:
    result = fake_result()
    curves = [(curve["part"], unpacked(curve["points"], "<f4")) for curve in scene(result)["curves"]]
    right, left, anterior, posterior, centre = (points for _, points in curves)
    assert [part for part, _ in curves] == ["borders"] * 4 + ["centreline"]
    np.testing.assert_allclose(centre, result.spine.centreline, atol=1e-4)
    np.testing.assert_allclose(right[:, 0], result.curves.coronal[:, 0], atol=1e-4)
    assert (right[:, 0] < centre[:, 0]).all() and (centre[:, 0] < left[:, 0]).all()
    assert (anterior[:, 1] < centre[:, 1]).all() and (centre[:, 1] < posterior[:, 1]).all()
    assert centre[0, 2] > centre[-1, 2]


def test_the_lines_of_the_cobb_angle_are_those_of_the_preview() -> None:
    result = fake_result()
    data = scene(result)
    drawn = [text for text, _ in preview_png.draw(result).texts]
    assert data["ends"] and data["apexes"]
    for apex in data["apexes"]:
        assert apex["text"] in drawn
    # the ladders of three views name every vertebra once
    named = Counter(text for text in drawn if text in LEVELS) - Counter(LEVELS * 3)
    assert Counter(end["level"] for end in data["ends"]) == named
    straight = scene(fake_result(curves=fake_curves(lateral_mm=0.0)))
    assert straight["ends"] == straight["apexes"] == []


def test_the_lines_at_the_ends_of_the_largest_curve_differ_by_its_angle() -> None:
    result = fake_result()
    largest = result.measurements.scoliosis_curves[0]
    tilts = []
    for end in scene(result)["ends"][:2]:
        (x0, y0, z0), (x1, y1, z1) = unpacked(end["points"], "<f4").tolist()
        assert y0 == y1
        tilts.append(np.degrees(np.arctan((z1 - z0) / (x1 - x0))))
    assert abs(tilts[0] - tilts[1]) == pytest.approx(largest.cobb_deg, abs=0.01)


@pytest.mark.parametrize("spacing", [(2.427, 2.419), (13.0, 6.0)])
def test_the_plane_lies_behind_the_spine_where_the_scan_was(spacing: tuple[float, float]) -> None:
    shape = (791, 272) if spacing[0] < 10 else (150, 109)
    result = fake_result(pixels=fake_pixels(*shape), pixel_spacing_mm=spacing)
    plane = scene(result)["plane"]
    # Column 0 has its centre at x = 0, row 0 at z = 0.
    assert plane["left"] + spacing[1] / 2 == pytest.approx(0, abs=1e-3)
    assert plane["top"] - spacing[0] / 2 == pytest.approx(0, abs=1e-3)
    assert plane["right"] - plane["left"] == pytest.approx(shape[1] * spacing[1], abs=2e-3)
    assert plane["top"] - plane["bottom"] == pytest.approx(shape[0] * spacing[0], abs=2e-3)
    assert plane["y"] - result.spine.mesh()[0][:, 1].max() == pytest.approx(PLANE_BEHIND_MM, abs=0.1)


def test_levels_are_at_their_body_centres() -> None:
    result = fake_result()
    levels = scene(result)["levels"]
    assert [level["level"] for level in levels] == list(LEVELS)
    np.testing.assert_allclose([level["at"][2] for level in levels], result.levels.z, atol=0.01)
