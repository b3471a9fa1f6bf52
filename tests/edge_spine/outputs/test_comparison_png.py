from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_spine.comparison import compare
from edge_spine.outputs import comparison_png
from edge_spine.outputs.drawing.canvas import Box
from edge_spine.quality import Quality
from tests.edge_spine.fake_result import fake_bands, fake_curves, fake_result, phantom_pixels


def result(lateral_mm: float, **changes: Any) -> Any:
    made = fake_result(curves=fake_curves(lateral_mm=lateral_mm), pixels=phantom_pixels(), **changes)
    made.scan.header = None
    return made


CASES = {
    "worse": (8.0, 26.0),
    "better": (26.0, 8.0),
    "straight": (0.0, 0.0),
    "appeared": (0.0, 20.0),
}


@pytest.mark.parametrize("name", CASES)
def test_text_is_free_of_other_text_and_on_the_page(name: str) -> None:
    before, after = CASES[name]
    canvas = comparison_png.draw(compare(result(before), result(after, source="x" * 200, band_90=fake_bands())))
    page = Box(0, 0, comparison_png.PAGE.width, comparison_png.PAGE.height)
    for index, (text, box) in enumerate(canvas.texts):
        assert box.inside(page), text
        for other, place in canvas.texts[index + 1 :]:
            assert not box.overlaps(place), (text, other)


def test_what_is_shown() -> None:
    comparison = compare(result(8.0), result(26.0))
    texts = [text for text, _ in comparison_png.draw(comparison).texts]
    assert "Research use only. Not for diagnosis." in texts
    assert "Whose scans these are is not known." in texts
    largest = comparison.changes[0]
    assert f"{largest.change:+.1f}°" in texts and "beyond 6°" in texts
    different = [text for text, _ in comparison_png.draw(replace(comparison, person="different")).texts]
    assert "The two scans name different persons!" in different


def test_changes_that_have_no_room_are_counted() -> None:
    flagged = replace(result(26.0), quality=Quality(True, ("metal",)))
    comparison = compare(flagged, flagged)
    texts = comparison_png.draw(replace(comparison, changes=comparison.changes[1:2] * 16)).texts
    ((_, box),) = [found for found in texts if found[0] == "and 4 more, see comparison.json"]
    assert not any(box.overlaps(place) for _, place in texts if place is not box)


def test_flags_are_shown() -> None:
    flagged = replace(result(26.0), quality=Quality(True, ("metal", "scale-doubtful")))
    canvas = comparison_png.draw(compare(result(8.0), flagged))
    assert "After: metal, scale-doubtful" in [text for text, _ in canvas.texts]
    both = comparison_png.draw(compare(flagged, flagged)).texts
    assert {"Before: metal, scale-doubtful", "After: metal, scale-doubtful"} <= {text for text, _ in both}
    assert not any(box.overlaps(place) for k, (_, box) in enumerate(both) for _, place in both[k + 1 :])


def test_both_lines_are_drawn_in_their_colours() -> None:
    image = comparison_png.draw(compare(result(8.0), result(26.0))).image
    part = image[150:880, 760:1190].astype(int)
    for colour in (comparison_png.BEFORE, comparison_png.AFTER):
        assert (np.abs(part - np.array(colour[::-1])).max(axis=-1) < 12).sum() > 500
