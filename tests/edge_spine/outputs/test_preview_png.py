from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from edge_spine.outputs import preview_png
from edge_spine.outputs.drawing import panels
from edge_spine.outputs.registry import FORMATS
from edge_spine.quality import Quality
from tests.edge_spine.fake_result import fake_bands, fake_curves, fake_pixels, fake_result

_BUSY = Quality(accepted=False, flags=tuple(f"a-rather-long-name-of-a-flag-number-{n}" for n in range(9)))
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


@pytest.mark.hazard("taken-for-diagnosis")
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
        assert f"{result.measurements.max_cobb_deg:.1f}°" in texts and "none" not in texts
    assert ("Accepted" if result.quality.accepted else "Not accepted") in texts


def test_the_png_decodes_to_the_page() -> None:
    result = fake_result()
    picture = cv2.imdecode(np.frombuffer(FORMATS["png"].render(result), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(picture, preview_png.draw(result).image)
    assert picture.shape == (1000, 1600, 3)


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
