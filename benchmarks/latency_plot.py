"""Plot the report of latency.py: a bar for each stage, and the distribution of latencies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge_spine.outputs.drawing import palette
from edge_spine.outputs.drawing.canvas import Box, Canvas
from edge_spine.outputs.drawing.raster import RasterCanvas, encode

WIDTH, HEIGHT = 1100, 620
_MARGIN, _LABELS, _ROW, _BINS = 28, 230, 42, 80
_BARS = (
    ("read", "read", palette.SKY),
    ("preprocess", "prepare", palette.SKY),
    ("infer", "infer", palette.YELLOW),
    ("reconstruct", "reconstruct, measure, judge", palette.SKY),
    ("end to end", "end to end", palette.GREEN),
    ("write json", "write json", palette.PURPLE),
)


def draw(report: dict[str, Any], path: Path) -> RasterCanvas:
    """Write the plot as PNG and return its canvas.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    canvas = RasterCanvas(WIDTH, HEIGHT, palette.BACKGROUND)
    found = report["machine"]
    canvas.text("One scan in a warm process", _MARGIN, 44, 24, palette.TEXT, bold=True)
    canvas.text(
        f"{found['processor']}, {found['cores']} cores; {report['engine']} {report['precision']}, {found['date']}",
        *(_MARGIN, 70, 14, palette.QUIET),
        max_width=WIDTH - 2 * _MARGIN,
    )
    _bars(canvas, report["stages_ms"], 100)
    _spread(canvas, report["single_stream"], Box(_MARGIN, 400, WIDTH - 2 * _MARGIN, 150))
    path.write_bytes(encode(canvas.image, ".png"))
    return canvas


def _bars(canvas: Canvas, stages: dict[str, dict[str, float]], top: int) -> None:
    left, right = _MARGIN + _LABELS, WIDTH - _MARGIN - 190
    scale = (right - left) / max(stages[name]["p90"] for name, _, _ in _BARS)
    for index, (name, shown, colour) in enumerate(_BARS):
        row, found = top + index * _ROW, stages[name]
        canvas.text(shown, left - 14, row + 20, 15, palette.TEXT, align="right")
        canvas.fill(Box(left, row + 4, max(1, round(found["p50"] * scale)), 22), colour)
        whisker = np.array([[left + found["p50"] * scale, row + 15], [left + found["p90"] * scale, row + 15]])
        canvas.hairlines([whisker], palette.TEXT, canvas.box)
        end = left + round(found["p90"] * scale) + 12
        canvas.text(f"{found['p50']:.2f} ms (p90 {found['p90']:.2f})", end, row + 20, 14, palette.QUIET)


def _spread(canvas: Canvas, stream: dict[str, Any], box: Box) -> None:
    values = np.array(stream["latencies_ms"])
    canvas.text(
        f"Single stream: {stream['queries']} scans, 90 % within {stream['ms']['p90']:.1f} ms",
        *(box.x, box.y - 14, 16, palette.TEXT),
    )
    low, high = float(values.min()), float(np.percentile(values, 99.5))
    high = max(high, low + 1e-3)
    counts, _ = np.histogram(np.minimum(values, high), bins=_BINS, range=(low, high))
    width = box.width / _BINS
    for index, count in enumerate(counts):
        height = round(0.85 * box.height * count / counts.max())  # The remaining width is for the labels.
        x = box.x + round(index * width)
        canvas.fill(Box(x, box.bottom - height, max(1, round(width) - 2), height), palette.GREEN)
    canvas.rule(box.x, box.bottom, box.width, palette.RULE)
    for share in (50, 90, 99):
        at = box.x + (min(stream["ms"][f"p{share}"], high) - low) / (high - low) * box.width
        canvas.hairlines([np.array([[at, box.y], [at, box.bottom]])], palette.TEXT, canvas.box)
        canvas.text(f"p{share}", round(at) - 4, box.y + 14, 13, palette.TEXT, align="right")
    canvas.text(f"{low:.1f} ms", box.x, box.bottom + 22, 14, palette.QUIET)
    canvas.text(f"{high:.1f} ms", box.right, box.bottom + 22, 14, palette.QUIET, align="right")
