"""The preview: the scan with its curves, the inferred side view, the 3D spine and the numbers on a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_spine.outputs.drawing import Box, Canvas, Colour, Image, MillimetreView, text_mask
from edge_spine.outputs.end_lines import DRAWN_FROM_DEG, drawn_end_lines
from edge_spine.outputs.report.wording import REMARK, headline, sections, verdict
from edge_spine.outputs.shading import shade
from edge_spine.preprocess import Body, find_body, resample

if TYPE_CHECKING:
    from edge_spine.estimator import SpineResult

WIDTH, HEIGHT = 1600, 1000

_BACKGROUND: Colour = (11, 13, 16)
_CARD: Colour = (21, 24, 29)
_GRID: Colour = (28, 32, 38)
_RULE: Colour = (48, 54, 63)
_TEXT: Colour = (232, 236, 241)
_QUIET: Colour = (150, 159, 171)
_BONE: Colour = (226, 217, 201)
_BLACK: Colour = (0, 0, 0)
# Okabe and Ito's palette, which people with any colour vision tell apart.
_ORANGE: Colour = (230, 159, 0)
_SKY: Colour = (86, 180, 233)
_GREEN: Colour = (0, 158, 115)
_YELLOW: Colour = (240, 228, 66)
_VERMILLION: Colour = (213, 94, 0)
_PURPLE: Colour = (204, 121, 167)
_CORONAL = (_SKY, _YELLOW, _VERMILLION)
_BAND: Colour = (92, 88, 32)
_BAND_EDGE: Colour = (140, 133, 40)
_SAGITTAL = (_GREEN, _YELLOW, _PURPLE)

_MARGIN, _GAP, _PAD = 24, 14, 14
_TOP, _BOTTOM = 76, 946
_TITLE_HEIGHT = 44
_CAPTION_HEIGHT = 52
_SCAN_WIDTH, _CORONAL_WIDTH, _SAGITTAL_WIDTH, _SURFACE_WIDTH = 280, 352, 256, 304
_SURFACE_AZIMUTHS = (-38.0, 38.0)


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
    canvas = Canvas(WIDTH, HEIGHT, _BACKGROUND)
    _head_and_foot(canvas, result, about_this_run)
    cards = _cards(canvas)
    body = find_body(result.scan.pixels, result.scan.source)
    view = _shared_view(result, cards)
    _scan_panel(canvas, cards[0], result, body, view)
    _coronal_panel(canvas, cards[1], result, body, view)
    _sagittal_panel(canvas, cards[2], result, view)
    _surface_panel(canvas, cards[3], result, view)
    _numbers_panel(canvas, cards[4], result)
    return canvas


def _cards(canvas: Canvas) -> list[Box]:
    widths = [_SCAN_WIDTH, _CORONAL_WIDTH, _SAGITTAL_WIDTH, _SURFACE_WIDTH]
    widths.append(WIDTH - 2 * _MARGIN - sum(widths) - len(widths) * _GAP)
    left, boxes = _MARGIN, []
    for width in widths:
        boxes.append(Box(left, _TOP, width, _BOTTOM - _TOP))
        canvas.card(boxes[-1], _CARD)
        left += width + _GAP
    return boxes


def _picture_box(card: Box) -> Box:
    return Box(
        card.x + _PAD,
        card.y + _TITLE_HEIGHT,
        card.width - 2 * _PAD,
        card.height - _TITLE_HEIGHT - _CAPTION_HEIGHT,
    )


def _head_and_foot(canvas: Canvas, result: SpineResult, about_this_run: bool) -> None:
    name = canvas.text("edge-spine", _MARGIN, 48, 30, _TEXT, bold=True)
    canvas.text("3D spine from one DXA scan", name.right + 16, 48, 19, _QUIET)
    if about_this_run:
        canvas.text(result.scan.source, WIDTH - _MARGIN, 48, 19, _TEXT, align="right", max_width=900)
    canvas.text("Research use only. Not for diagnosis.", _MARGIN, 979, 19, _ORANGE, bold=True)
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
        _QUIET,
        align="right",
        max_width=900,
    )


def _shared_view(result: SpineResult, cards: Sequence[Box]) -> MillimetreView:
    """Return the scale and height that the coronal, sagittal and surface panels share."""
    curves = result.curves
    box = _picture_box(cards[1])
    top, bottom = float(curves.z.max()) + 24, float(curves.z.min()) - 24
    left, right = float(curves.coronal.min()), float(curves.coronal.max())
    depth = float(np.ptp(curves.sagittal))
    scale = min(
        box.height / (top - bottom),
        box.width / (right - left + 80),
        _picture_box(cards[2]).width / (depth + 30),
    )
    top += (box.height / scale - (top - bottom)) / 2
    return MillimetreView(box, (left + right) / 2 - box.width / scale / 2, top, scale)


def _title(canvas: Canvas, card: Box, title: str, note: str = "") -> None:
    box = canvas.text(title, card.x + _PAD, card.y + 29, 19, _TEXT, bold=True)
    if note:
        canvas.text(note, card.right - _PAD, card.y + 29, 15, _QUIET, align="right", max_width=card.right - box.right)


def _caption_row(card: Box, result: SpineResult) -> int:
    """Return the row on which captions stand: higher where a second line says how wide the bands are."""
    return card.bottom - (20 if result.band_90 is None else 32)


def _legend(canvas: Canvas, card: Box, baseline: int, entries: Sequence[tuple[str, Colour]]) -> None:
    dot = 14
    widths = [dot + text_mask(name, 14, False)[0].shape[1] for name, _ in entries]
    space = min(20, (card.width - 2 * _PAD - sum(widths)) // (len(entries) - 1))
    left = card.x + _PAD
    for (name, colour), width in zip(entries, widths, strict=True):
        canvas.dot((left + 4.5, baseline - 4.5), 4.5, colour)
        canvas.text(name, left + dot, baseline, 14, _QUIET)
        left += width + space


def _band_note(canvas: Canvas, card: Box, half_mm: NDArray[np.float64], *, filled: bool) -> None:
    """Say under a legend how wide the band of the centre is, beside a swatch of how it is drawn."""
    left, baseline = card.x + _PAD, card.bottom - 11
    note = f"90 % band: {half_mm.mean():.1f} mm either side"
    canvas.fill(Box(left, baseline - 9, 9, 9), _BAND_EDGE if filled else _YELLOW)
    canvas.fill(Box(left + 1, baseline - 9, 7, 9), _BAND if filled else _CARD)
    left += 14
    canvas.text(note, left, baseline, 14, _QUIET, max_width=card.right - _PAD - left)


def _ribbon(
    view: MillimetreView, centre: NDArray[np.float64], z: NDArray[np.float64], half_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the outline of a band, down one side and up the other."""
    return np.concatenate([view.points(centre - half_mm, z), view.points((centre + half_mm)[::-1], z[::-1])])


def _scale_bar(canvas: Canvas, view: MillimetreView, length_mm: float = 100) -> None:
    """Draw a bar in the lower left corner of a view."""
    left, row = view.box.x + 12.0, view.box.bottom - 16.0
    right = left + length_mm * view.px_per_mm
    bar = np.array([[left, row - 4], [left, row + 4], [left, row], [right, row], [right, row - 4], [right, row + 4]])
    for colour, width in ((_BLACK, 3.6), (_TEXT, 1.6)):
        for start in range(0, len(bar), 2):
            canvas.stroke(bar[start : start + 2], colour, width, view.box)
    canvas.text(f"{length_mm:g} mm", round(left) + 1, round(row) - 10, 15, _TEXT, backing=_BLACK)


def _corner_letters(canvas: Canvas, box: Box, left: str, right: str) -> None:
    canvas.text(left, box.x + 12, box.y + 26, 20, _TEXT, bold=True, backing=_BLACK)
    canvas.text(right, box.right - 12, box.y + 26, 20, _TEXT, bold=True, align="right", backing=_BLACK)


def _picture(
    view: MillimetreView,
    pixels: NDArray[np.float32],
    spacing_mm: tuple[float, float],
    low: float,
    high: float,
) -> Image:
    """Return what a view shows of a scan, black at `low` and white at `high`."""
    window = np.clip((pixels - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
    half_pixel = 0.5 / view.px_per_mm
    origin = (-(view.top_mm - half_pixel) / spacing_mm[0], (view.left_mm + half_pixel) / spacing_mm[1])
    shown = resample(window, spacing_mm, 1 / view.px_per_mm, origin, (view.box.height, view.box.width))
    grey: Image = (shown * 255).astype(np.uint8)
    return grey


def _scan_view(box: Box, body: Body, result: SpineResult) -> MillimetreView:
    """Return the view that shows body and curves as large as a box allows."""
    row_mm, column_mm = result.scan.pixel_spacing_mm
    columns = np.flatnonzero(body.mask.any(axis=0)) * column_mm
    curves, margin = result.curves, 12.0
    left = min(columns[0], float(curves.coronal.min())) - margin
    right = max(columns[-1], float(curves.coronal.max())) + margin
    top = max(-body.crown * row_mm, float(curves.z.max())) + margin
    bottom = min(-body.toe * row_mm, float(curves.z.min())) - margin
    scale = min(box.width / (right - left), box.height / (top - bottom))
    return MillimetreView(
        box,
        (left + right) / 2 - box.width / scale / 2,
        (top + bottom) / 2 + box.height / scale / 2,
        scale,
    )


def _scan_panel(canvas: Canvas, card: Box, result: SpineResult, body: Body, shared: MillimetreView) -> None:
    _title(canvas, card, "Scan")
    box = _picture_box(card)
    box = Box(box.x, box.y, box.width, box.height + _CAPTION_HEIGHT - _PAD)
    view = _scan_view(box, body, result)
    low = float(body.pixels.min())
    canvas.paste(box, _picture(view, body.pixels, result.scan.pixel_spacing_mm, low, body.bright))
    _curve_lines(canvas, view, result.curves.coronal, result.curves.z, _CORONAL, 1.3)
    zoom_right = shared.left_mm + shared.box.width / shared.px_per_mm
    zoom_bottom = shared.top_mm - shared.box.height / shared.px_per_mm
    frame = view.points(
        [shared.left_mm, zoom_right, zoom_right, shared.left_mm, shared.left_mm],
        [shared.top_mm, shared.top_mm, zoom_bottom, zoom_bottom, shared.top_mm],
    )
    canvas.hairlines([frame], _QUIET, box)
    _corner_letters(canvas, box, "R", "L")
    _scale_bar(canvas, view)


def _curve_lines(
    canvas: Canvas,
    view: MillimetreView,
    across: NDArray[np.float64],
    z: NDArray[np.float64],
    colours: Sequence[Colour],
    width: float,
) -> None:
    for column, colour in enumerate(colours):
        path = view.points(across[:, column], z)
        canvas.stroke(path, _BLACK, width + 1.6, view.box)
        canvas.stroke(path, colour, width, view.box)


def _coronal_panel(canvas: Canvas, card: Box, result: SpineResult, body: Body, view: MillimetreView) -> None:
    _title(canvas, card, "Coronal", "seen in the scan")
    curves, pixels = result.curves, body.pixels
    row_mm, column_mm = result.scan.pixel_spacing_mm
    rows = np.clip(np.rint(-curves.z / row_mm).astype(int), 0, pixels.shape[0] - 1)
    columns = np.clip(np.rint(curves.coronal / column_mm).astype(int), 0, pixels.shape[1] - 1)
    margin = round(40 / column_mm)
    around = pixels[rows.min() : rows.max() + 1, max(0, columns.min() - margin) : columns.max() + margin + 1]
    low, high = np.percentile(around, (1, 99.9))
    picture = _picture(view, pixels, result.scan.pixel_spacing_mm, float(low), float(high))
    canvas.paste(view.box, picture)
    if result.band_90 is not None:
        # outlined only: this view is there to compare the curves with the scan
        ribbon = _ribbon(view, curves.coronal[:, 1], curves.z, result.band_90.coronal)
        canvas.hairlines(np.split(ribbon, 2), _YELLOW, view.box)
        _band_note(canvas, card, result.band_90.coronal, filled=False)
    _curve_lines(canvas, view, curves.coronal, curves.z, _CORONAL, 2.4)
    _corner_letters(canvas, view.box, "R", "L")
    _scale_bar(canvas, view)
    _cobb_lines(canvas, view, result)
    _legend(
        canvas,
        card,
        _caption_row(card, result),
        [("right border", _SKY), ("centre", _YELLOW), ("left border", _VERMILLION)],
    )


def _cobb_lines(canvas: Canvas, view: MillimetreView, result: SpineResult) -> None:
    centre, half_width = result.spine.centreline, result.spine.half_width
    for index, (curve, ends) in enumerate(drawn_end_lines(centre, result.measurements.scoliosis_curves)):
        convex = -1 if curve.side == "right" else 1
        for end in ends:
            reach = half_width[end.row] + np.array([12.0, 30.0])
            along = np.array([-convex * reach[1], convex * reach[0]])[:, np.newaxis] * end.direction
            path = view.points(centre[end.row, 0] + along[:, 0], centre[end.row, 2] + along[:, 1])
            canvas.stroke(path, _BLACK, 4.0, view.box)
            canvas.stroke(path, _TEXT, 2.0, view.box)
            tip = (path[0, 0] - convex * 8, path[0, 1] + 5)
            _place(canvas, view.box, end.level, tip, 17, _TEXT, "left" if convex < 0 else "right")
        apex = view.points(centre[curve.apex, 0], centre[curve.apex, 2])[0]
        canvas.dot((apex[0], apex[1]), 6.5, _BLACK)
        canvas.dot((apex[0], apex[1]), 5.0, _ORANGE if index == 0 else _TEXT)
        beside = (apex[0] + convex * (half_width[curve.apex] * view.px_per_mm + 16), apex[1] + 8)
        _place(
            canvas,
            view.box,
            f"{curve.cobb_deg:.1f}°",
            beside,
            24 if index == 0 else 20,
            _ORANGE if index == 0 else _TEXT,
            "right" if convex < 0 else "left",
            bold=True,
        )


def _place(
    canvas: Canvas,
    area: Box,
    text: str,
    at: tuple[float, float],
    size: int,
    colour: Colour,
    align: str,
    *,
    bold: bool = False,
) -> None:
    """Write a label in an area, moved up or down as far as it has to be to stand free."""
    x, wanted = round(float(at[0])), round(float(at[1]))
    box = canvas.text_box(text, x, wanted, size, bold, align)
    x += max(0, area.x + 6 - box.x) - max(0, box.right - (area.right - 6))
    for step in sorted(range(-120, 121, 4), key=abs):
        box = canvas.text_box(text, x, wanted + step, size, bold, align)
        padded = Box(box.x - 4, box.y - 3, box.width + 8, box.height + 6)
        if box.inside(area) and not any(padded.overlaps(other) for _, other in canvas.texts):
            canvas.text(text, x, wanted + step, size, colour, bold=bold, align=align, backing=_BLACK)
            return


def _sagittal_panel(canvas: Canvas, card: Box, result: SpineResult, shared: MillimetreView) -> None:
    _title(canvas, card, "Sagittal", "inferred, not seen")
    curves, box = result.curves, _picture_box(card)
    middle = float(curves.sagittal.max() + curves.sagittal.min()) / 2
    view = MillimetreView(box, middle - box.width / shared.px_per_mm / 2, shared.top_mm, shared.px_per_mm)
    canvas.fill(box, _BLACK)
    bottom = view.top_mm - box.height / view.px_per_mm
    right = view.left_mm + box.width / view.px_per_mm
    grid = [view.points([view.left_mm, right], [z, z]) for z in np.arange(math.ceil(bottom / 50) * 50, view.top_mm, 50)]
    canvas.hairlines(grid, _GRID, box)
    outline = np.concatenate(
        [view.points(curves.sagittal[:, 0], curves.z), view.points(curves.sagittal[::-1, 2], curves.z[::-1])]
    )
    canvas.area(outline, _BONE, 0.16, box)
    if result.band_90 is not None:
        ribbon = _ribbon(view, curves.sagittal[:, 1], curves.z, result.band_90.sagittal)
        canvas.area(ribbon, _BAND, 0.85, box)
        canvas.hairlines(np.split(ribbon, 2), _BAND_EDGE, box)
        _band_note(canvas, card, result.band_90.sagittal, filled=True)
    _curve_lines(canvas, view, curves.sagittal, curves.z, _SAGITTAL, 2.4)
    _corner_letters(canvas, box, "A", "P")
    _scale_bar(canvas, view)
    _legend(
        canvas, card, _caption_row(card, result), [("anterior", _GREEN), ("centre", _YELLOW), ("posterior", _PURPLE)]
    )


def _surface_panel(canvas: Canvas, card: Box, result: SpineResult, shared: MillimetreView) -> None:
    _title(canvas, card, "3D surface", "inferred")
    whole = _picture_box(card)
    canvas.fill(whole, _BLACK)
    width = whole.width // len(_SURFACE_AZIMUTHS)
    spans = [_span_across(result, azimuth) for azimuth in _SURFACE_AZIMUTHS]
    scale = min(shared.px_per_mm, *(width / (right - left + 8) for left, right in spans))
    middle = shared.top_mm - whole.height / shared.px_per_mm / 2
    z = middle - (np.arange(whole.height, dtype=np.float64) + 0.5 - whole.height / 2) / scale
    columns = (np.arange(width, dtype=np.float64) + 0.5 - width / 2) / scale
    tint = _largest_curve_tint(result, z)
    names = ("from the right front", "from the left front")
    for index, azimuth in enumerate(_SURFACE_AZIMUTHS):
        brightness, coverage = shade(result.spine, azimuth, z, columns + sum(spans[index]) / 2)
        light = (brightness * coverage).astype(np.float32)
        lit = light[..., np.newaxis] * tint[:, np.newaxis, ::-1].astype(np.float32)
        picture = np.minimum(lit, 255).astype(np.uint8)
        box = Box(whole.x + index * width, whole.y, width, whole.height)
        canvas.paste(box, picture)
        canvas.text(names[index], box.x + width // 2, _caption_row(card, result), 14, _QUIET, align="centre")


def _span_across(result: SpineResult, azimuth_deg: float) -> tuple[float, float]:
    """Return how far the spine reaches to a viewer's left and right of its mean, in mm."""
    away = result.spine.centreline - result.spine.centreline.mean(axis=0)
    cosine, sine = math.cos(math.radians(azimuth_deg)), math.sin(math.radians(azimuth_deg))
    across = away[:, 0] * cosine + away[:, 1] * sine
    reach = np.hypot(result.spine.half_width * cosine, result.spine.half_depth * sine)
    return float((across - reach).min()), float((across + reach).max())


def _largest_curve_tint(result: SpineResult, z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a colour (H, 3) for each height: bone, and orange along the largest curve."""
    bone, accent = np.array(_BONE, float), np.array(_ORANGE, float)
    curves = result.measurements.scoliosis_curves
    if not curves or curves[0].cobb_deg < DRAWN_FROM_DEG:
        return np.tile(bone, (z.size, 1))
    upper, lower = (result.spine.centreline[row, 2] for row in (curves[0].upper_end, curves[0].lower_end))
    inside = np.clip(np.minimum(upper - z, z - lower) / 15 + 0.5, 0, 1)[:, np.newaxis]
    mixed: NDArray[np.float64] = bone + 0.6 * inside * (accent - bone)
    return mixed


def _numbers_panel(canvas: Canvas, card: Box, result: SpineResult) -> None:
    table = _Table(canvas, card)
    figure, sentence = headline(result)
    seen, inferred = sections(result)
    _title(canvas, card, "Measurements", result.measurements.posture)
    table.y = card.y + 70
    table.heading(seen.heading.upper())
    table.figure(figure, _ORANGE if result.measurements.max_cobb_deg >= DRAWN_FROM_DEG else _TEXT)
    table.line(sentence)
    if result.measurements.scoliosis_curves:
        table.y += 6
    for name, value in seen.rows:
        table.row(name, value)
    table.gap()
    table.heading(inferred.heading.upper())
    for name, value in inferred.rows:
        table.row(name, value)
    table.gap()
    table.heading("QUALITY")
    word, flags = verdict(result)
    canvas.dot((table.left + 6, table.y - 5), 6, _GREEN if result.quality.accepted else _VERMILLION)
    table.line(word, indent=20)
    shown = flags if len(flags) <= 5 else [*flags[:4], f"and {len(flags) - 4} more, see result.json"]
    for flag in shown:
        table.line(flag, colour=_QUIET, size=15, indent=20)
    notes = REMARK.partition("than ")
    for index, note in enumerate((notes[0] + notes[1].strip(), notes[2])):
        canvas.text(note, table.left, card.bottom - 37 + 20 * index, 15, _QUIET, max_width=table.right - table.left)


class _Table:
    """Rows of names and values between two edges, from the top down."""

    def __init__(self, canvas: Canvas, card: Box) -> None:
        self.canvas = canvas
        self.left, self.right = card.x + _PAD + 2, card.right - _PAD - 2
        self.y = card.y

    def heading(self, text: str) -> None:
        self.canvas.text(text, self.left, self.y, 13, _QUIET, bold=True, max_width=self.right - self.left)
        self.canvas.rule(self.left, self.y + 9, self.right - self.left, _RULE)
        self.y += 34

    def figure(self, text: str, colour: Colour) -> None:
        self.canvas.text(text, self.left - 3, self.y + 36, 64, colour, bold=True)
        self.y += 72

    def line(self, text: str, *, colour: Colour = _TEXT, size: int = 18, indent: int = 0) -> None:
        width = self.right - self.left - indent
        self.canvas.text(text, self.left + indent, self.y, size, colour, max_width=width)
        self.y += size + 9

    def row(self, name: str, value: str) -> None:
        box = self.canvas.text(value, self.right, self.y, 18, _TEXT, bold=True, align="right")
        self.canvas.text(name, self.left, self.y, 16, _QUIET, max_width=box.x - self.left - 8)
        self.y += 28

    def gap(self) -> None:
        self.y += 20
