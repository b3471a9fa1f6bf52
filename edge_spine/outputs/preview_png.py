"""The preview: the scan with its curves, the inferred side view, the 3D spine and the numbers on a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2

from edge_spine.outputs.drawing import palette, panels
from edge_spine.outputs.drawing.canvas import Box, Canvas

if TYPE_CHECKING:
    from edge_spine.result import SpineResult

WIDTH, HEIGHT = 1600, 1000

_MARGIN, _GAP = 24, 14
_TOP, _BOTTOM = 76, 946
_SCAN_WIDTH, _CORONAL_WIDTH, _SAGITTAL_WIDTH, _SURFACE_WIDTH = 280, 352, 256, 304


def render(result: SpineResult) -> bytes:
    """Return the preview of a result as PNG, 1600 x 1000 pixels.

    Raises
    ------
    RuntimeError
        OpenCV cannot encode the picture.
    """
    # the fastest form for a drawing with large even areas
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    # OpenCV 4.13 and later can be told one filter; trying all of them takes twice the time.
    if hasattr(cv2, "IMWRITE_PNG_FILTER"):
        options += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
    done, encoded = cv2.imencode(".png", draw(result).image, options)
    if not done:
        raise RuntimeError("OpenCV could not encode the preview as PNG")
    return encoded.tobytes()


def draw(result: SpineResult, *, about_this_run: bool = True) -> Canvas:
    """Return the preview as a canvas, which knows where each text stands.

    Parameters
    ----------
    result : SpineResult
        What is shown.
    about_this_run : bool
        With the name of the file, which may name a patient, and the time it took. Without them the
        picture depends on the scan and the model alone.
    """
    canvas = Canvas(WIDTH, HEIGHT, palette.BACKGROUND)
    _head_and_foot(canvas, result, about_this_run)
    panels.draw_panels(canvas, cards_of(canvas), result)
    return canvas


def cards_of(canvas: Canvas) -> list[Box]:
    """Draw the five cards of the page and return where they are."""
    widths = [_SCAN_WIDTH, _CORONAL_WIDTH, _SAGITTAL_WIDTH, _SURFACE_WIDTH]
    widths.append(WIDTH - 2 * _MARGIN - sum(widths) - len(widths) * _GAP)
    left, boxes = _MARGIN, []
    for width in widths:
        boxes.append(Box(left, _TOP, width, _BOTTOM - _TOP))
        canvas.card(boxes[-1], palette.CARD)
        left += width + _GAP
    return boxes


def _head_and_foot(canvas: Canvas, result: SpineResult, about_this_run: bool) -> None:
    name = canvas.text("edge-spine", _MARGIN, 48, 30, palette.TEXT, bold=True)
    canvas.text("3D spine from one DXA scan", name.right + 16, 48, 19, palette.QUIET)
    if about_this_run:
        canvas.text(result.scan.source, WIDTH - _MARGIN, 48, 19, palette.TEXT, align="right", max_width=900)
    canvas.text("Research use only. Not for diagnosis.", _MARGIN, 979, 19, palette.ORANGE, bold=True)
    model = result.model
    parts = [f"{model['name']} {model['version']}", f"{model['engine']} {model['precision']}"]
    if about_this_run:
        computed = sum(result.timing_ms[stage] for stage in ("preprocess", "infer", "reconstruct"))
        parts.append(f"computed in {computed:.0f} ms")
    canvas.text(
        ",  ".join([*parts, f"model {model['sha256'][:12]}"]),
        WIDTH - _MARGIN,
        979,
        16,
        palette.QUIET,
        align="right",
        max_width=900,
    )
