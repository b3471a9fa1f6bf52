"""Panels show what a result holds, where their views say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_spine.bundle.bands import PopulationRange
from edge_spine.outputs import preview_png
from edge_spine.outputs.drawing import palette, panels
from edge_spine.outputs.drawing.canvas import Box, MillimetreView
from tests.edge_spine.fake_result import fake_bands, fake_curves, fake_result


def test_the_side_view_shows_the_range_and_says_what_it_is() -> None:
    usual = PopulationRange(np.full(209, -45.0), np.full(209, 45.0))
    plain, shown = preview_png.draw(fake_result()), preview_png.draw(fake_result(population=usual))
    assert "centre of 9 in 10 training spines" in [text for text, _ in shown.texts]
    assert "centre of 9 in 10 training spines" not in [text for text, _ in plain.texts]
    box = panels.picture_box(preview_png.PAGE.cards()[2])
    shades = np.abs(shown.image[box.y : box.bottom, box.x : box.right].astype(int) - palette.POPULATION[::-1])
    assert (shades.max(axis=-1) < 8).mean() > 0.1
    beside = np.s_[: box.bottom, : box.x]
    np.testing.assert_array_equal(shown.image[beside], plain.image[beside])


@pytest.mark.parametrize("spacing", [(2.4, 2.4), (13.0, 4.0), (0.6, 0.5)])
def test_a_point_of_the_scan_is_shown_where_the_view_says(spacing: tuple[float, float]) -> None:
    shape = (round(1900 / spacing[0]), round(640 / spacing[1]))
    row_mm, column_mm = np.mgrid[0 : shape[0], 0 : shape[1]] * np.array(spacing)[:, np.newaxis, np.newaxis]
    bell = np.exp(-(((row_mm - 600) / 25) ** 2) - ((column_mm - 310) / 12) ** 2).astype(np.float32)
    view = MillimetreView(Box(10, 20, 300, 700), left_mm=220.0, top_mm=-380.0, px_per_mm=1.5)
    shown = panels.picture(view, bell, spacing, 0.0, 1.0).astype(np.float64)
    rows, columns = np.mgrid[0 : shown.shape[0], 0 : shown.shape[1]] + 0.5
    centre = ((columns * shown).sum() / shown.sum() + 10, (rows * shown).sum() / shown.sum() + 20)
    np.testing.assert_allclose(centre, view.points(310.0, -600.0)[0], atol=0.35)


def test_the_centre_curve_is_drawn_on_the_coronal_view() -> None:
    result = fake_result(curves=fake_curves(lateral_mm=0.0))
    canvas = preview_png.draw(result)
    view = panels.shared_view(result, preview_png.PAGE.cards())
    for row in (30, 100, 180):
        x, y = view.points(result.curves.coronal[row, 1], result.curves.z[row])[0]
        drawn = canvas.image[int(y), int(x)][::-1].astype(int)
        assert np.abs(drawn - palette.YELLOW).max() < 40


def test_the_band_is_drawn_around_the_sagittal_centre_and_named() -> None:
    result = fake_result(band_90=fake_bands(sagittal_mm=6.0))
    canvas, plain = preview_png.draw(result), preview_png.draw(replace(result, band_90=None))
    texts = [text for text, _ in canvas.texts]
    assert "90 % band: 1.5 mm either side" in texts and "90 % band: 7.6 mm either side" in texts
    assert not any("band" in text for text, _ in plain.texts)
    cards = preview_png.PAGE.cards()
    shared, box = panels.shared_view(result, cards), panels.picture_box(cards[2])
    across, half = result.curves.sagittal, result.band_90.sagittal
    middle = float(across.max() + across.min()) / 2
    view = MillimetreView(box, middle - box.width / shared.px_per_mm / 2, shared.top_mm, shared.px_per_mm)
    for row in (20, 100, 180):
        for share, drawn in ((-0.8, True), (0.8, True), (-1.25, False), (1.25, False)):
            x, y = view.points(across[row, 1] + share * half[row], result.curves.z[row])[0]
            found = canvas.image[int(y), int(x)].astype(int)
            without = plain.image[int(y), int(x)].astype(int)
            assert (np.abs(found - without).max() > 20) == drawn, (row, share)


@pytest.mark.parametrize("lateral_mm", [14.0, 60.0], ids=["usual", "severe"])
def test_the_surface_views_show_the_whole_spine(lateral_mm: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for mark in ("names", "scale_bar", "corner_letters"):
        monkeypatch.setattr(panels, mark, lambda *_: None)
    canvas = preview_png.draw(fake_result(curves=fake_curves(lateral_mm=lateral_mm)))
    box = panels.picture_box(preview_png.PAGE.cards()[3])
    shown = canvas.image[box.y : box.bottom, box.x : box.right].max(axis=2) > 20
    width = box.width // 2
    for view in (shown[:, :width], shown[:, width : 2 * width]):
        assert view[:, 10:-10].any()
        assert not view[:, :2].any()
        assert not view[:, -2:].any()
        assert not view[:2].any()
