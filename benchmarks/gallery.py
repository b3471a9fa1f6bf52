"""Draw truth and result side by side for phantoms of increasing Cobb angle and the bundled scan.

`python benchmarks/gallery.py --out DIR [--count 4] [--seed N]` writes DIR/gallery.png, DIR/gallery.json and
DIR/preview.png (of the bundled scan) and prints the figures as a table. Phantoms are taken from the seeds of the
evaluation, which training never uses, by their true angle alone: the nearest to 5 ... 50 degrees among the first 200.
Each scan is processed by the whole runtime. Needs `pip install '.[cpu,export]'`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from measuring import SCAN, laid_out, write_json
from numpy.typing import NDArray

from edge_spine import SpineEstimator, read_scan
from edge_spine.errors import EdgeSpineError
from edge_spine.measure import measure
from edge_spine.network import CROP_SIZE
from edge_spine.outputs import preview_png
from edge_spine.outputs.drawing import palette, panels
from edge_spine.outputs.drawing.canvas import Box, Canvas, Colour, MillimetreView
from edge_spine.outputs.drawing.raster import RasterCanvas, encode
from edge_spine.outputs.drawing.shading import span_across, surface_picture
from edge_spine.outputs.wording import model_line
from edge_spine.reconstruct import reconstruct
from edge_spine.result import NOTICE, SpineResult
from export.training.dataset import EVALUATION_SEED
from export.training.evaluate import centre_errors, compare, judge_bands, scan_of
from export.training.phantoms.phantom import Subject, make_phantom, make_subject
from export.training.phantoms.scanner import IDXA

# The bundled scan is the iDXA image of this phantom; its seed is used nowhere else.
BUNDLED = "the bundled scan"
BUNDLED_SEED = 40_000_913
LEAST_DEG, MOST_DEG = 5.0, 50.0
SEARCHED = 200

WIDTH = 1600
_HEAD, _FOOT, _ROW = 142, 48, 440
_MARGIN, _GAP, _PAD = 24, 10, 12
_SCAN, _CORONAL, _SAGITTAL, _SURFACE = 152, 236, 208, 134
_TRUTH: Colour = (255, 255, 255)
_DASH_PX, _SPACE_PX = 6.0, 9.0
_AROUND_MM = 30.0


@dataclass(frozen=True)
class Example:
    """One row of the figure.

    Attributes
    ----------
    name : str
        Title of the row.
    found, truth : SpineResult
        Result of the runtime, and the truth at the same heights as a result.
    """

    name: str
    found: SpineResult
    truth: SpineResult

    def figures(self) -> dict[str, float]:
        """Return the errors as `export.training.evaluate` defines them, and the share of rows inside their bands."""
        found, truth = self.found, self.truth
        figures = compare(found, truth)
        if found.band_90 is not None:
            figures |= judge_bands(found.band_90, centre_errors(found.curves, truth.curves))
        return figures


def example(name: str, found: SpineResult, subject: Subject) -> Example:
    """Return an example with result and truth."""
    truth = subject.truth(found.curves.z)
    spine = reconstruct(truth)
    known = {"curves": truth, "spine": spine, "levels": subject.levels, "band_90": None}
    return Example(name, found, replace(found, **known, measurements=measure(spine, subject.levels)))


def chosen_seeds(count: int, first: int, searched: int = SEARCHED) -> list[int]:
    """Return the seeds whose true largest Cobb angles are nearest to `count` angles from 5 to 50 degrees."""
    angles = {
        seed: measure(reconstruct(make_subject(seed).truth())).max_cobb_deg for seed in range(first, first + searched)
    }
    seeds: list[int] = []
    for target in np.linspace(LEAST_DEG, MOST_DEG, count):
        seeds.append(min(angles, key=lambda seed: abs(angles[seed] - target)))
        del angles[seeds[-1]]
    return seeds


def examples(estimator: SpineEstimator, seeds: Sequence[int]) -> list[Example]:
    """Run the bundled scan and the phantoms of these seeds, sorted by true angle."""
    rows = [example(BUNDLED, estimator(read_scan(SCAN)), make_subject(BUNDLED_SEED, scanner=IDXA))]
    for seed in seeds:
        phantom = make_phantom(seed)
        rows.append(example(f"phantom {seed}", estimator(scan_of(phantom)), phantom))
    return sorted(rows, key=lambda row: row.truth.measurements.max_cobb_deg)


def draw(rows: Sequence[Example]) -> RasterCanvas:
    """Draw one row for each example, all spines to one scale."""
    height = _HEAD + len(rows) * (_ROW + _GAP) - _GAP + _FOOT
    canvas = RasterCanvas(WIDTH, height, palette.BACKGROUND)
    _head_and_foot(canvas, rows)
    scale = _shared_scale(rows)
    for index, row in enumerate(rows):
        card = Box(_MARGIN, _HEAD + index * (_ROW + _GAP), WIDTH - 2 * _MARGIN, _ROW)
        panels.draw_card(canvas, card)
        scan, coronal, sagittal, surface, numbers = _columns(card)
        _scan_panel(canvas, scan, row)
        _coronal_panel(canvas, coronal, row, scale)
        _sagittal_panel(canvas, sagittal, row, scale)
        _surface_panels(canvas, surface, row, scale)
        _numbers(canvas, numbers, row)
    return canvas


def _columns(card: Box) -> list[Box]:
    widths = [_SCAN, _CORONAL, _SAGITTAL, 4 * _SURFACE]
    widths.append(card.width - 2 * _PAD - sum(widths) - len(widths) * _GAP)
    left, boxes = card.x + _PAD, []
    for width in widths:
        boxes.append(Box(left, card.y + _PAD, width, card.height - 2 * _PAD))
        left += width + _GAP
    return boxes


def _head_and_foot(canvas: Canvas, rows: Sequence[Example]) -> None:
    name = canvas.text("edge-spine", _MARGIN, 48, 30, palette.TEXT, bold=True)
    canvas.text("truth and what is found, from mild to severe", name.right + 16, 48, 19, palette.QUIET)
    canvas.text(
        "Synthetic phantoms, not people",
        WIDTH - _MARGIN,
        48,
        22,
        palette.TEXT,
        bold=True,
        align="right",
    )
    columns = _columns(Box(_MARGIN, _HEAD, WIDTH - 2 * _MARGIN, _ROW))
    half = columns[3].width // 2
    titles = (
        (columns[0], "Scan", "with the crop"),
        (columns[1], "Coronal", "seen in the scan"),
        (columns[2], "Sagittal", "inferred, not seen"),
        (Box(columns[3].x, 0, half, 0), "3D, right front", "truth, found"),
        (Box(columns[3].x + half, 0, half, 0), "3D, left front", "truth, found"),
    )
    for box, title, note in titles:
        canvas.text(title, box.x, 108, 19, palette.TEXT, bold=True)
        canvas.text(note, box.x, 130, 15, palette.QUIET)
    left = columns[4].x
    samples = np.array([[left, 103.0], [left + 40.0, 103.0]])
    _dashes(canvas, samples, canvas.box)
    canvas.text("truth", left + 50, 108, 15, palette.QUIET)
    for offset, colour in enumerate((palette.SKY, palette.YELLOW, palette.VERMILLION)):
        line = samples + (110.0, 5.0 * (offset - 1))
        canvas.stroke(line, colour, 2.2, canvas.box)
    canvas.text("found", left + 160, 108, 15, palette.QUIET)
    canvas.fill(Box(left + 222, 97, 40, 12), palette.BAND_EDGE)
    canvas.fill(Box(left + 222, 98, 40, 10), palette.BAND)
    canvas.text("90 % band", left + 272, 108, 15, palette.QUIET)
    canvas.text("orange in 3D: the largest lateral curve", left, 130, 15, palette.QUIET)
    baseline = canvas.box.bottom - 17
    canvas.text(NOTICE, _MARGIN, baseline, 19, palette.ORANGE, bold=True)
    canvas.text(model_line(rows[0].found.model), WIDTH - _MARGIN, baseline, 16, palette.QUIET, align="right")


def _shared_scale(rows: Sequence[Example]) -> float:
    """Return the largest scale (pixels per mm) at which every spine fits every panel."""
    scales = []
    for row in rows:
        for result in (row.found, row.truth):
            curves = result.curves
            scales.append((_ROW - 2 * _PAD) / (np.ptp(curves.z) + 2 * _AROUND_MM))
            scales.append(_CORONAL / (np.ptp(curves.coronal) + 2 * _AROUND_MM))
            scales.append(_SAGITTAL / (np.ptp(curves.sagittal) + 2 * _AROUND_MM))
            for azimuth in panels.SURFACE_AZIMUTHS:
                left, right = span_across(result, azimuth)
                scales.append(_SURFACE / (right - left + 8))
    return float(min(scales))


def _dashes(canvas: Canvas, path: NDArray[np.float64], clip: Box) -> None:
    """Draw an open line as white dashes with a thin dark edge."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    for start in np.arange(0.0, along[-1], _DASH_PX + _SPACE_PX):
        at = np.linspace(start, min(start + _DASH_PX, along[-1]), 6)
        dash = np.column_stack([np.interp(at, along, path[:, axis]) for axis in (0, 1)])
        for colour, width in ((palette.BLACK, 2.6), (_TRUTH, 1.3)):
            canvas.stroke(dash, colour, width, clip)


def _curve_pair(canvas: Canvas, view: MillimetreView, row: Example, plane: str) -> None:
    panels.curve_lines(canvas, view, row.found.curves, plane, 2.2)
    for across in getattr(row.truth.curves, plane).T:
        _dashes(canvas, view.points(across, row.truth.curves.z), view.box)


def _scan_panel(canvas: Canvas, box: Box, row: Example) -> None:
    result = row.found
    canvas.fill(box, palette.BLACK)
    view, body = panels.scan_view(box, result), result.prepared.body
    spacing = result.scan.pixel_spacing_mm
    canvas.paste(box, panels.picture(view, body.pixels, spacing, float(body.pixels.min()), body.bright))
    ends = np.array([0, CROP_SIZE, CROP_SIZE, 0, 0])
    corners = view.points(result.prepared.x_mm(ends), result.prepared.z_mm(np.roll(ends, 1)))
    canvas.hairlines([corners], palette.TEXT, box)
    _letters(canvas, box, "R", "L")


def _coronal_panel(canvas: Canvas, box: Box, row: Example, scale: float) -> None:
    curves, spacing, body = row.found.curves, row.found.scan.pixel_spacing_mm, row.found.prepared.body
    view = MillimetreView.centred(box, [curves.coronal, row.truth.curves.coronal], curves.z, scale)
    rows = np.clip(np.rint(-curves.z / spacing[0]).astype(int), 0, body.pixels.shape[0] - 1)
    columns = np.clip(np.rint(curves.coronal / spacing[1]).astype(int), 0, body.pixels.shape[1] - 1)
    around = body.pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    low, high = np.percentile(around, (1, 99.9))
    canvas.paste(box, panels.picture(view, body.pixels, spacing, float(low), float(high)))
    _curve_pair(canvas, view, row, "coronal")
    _letters(canvas, box, "R", "L")
    panels.scale_bar(canvas, view, 50)


def _sagittal_panel(canvas: Canvas, box: Box, row: Example, scale: float) -> None:
    canvas.fill(box, palette.BLACK)
    found = row.found
    view = MillimetreView.centred(box, [found.curves.sagittal, row.truth.curves.sagittal], found.curves.z, scale)
    if found.band_90 is not None:
        centre, half_mm = found.curves.sagittal[:, 1], found.band_90.sagittal
        band = view.between(centre - half_mm, centre + half_mm, found.curves.z)
        panels.edged_area(canvas, view, band, palette.BAND, palette.BAND_EDGE, 0.85)
    _curve_pair(canvas, view, row, "sagittal")
    _letters(canvas, box, "A", "P")


def _letters(canvas: Canvas, box: Box, left: str, right: str) -> None:
    for letter, x, align in ((left, box.x + 9, "left"), (right, box.right - 9, "right")):
        canvas.text(letter, x, box.y + 21, 16, palette.TEXT, bold=True, align=align, backing=palette.BLACK)


def _surface_panels(canvas: Canvas, box: Box, row: Example, scale: float) -> None:
    canvas.fill(box, palette.BLACK)
    curves = row.found.curves
    middle = (curves.z.max() + curves.z.min()) / 2
    z = middle - (np.arange(box.height) + 0.5 - box.height / 2) / scale
    columns = (np.arange(_SURFACE) + 0.5 - _SURFACE / 2) / scale
    left = box.x
    for azimuth in panels.SURFACE_AZIMUTHS:
        for result, name in ((row.truth, "truth"), (row.found, "found")):
            across = columns + sum(span_across(result, azimuth)) / 2
            canvas.paste(Box(left, box.y, _SURFACE, box.height), surface_picture(result, azimuth, z, across))
            canvas.text(name, left + _SURFACE // 2, box.bottom - 7, 14, palette.QUIET, align="centre")
            left += _SURFACE


def _numbers(canvas: Canvas, box: Box, row: Example) -> None:
    found, truth, figures = row.found.measurements, row.truth.measurements, row.figures()
    left, y = box.x + 6, box.y + 26
    columns = (box.right - 150, box.right - 76, box.right - 4)
    largest = truth.scoliosis_curves[0] if truth.scoliosis_curves else None
    heading = "no lateral curve" if largest is None else f"{largest.cobb_deg:.0f}° to the {largest.side}"
    title = canvas.text(heading, left, y, 24, palette.ORANGE, bold=True)
    canvas.text(row.name, box.right - 4, y, 15, palette.QUIET, align="right", max_width=box.right - title.right - 12)
    y += 34
    for x, name in zip(columns, ("truth", "found", "error"), strict=True):
        canvas.text(name, x, y, 14, palette.QUIET, align="right")
    canvas.rule(left, y + 8, box.right - 4 - left, palette.RULE)
    for name, attribute in (
        ("Largest Cobb angle", "max_cobb_deg"),
        ("Kyphosis T4 to T12", "kyphosis_t4_t12_deg"),
        ("Lordosis L1 to L5", "lordosis_l1_l5_deg"),
    ):
        y += 30
        pair = getattr(truth, attribute), getattr(found, attribute)
        canvas.text(name, left, y, 16, palette.QUIET, max_width=columns[0] - 60 - left)
        for x, value in zip(columns, (*pair, abs(pair[1] - pair[0])), strict=True):
            # Without a measurable lateral curve the angle counts as 0.
            text = "none" if value == 0.0 and x != columns[2] else f"{value:.1f}°"
            canvas.text(text, x, y, 17, palette.TEXT, bold=True, align="right")
    y += 44
    canvas.text("mean error", box.right - 4, y, 14, palette.QUIET, align="right")
    canvas.rule(left, y + 8, box.right - 4 - left, palette.RULE)
    lines = [
        ("Coronal curves", f"{figures['coronal_mae_mm']:.1f} mm"),
        ("Sagittal curves, inferred", f"{figures['sagittal_mae_mm']:.1f} mm"),
        ("3D centreline", f"{figures['deviation3d_mm']:.1f} mm"),
        ("3D overlap (IoU)", f"{figures['iou3d']:.2f}"),
    ]
    if "sagittal_coverage" in figures:
        lines.append(("Sagittal rows inside the band", f"{100 * figures['sagittal_coverage']:.0f} %"))
    for name, text in lines:
        y += 30
        canvas.text(name, left, y, 16, palette.QUIET)
        canvas.text(text, box.right - 4, y, 17, palette.TEXT, bold=True, align="right")


def table(rows: Sequence[Example]) -> str:
    """Return the figures as text."""
    lines = []
    for row in rows:
        figures = row.figures()
        values = [row.truth.measurements.max_cobb_deg, row.found.measurements.max_cobb_deg]
        values += [figures[name] for name in ("coronal_mae_mm", "sagittal_mae_mm", "deviation3d_mm", "iou3d")]
        lines.append([row.name, *(f"{value:.2f}" for value in values)])
    return laid_out(("", "true deg", "found deg", "cor. mm", "sag. mm", "3D mm", "IoU"), lines)


def main(argv: list[str] | None = None) -> int:
    """Write the figure; return 1 if a scan is refused or no engine runs."""
    parser = argparse.ArgumentParser(prog="python benchmarks/gallery.py", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--count", type=int, default=4, help="phantoms, from 5 to 50 degrees (default 4)")
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED, help="first of the seeds that are searched")
    parser.add_argument("--model", type=Path, help="a model bundle (default: the packaged one)")
    parser.add_argument("--engine", default="auto")
    options = parser.parse_args(argv)
    try:
        with SpineEstimator(engine=options.engine, model=options.model) as estimator:
            rows = examples(estimator, chosen_seeds(options.count, options.seed))
    except EdgeSpineError as error:
        print(error, file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    bundled = next(row.found for row in rows if row.name == BUNDLED)
    for name, canvas in (("gallery.png", draw(rows)), ("preview.png", preview_png.draw(bundled, about_this_run=False))):
        (options.out / name).write_bytes(encode(canvas.image, ".png", [cv2.IMWRITE_PNG_COMPRESSION, 9]))
    report = {
        "note": "Synthetic phantoms, not people",
        "notice": NOTICE,
        "model": dict(rows[0].found.model),
        "examples": [
            {
                "name": row.name,
                "true_max_cobb_deg": row.truth.measurements.max_cobb_deg,
                "max_cobb_deg": row.found.measurements.max_cobb_deg,
                **row.figures(),
            }
            for row in rows
        ],
    }
    write_json(options.out / "gallery.json", report)
    print(table(rows))
    print(f"wrote {options.out / 'gallery.png'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
