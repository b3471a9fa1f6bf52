"""preview.png: the scan with its curves, the inferred side view, the 3D surface and the numbers on one page."""

from __future__ import annotations

import cv2

from edge_spine.outputs.drawing import palette, panels
from edge_spine.outputs.drawing.page import Page
from edge_spine.outputs.drawing.raster import RasterCanvas, encode, signed
from edge_spine.outputs.wording import SUBTITLE, model_line, scan_name
from edge_spine.result import SpineResult

PAGE = Page(1600, 1000, 24, 14, 76, 946, (280, 352, 256, 304), head=48, foot=979)


def render(result: SpineResult) -> bytes:
    """Return the preview as PNG, 1600 x 1000 pixels."""
    # Run lengths are the fastest compression of a drawing with large even areas.
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    # From OpenCV 4.13 one filter can be chosen; trying all of them takes twice the time.
    if hasattr(cv2, "IMWRITE_PNG_FILTER"):
        options += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
    return signed(encode(draw(result).image, ".png", options))


def draw(result: SpineResult, *, about_this_run: bool = True) -> RasterCanvas:
    """Draw the preview.

    `about_this_run` adds the name of the file, which may name a patient, and the time that it took; without them the
    picture depends on the scan and the model alone.
    """
    canvas = result.derived(_with_panels).copy()
    PAGE.draw_head(canvas, SUBTITLE, scan_name(result) if about_this_run else "")
    computed = sum(result.timing_ms[stage] for stage in ("preprocess", "infer", "reconstruct"))
    PAGE.draw_foot(canvas, model_line(result.model, f"computed in {computed:.0f} ms" if about_this_run else ""))
    return canvas


def _with_panels(result: SpineResult) -> RasterCanvas:
    canvas, cards = RasterCanvas(PAGE.width, PAGE.height, palette.BACKGROUND), PAGE.cards()
    for card in cards:
        panels.draw_card(canvas, card)
    panels.draw_panels(canvas, cards, result)
    return canvas
