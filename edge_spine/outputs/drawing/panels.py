"""Draw the cards of a page: the scan, coronal and sagittal view, the 3D surface and the measurements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_spine.outputs.drawing import palette
from edge_spine.outputs.drawing.canvas import Box, Canvas, Colour, Image, MillimetreView
from edge_spine.outputs.drawing.end_lines import DRAWN_FROM_DEG, drawn_end_lines
from edge_spine.outputs.drawing.levels import LADDER, ladder, names, side_angles
from edge_spine.outputs.drawing.marks import corner_letters, outlined, place, scale_bar
from edge_spine.outputs.drawing.shading import span_across, surface_picture
from edge_spine.outputs.drawing.table import Table
from edge_spine.outputs.drawing.text import text_mask, wrap
from edge_spine.outputs.wording import COBB, headline, remark, sections, verdict
from edge_spine.preprocessing.crop import resample
from edge_spine.reconstruct import Curves
from edge_spine.result import SpineResult

PAD, TITLE_HEIGHT, CAPTION_HEIGHT = 14, 44, 72
_CAPTION_LINE = 20
SURFACE_AZIMUTHS = (-38.0, 38.0)


def draw_card(canvas: Canvas, card: Box) -> None:
    """Draw the background of a card."""
    canvas.fill(card, palette.CARD, radius=10)


def picture_box(card: Box) -> Box:
    """Return the place of a card's picture, between its title and its captions."""
    height = card.height - TITLE_HEIGHT - CAPTION_HEIGHT
    return Box(card.x + PAD, card.y + TITLE_HEIGHT, card.width - 2 * PAD, height)


def shared_view(result: SpineResult, cards: Sequence[Box]) -> MillimetreView:
    """Return the view of the coronal panel; the sagittal and surface panels share its scale and height."""
    curves, box = result.curves, picture_box(cards[1])
    scale = min(
        box.height / float(np.ptp(curves.z) + 48),
        box.width / float(np.ptp(curves.coronal) + 80),
        picture_box(cards[2]).width / float(np.ptp(curves.sagittal) + 30),
    )
    return MillimetreView.centred(box, curves.coronal, curves.z, scale)


def title(canvas: Canvas, card: Box, text: str, note: str = "") -> None:
    """Write the title of a card at its left and a note at its right."""
    box = canvas.text(text, card.x + PAD, card.y + 29, 19, palette.TEXT, bold=True)
    if note:
        canvas.text(
            note, card.right - PAD, card.y + 29, 15, palette.QUIET, align="right", max_width=card.right - box.right
        )


def _caption_row(card: Box, result: SpineResult) -> int:
    """Return the baseline of the captions, higher where lines on the bands and the population follow."""
    return card.bottom - 11 - _CAPTION_LINE * sum(part is not None for part in (result.band_90, result.population))


def legend(canvas: Canvas, card: Box, baseline: int, names: Sequence[str], colours: Sequence[Colour]) -> None:
    """Write the names of the lines beside dots in their colours."""
    dot = 14
    widths = [dot + text_mask(name, 14, False)[0].shape[1] for name in names]
    space = min(20, (card.width - 2 * PAD - sum(widths)) // (len(names) - 1))
    left = card.x + PAD
    for name, colour, width in zip(names, colours, widths, strict=True):
        canvas.dot((left + 4.5, baseline - 4.5), 4.5, colour)
        canvas.text(name, left + dot, baseline, 14, palette.QUIET)
        left += width + space


def _note(canvas: Canvas, card: Box, baseline: int, text: str, edge: Colour, fill: Colour) -> None:
    """Write a line under a legend, beside a sample of the area that it explains."""
    left = card.x + PAD
    canvas.fill(Box(left, baseline - 9, 9, 9), edge)
    canvas.fill(Box(left + 1, baseline - 9, 7, 9), fill)
    canvas.text(text, left + 14, baseline, 14, palette.QUIET, max_width=card.width - 2 * PAD - 14)


def _band_note(canvas: Canvas, card: Box, result: SpineResult, half_mm: NDArray[np.float64], *, filled: bool) -> None:
    colours = (palette.BAND_EDGE, palette.BAND) if filled else (palette.YELLOW, palette.CARD)
    baseline = _caption_row(card, result) + _CAPTION_LINE
    _note(canvas, card, baseline, f"90 % band: {half_mm.mean():.1f} mm either side", *colours)


def edged_area(
    canvas: Canvas, view: MillimetreView, outline: NDArray[np.float64], fill: Colour, edge: Colour, opacity: float
) -> None:
    """Fill the area between two curves, whose outline `MillimetreView.between` gives, and draw the curves."""
    canvas.area(outline, fill, opacity, view.box)
    canvas.hairlines(np.split(outline, 2), edge, view.box)


def picture(
    view: MillimetreView, pixels: NDArray[np.float32], spacing_mm: tuple[float, float], low: float, high: float
) -> Image:
    """Return the part of a scan that a view shows, grey (H, W), black at `low` and white at `high`."""
    window = np.clip((pixels - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
    half_pixel = 0.5 / view.px_per_mm
    origin = (-(view.top_mm - half_pixel) / spacing_mm[0], (view.left_mm + half_pixel) / spacing_mm[1])
    shown = resample(window, spacing_mm, 1 / view.px_per_mm, origin, (view.box.height, view.box.width))
    grey: Image = (shown * 255).astype(np.uint8)
    return grey


def scan_view(box: Box, result: SpineResult) -> MillimetreView:
    """Return the view that fits body and curves into a box."""
    body, (row_mm, column_mm) = result.prepared.body, result.scan.pixel_spacing_mm
    columns = np.flatnonzero(body.mask.any(axis=0)) * column_mm
    across = np.append(columns[[0, -1]], result.curves.coronal)
    z = np.append([-body.crown * row_mm, -body.toe * row_mm], result.curves.z)
    scale = min(box.width / float(np.ptp(across) + 24), box.height / float(np.ptp(z) + 24))
    return MillimetreView.centred(box, across, z, scale)


def scan_panel(canvas: Canvas, card: Box, result: SpineResult, shared: MillimetreView) -> None:
    """Draw the whole scan with its curves, and a frame around the part that the other views show."""
    title(canvas, card, "Scan")
    box = picture_box(card)
    box = Box(box.x, box.y, box.width, box.height + CAPTION_HEIGHT - PAD)
    body = result.prepared.body
    view = scan_view(box, result)
    canvas.paste(box, picture(view, body.pixels, result.scan.pixel_spacing_mm, body.floor, body.bright))
    curve_lines(canvas, view, result.curves, "coronal", 1.3)
    frame = view.points(
        [shared.left_mm, shared.right_mm, shared.right_mm, shared.left_mm, shared.left_mm],
        [shared.top_mm, shared.top_mm, shared.bottom_mm, shared.bottom_mm, shared.top_mm],
    )
    canvas.hairlines([frame], palette.QUIET, box)
    corner_letters(canvas, box, "R", "L")
    scale_bar(canvas, view)


def curve_lines(canvas: Canvas, view: MillimetreView, curves: Curves, plane: str, width: float) -> None:
    """Draw the three curves of the "coronal" or the "sagittal" plane."""
    colours = palette.CORONAL if plane == "coronal" else palette.SAGITTAL
    for across, colour in zip(getattr(curves, plane).T, colours, strict=True):
        outlined(canvas, view.points(across, curves.z), colour, width, view.box)


def coronal_panel(canvas: Canvas, card: Box, result: SpineResult, view: MillimetreView) -> None:
    """Draw the spine in the scan, with curves, bands and the end lines of the Cobb angles."""
    title(canvas, card, "Coronal", "seen in the scan")
    curves, pixels = result.curves, result.prepared.body.pixels
    row_mm, column_mm = result.scan.pixel_spacing_mm
    rows = np.clip(np.rint(-curves.z / row_mm).astype(int), 0, pixels.shape[0] - 1)
    columns = np.clip(np.rint(curves.coronal / column_mm).astype(int), 0, pixels.shape[1] - 1)
    margin = round(40 / column_mm)
    around = pixels[rows.min() : rows.max() + 1, max(0, columns.min() - margin) : columns.max() + margin + 1]
    low, high = np.percentile(around, (1, 99.9))
    canvas.paste(view.box, picture(view, pixels, result.scan.pixel_spacing_mm, float(low), float(high)))
    if result.band_90 is not None:
        # Outlined only, so that the scan under the band stays visible.
        centre, half_mm = curves.coronal[:, 1], result.band_90.coronal
        band = view.between(centre - half_mm, centre + half_mm, curves.z)
        canvas.hairlines(np.split(band, 2), palette.YELLOW, view.box)
        _band_note(canvas, card, result, half_mm, filled=False)
    curve_lines(canvas, view, curves, "coronal", 2.4)
    corner_letters(canvas, view.box, "R", "L")
    scale_bar(canvas, view)
    ladder(canvas, view, result, "coronal")
    cobb_lines(canvas, view, result)
    legend(canvas, card, _caption_row(card, result), ("right border", "centre", "left border"), palette.CORONAL)


def cobb_lines(canvas: Canvas, view: MillimetreView, result: SpineResult) -> None:
    """Draw end lines, apexes and Cobb angles of the lateral curves."""
    spine, box = result.spine, view.box
    area = Box(box.x, box.y, box.width - LADDER, box.height)
    for index, (curve, lines) in enumerate(drawn_end_lines(result)):
        convex = curve.convex_sign
        concave = "left" if curve.side == "right" else "right"
        for line in lines:
            ends = line.ends(spine, curve)
            path = view.points(ends[:, 0], ends[:, 2])
            outlined(canvas, path, palette.TEXT, 2.0, area, edge=2.0)
            tip = (path[0, 0] - convex * 8, path[0, 1] + 5)
            place(canvas, area, line.level, tip, 17, palette.TEXT, concave)
        x, y = view.points(*spine.centreline[curve.apex, [0, 2]])[0]
        colour, size = (palette.ORANGE, 24) if index == 0 else (palette.TEXT, 20)
        canvas.dot((x, y), 6.5, palette.BLACK)
        canvas.dot((x, y), 5.0, colour)
        beside = (x + convex * (spine.half_width[curve.apex] * view.px_per_mm + 16), y + 8)
        text = COBB.text(curve.cobb_deg) if index else headline(result)[0]
        place(canvas, area, text, beside, size, colour, curve.side, bold=True)


def sagittal_panel(canvas: Canvas, card: Box, result: SpineResult, shared: MillimetreView) -> None:
    """Draw the inferred sagittal curves with band, range of the centre in the population, and the lines of angles."""
    title(canvas, card, "Sagittal", "inferred, not seen")
    curves, box = result.curves, picture_box(card)
    view = MillimetreView.centred(box, curves.sagittal, curves.z, shared.px_per_mm)
    canvas.fill(box, palette.BLACK)
    canvas.hairlines([view.points([view.left_mm, view.right_mm], [z, z]) for z in result.levels.z], palette.GRID, box)
    anterior, centre, posterior = curves.sagittal.T
    canvas.area(view.between(anterior, posterior, curves.z), palette.BONE, 0.16, box)
    usual = None if result.population is None else (result.population.low, result.population.high)
    if usual is not None:
        outline = view.between(*usual, curves.z)
        edged_area(canvas, view, outline, palette.POPULATION, palette.POPULATION_EDGE, 0.9)
        text = "centre of 9 in 10 training spines"
        _note(canvas, card, card.bottom - 11, text, palette.POPULATION_EDGE, palette.POPULATION)
    if result.band_90 is not None:
        half_mm = result.band_90.sagittal
        band = view.between(centre - half_mm, centre + half_mm, curves.z)
        edged_area(canvas, view, band, palette.BAND, palette.BAND_EDGE, 0.85)
        _band_note(canvas, card, result, half_mm, filled=True)
    if usual is not None:
        # above the band, which would hide where the range ends
        canvas.hairlines([view.points(side, curves.z) for side in usual], palette.POPULATION_EDGE, box)
    curve_lines(canvas, view, curves, "sagittal", 2.4)
    corner_letters(canvas, box, "A", "P")
    scale_bar(canvas, view)
    ladder(canvas, view, result, "sagittal")
    side_angles(canvas, view, result)
    legend(canvas, card, _caption_row(card, result), ("anterior", "centre", "posterior"), palette.SAGITTAL)


def surface_panel(canvas: Canvas, card: Box, result: SpineResult, shared: MillimetreView) -> None:
    """Draw the 3D surface from the right front and from the left front."""
    title(canvas, card, "3D surface", "inferred")
    whole = picture_box(card)
    canvas.fill(whole, palette.BLACK)
    width = whole.width // len(SURFACE_AZIMUTHS)
    spans = [span_across(result, azimuth) for azimuth in SURFACE_AZIMUTHS]
    # each view leaves half of the column of names between them free
    room = width - 18
    scale = min(shared.px_per_mm, *(room / (right - left + 8) for left, right in spans))
    middle = (shared.top_mm + shared.bottom_mm) / 2
    z = middle - (np.arange(whole.height, dtype=np.float64) + 0.5 - whole.height / 2) / scale
    captions = ("from the right front", "from the left front")
    for index, azimuth in enumerate(SURFACE_AZIMUTHS):
        box = Box(whole.x + index * width, whole.y, width, whole.height)
        centre = index * (width - room) + room / 2
        columns = (np.arange(width, dtype=np.float64) + 0.5 - centre) / scale
        canvas.paste(box, surface_picture(result, azimuth, z, columns + sum(spans[index]) / 2))
        corner_letters(canvas, box, "R", "L")
        canvas.text(captions[index], box.x + width // 2, _caption_row(card, result), 14, palette.QUIET, align="centre")
    scale_bar(canvas, MillimetreView(whole, 0.0, float(z[0]), scale))
    heights = whole.y + (z[0] - result.levels.z) * scale
    names(canvas, heights, whole.x + width, "centre", whole)


def numbers_panel(canvas: Canvas, card: Box, result: SpineResult) -> None:
    """Write the measurements and the quality."""
    table = Table(canvas, card.x + PAD + 2, card.right - PAD - 2, card.y)
    figure, sentence = headline(result)
    seen, inferred = sections(result)
    title(canvas, card, "Measurements", result.measurements.posture)
    table.y = card.y + 70
    table.heading(seen.heading.upper())
    table.figure(figure, palette.ORANGE if result.measurements.max_cobb_deg >= DRAWN_FROM_DEG else palette.TEXT)
    table.line(sentence)
    if result.measurements.scoliosis_curves:
        table.y += 6
    for name, value in seen.rows:
        table.row(name, value)
    table.gap()
    table.heading(inferred.heading.upper())
    for name, value in inferred.rows:
        table.row(name, value)
    for note in inferred.note:
        table.line(note, colour=palette.QUIET, size=14)
    table.gap()
    table.heading("QUALITY")
    word, flags = verdict(result)
    canvas.dot((table.left + 6, table.y - 5), 6, palette.GREEN if result.quality.accepted else palette.VERMILLION)
    table.line(word, indent=20)
    width = table.right - table.left
    notes = wrap(remark(result), width, 15)
    top = card.bottom - 17 - 20 * (len(notes) - 1)
    lines = [wrap(flag, width - 20, 15) for flag in flags]
    room = (top - 24 - table.y) // 24
    for index, flag in enumerate(lines):
        more = len(lines) - index - 1
        if len(flag) + bool(more) > room:
            lines_left = f"and {more + 1} more, see result.json" if index else f"{more + 1} flags, see result.json"
            table.line(lines_left, colour=palette.QUIET, size=15, indent=20)
            break
        for line in flag:
            table.line(line, colour=palette.QUIET, size=15, indent=20)
        room -= len(flag)
    for index, note in enumerate(notes):
        canvas.text(note, table.left, top + 20 * index, 15, palette.QUIET, max_width=width)


# The cards with a picture, from the left.
PICTURES = {"scan": scan_panel, "coronal": coronal_panel, "sagittal": sagittal_panel, "surface": surface_panel}


def draw_panels(canvas: Canvas, cards: Sequence[Box], result: SpineResult) -> None:
    """Draw the pictures and the measurements on five cards."""
    view = shared_view(result, cards)
    for draw, card in zip(PICTURES.values(), cards, strict=False):
        draw(canvas, card, result, view)
    numbers_panel(canvas, cards[-1], result)
