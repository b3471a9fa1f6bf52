"""The SVG canvas."""

from __future__ import annotations

import re

import numpy as np

from edge_spine.outputs.drawing.canvas import Box
from edge_spine.outputs.drawing.palette import PALETTE
from edge_spine.outputs.report.svg import SvgCanvas


def test_on_a_scan_colours_stay_and_beside_it_they_follow_the_page() -> None:
    canvas = SvgCanvas(200, 100, "x")
    film = Box(0, 0, 100, 100)
    canvas.paste(film, np.zeros((100, 100), np.uint8))
    canvas.text("on", 20, 50, 14, PALETTE["text"], backing=PALETTE["black"])
    canvas.text("beside", 140, 50, 14, PALETTE["text"], backing=PALETTE["black"])
    drawn = canvas.element("<label>")
    assert re.search(r'<text [^>]*fill="#e8ecf1"[^>]*>on<', drawn)
    assert re.search(r'<text [^>]*class="fill-text"[^>]*>beside<', drawn)
    assert 'class="fill-ground"' in drawn
    assert 'aria-label="&lt;label&gt;"' in drawn
