from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edge_spine.outputs import preview_png
from edge_spine.outputs.drawing import palette, panels
from edge_spine.outputs.drawing.canvas import Box, MillimetreView
from edge_spine.outputs.registry import FORMATS
from tests.edge_spine.fake_result import fake_bands, fake_curves, fake_pixels, fake_result

_BUSY = SimpleNamespace(accepted=False, flags=tuple(f"a-rather-long-name-of-a-flag-number-{n}" for n in range(9)))
PREVIEWS = {
    "usual": {},
    "straight": {"curves": fake_curves(lateral_mm=0.0)},
    "one curve": {"curves": fake_curves(lateral_mm=20.0, waves=0.5)},
    "severe": {"curves": fake_curves(lateral_mm=60.0)},
    "many curves": {"curves": fake_curves(lateral_mm=9.0, waves=3.0)},
    "busy": {"quality": _BUSY, "source": "a_very_long_name_of_a_zip_file" * 6 + "!entry.dcm"},
    "small and anisotropic": {"pixels": fake_pixels(150, 109), "pixel_spacing_mm": (13.0, 6.0)},
    "large": {"pixels": fake_pixels(3164, 1088), "pixel_spacing_mm": (0.607, 0.605)},
    "at the edge": {"curves": fake_curves(middle_mm=20.0, top_mm=5.0)},
    "bands": {"band_90": fake_bands()},
    "everything": {
        "curves": fake_curves(lateral_mm=30.0, waves=2.0),
        "quality": _BUSY,
        "band_90": replace(fake_bands(), sagittal_gain=0.25),
    },
    "wide bands": {"band_90": fake_bands(coronal_mm=11.0, sagittal_mm=88.0)},
}


@pytest.mark.parametrize("name", PREVIEWS)
def test_no_text_overlaps_or_leaves_the_page(name: str) -> None:
    canvas = preview_png.draw(fake_result(**PREVIEWS[name]))
    for index, (text, box) in enumerate(canvas.texts):
        assert box.inside(canvas.box), text
        for other_text, other in canvas.texts[:index]:
            assert not box.overlaps(other), (text, other_text)


@pytest.mark.parametrize("name", ["usual", "straight", "busy"])
def test_the_preview_says_what_it_must(name: str) -> None:
    result = fake_result(**PREVIEWS[name])
    texts = [text for text, _ in preview_png.draw(result).texts]
    for wanted in ("Research use only. Not for diagnosis.", "inferred, not seen", "100 mm", "supine"):
        assert wanted in texts
    for letter in "RLAP":
        assert letter in texts
    curves = result.measurements.scoliosis_curves
    if curves:
        assert texts.count(f"{curves[0].cobb_deg:.1f}°") == 2  # beside its apex, and in the table
        assert curves[0].upper_end_level in texts
    else:
        assert "none" in texts
    assert ("Accepted" if result.quality.accepted else "Not accepted") in texts


def test_the_png_decodes_to_the_page() -> None:
    result = fake_result()
    picture = cv2.imdecode(np.frombuffer(FORMATS["png"].render(result), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(picture, preview_png.draw(result).image)
    assert picture.shape == (1000, 1600, 3)


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


@pytest.mark.parametrize("name", ["usual", "severe"])
def test_the_surface_views_show_the_whole_spine(name: str) -> None:
    canvas = preview_png.draw(fake_result(**PREVIEWS[name]))
    box = panels.picture_box(preview_png.PAGE.cards()[3])
    shown = canvas.image[box.y : box.bottom, box.x : box.right].max(axis=2) > 20
    width = box.width // 2
    for view in (shown[:, :width], shown[:, width : 2 * width]):
        assert view[:, 10:-10].any()
        assert not view[:, :2].any()
        assert not view[:, -2:].any()
        assert not view[:2].any()


def test_preview_and_secondary_capture_share_one_drawing_of_the_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    real = panels.draw_panels
    monkeypatch.setattr(panels, "draw_panels", lambda *given: (drawn.append(given), real(*given)))
    result = fake_result(source="DOE_JANE.dcm")
    named, plain = preview_png.draw(result), preview_png.draw(result.with_timing(read=1.0), about_this_run=False)
    assert len(drawn) == 1
    texts = [[text for text, _ in canvas.texts] for canvas in (named, plain)]
    assert "DOE_JANE.dcm" in texts[0] and "DOE_JANE.dcm" not in texts[1]
    assert (named.image != plain.image).any()
