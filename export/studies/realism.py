"""Compare a real scan with phantoms: `python -m export.studies.realism SCAN --count 200`.

Brightness and texture of the spine and its surroundings on the network's input are measured in the scan and in new
phantoms; the first table shows the percentile of the scan among the phantoms. The second one shows the contrast of
spine, adjacent strip and ribs (`contrast`) in both. Regions are found by the runtime, so any scan can be used.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge_spine import Scan, SpineEstimator, read_scan
from edge_spine.errors import Refusal
from edge_spine.network import CROP_SIZE, CURVE_ROWS
from edge_spine.preprocessing.crop import resample
from edge_spine.preprocessing.intensity import normalise
from edge_spine.processors import usable_cores
from edge_spine.result import SpineResult
from export.options import report_file
from export.studies.contrast import PARTS, ROWS, contrast, steepest_edges, straighten
from export.training.evaluate import scan_of
from export.training.phantoms.phantom import make_phantom
from export.training.processes import ordered_map

# Phantoms that are used nowhere else.
REALISM_SEED = 45_000_000
# Rows of the curves, and distance from the centre of the spine in crop pixels.
REGIONS = {
    "thoracic spine": (slice(30, 105), (-6, 7)),
    "lumbar spine": (slice(140, 205), (-9, 10)),
    "thoracic edge": (slice(30, 105), (6, 16)),
    "lumbar edge": (slice(140, 205), (9, 22)),
    "lung, right": (slice(30, 80), (-48, -18)),
    "lung, left": (slice(30, 80), (18, 48)),
    "abdomen, right": (slice(140, 190), (-48, -24)),
    "abdomen, left": (slice(140, 190), (24, 48)),
}
# Band-pass textures between these blurs, crop pixels.
TEXTURES = {"grain": (0.0, 0.8), "fine": (0.8, 1.8), "middle": (1.8, 4.0), "coarse": (4.0, 9.0)}
FIGURES = ("mean", "spread", *TEXTURES)


def figures(scan: Scan, result: SpineResult) -> dict[str, float]:
    """Return brightness and texture of each region, in units of the network's input, keyed "region, figure"."""
    crop = _input(scan, result)
    centre = result.prepared.columns_px(result.curves.coronal[:, 1])
    straight = _straightened(crop, centre)
    blurred = {s: cv2.GaussianBlur(straight, (0, 0), s) if s else straight for pair in TEXTURES.values() for s in pair}
    found = {}
    middle = straight.shape[1] // 2
    for region, (rows, (left, right)) in REGIONS.items():
        window = rows, slice(middle + left, middle + right)
        found[f"{region}, mean"] = float(straight[window].mean())
        found[f"{region}, spread"] = float(straight[window].std())
        for name, (low, high) in TEXTURES.items():
            found[f"{region}, {name}"] = float((blurred[low] - blurred[high])[window].std())
    return found


def contrasts(scan: Scan, result: SpineResult) -> dict[str, float]:
    """Return the contrast of spine, strip and ribs, keyed "row, part" as by `contrast`."""
    crop = _input(scan, result)
    pixel = result.prepared.model_pixel_mm
    columns = result.prepared.columns_px(result.curves.coronal)
    line = np.stack([CURVE_ROWS, columns[:, 1]], axis=1)
    straight = straighten(crop, line, pixel)
    seen, true = (_arc(points) for points in (line * pixel, result.spine.centreline))
    along = np.arange(len(straight))
    half = np.interp(along, seen, (columns[:, 2] - columns[:, 0]) / 2 * pixel)
    share = np.interp(along, seen, true / true[-1])
    return contrast(straight, steepest_edges(straight, half), share)


def _arc(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])


def _input(scan: Scan, result: SpineResult) -> NDArray[np.float32]:
    """Cut the network's input out of a scan, (224, 224)."""
    body = result.prepared.body
    shown = normalise(body.pixels, body.mask)
    pixel, origin = result.prepared.model_pixel_mm, result.prepared.crop_origin_px
    return resample(shown, scan.pixel_spacing_mm, pixel, origin, CROP_SIZE)


def _straightened(crop: NDArray[np.float32], centre: NDArray[np.float64]) -> NDArray[np.float32]:
    """Shift each of the 209 rows to centre the spine in the middle column; return (209, 121)."""
    columns = centre[:, None] + np.arange(-60, 61)[None, :]
    rows = np.broadcast_to(7.5 + np.arange(len(centre))[:, None], columns.shape)
    return cv2.remap(crop, columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR)


def percentiles(real: dict[str, float], phantoms: list[dict[str, float]]) -> dict[str, float]:
    """Return the percentage of phantoms with a smaller value than the scan."""
    return {key: 100 * float(np.mean([phantom[key] < value for phantom in phantoms])) for key, value in real.items()}


def table(places: dict[str, float]) -> str:
    """Return the percentiles as Markdown."""
    lines = ["| percentile among phantoms | " + " | ".join(FIGURES) + " |", "|---" * (len(FIGURES) + 1) + "|"]
    for region in REGIONS:
        cells = [f"{places[f'{region}, {figure}']:.0f}" for figure in FIGURES]
        lines.append(f"| {region} | " + " | ".join(cells) + " |")
    inside = np.mean([2.5 <= place <= 97.5 for place in places.values()])
    lines.append(f"\n{100 * inside:.0f} % of {len(places)} figures within the phantoms' central 95 %")
    return "\n".join(lines)


def contrast_table(real: dict[str, float], phantoms: list[dict[str, float]]) -> str:
    """Return the scan's contrast and the phantoms' 5th, 50th and 95th percentiles as Markdown."""
    lines = ["| contrast: scan (5th, 50th, 95th of phantoms) | " + " | ".join(PARTS) + " |"]
    lines.append("|---" * (len(PARTS) + 1) + "|")
    for row in ROWS:
        cells = []
        for part in PARTS:
            key = f"{row}, {part}"
            if key not in real:
                cells.append("-")
                continue
            spread = np.percentile([phantom[key] for phantom in phantoms], [5, 50, 95])
            cells.append(f"{real[key]:.2f} ({', '.join(f'{value:.2f}' for value in spread)})")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Compare from the command line."""
    parser = argparse.ArgumentParser(prog="python -m export.studies.realism", description=__doc__)
    parser.add_argument("scan", type=Path, help="a real whole-body bone image")
    parser.add_argument("--count", type=int, default=200, help="phantoms to compare with (default 200)")
    parser.add_argument("--model", type=Path, help="bundle folder (default: the bundled model)")
    parser.add_argument("--json", type=report_file, help="write the percentiles here as well")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes that render")
    options = parser.parse_args(argv)
    phantoms, contrasted = [], []
    seeds = range(REALISM_SEED, REALISM_SEED + options.count)
    with SpineEstimator(engine="auto", model=options.model) as estimator:
        scan = read_scan(options.scan)
        found = estimator(scan)
        real, real_contrast = figures(scan, found), contrasts(scan, found)
        with ordered_map(options.workers, chunk=4) as mapped:
            drawn = mapped(make_phantom, seeds)
            for phantom in tqdm(drawn, total=options.count, unit="phantom", disable=None):
                drawn_scan = scan_of(phantom)
                try:
                    found = estimator(drawn_scan)
                except Refusal:
                    continue
                phantoms.append(figures(drawn_scan, found))
                contrasted.append(contrasts(drawn_scan, found))
    places = percentiles(real, phantoms)
    print(table(places), contrast_table(real_contrast, contrasted), sep="\n\n")
    if options.json:
        options.json.write_text(json.dumps(places, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
