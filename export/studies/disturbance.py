"""Measure whether disturbed pictures are noticed: `python -m export.studies.disturbance --count 200 --people PACKS`.

Metal, contrast medium, clipped greys, a step from movement, a belt or wire, and coarse rows are drawn on scans of
phantoms without metal, and of people if there are packs of bone. Each scan is taken through the whole runtime as it is
and disturbed. Printed are the rate of false alarms on undisturbed scans, the rate of hits where the largest Cobb angle
moves by more than 5 degrees, how much wider the 90 % band would have to be on the rows that the flag names, how
often the band that the result has there holds the undisturbed centre, and how often the interval of the Cobb angle of
flagged results holds the undisturbed and, on phantoms and people, the true angle.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_spine import SpineEstimator, read_scan
from edge_spine.disturbance import FLAGS, find_disturbances
from edge_spine.errors import Refusal, UsageError
from edge_spine.measure import cobb_deg
from edge_spine.processors import usable_cores
from edge_spine.result import SpineResult
from edge_spine.scan import Scan
from export.options import report_file
from export.training.dataset import Maker, makers_of
from export.training.phantoms import extras
from export.training.processes import ordered_map

Image = NDArray[np.float32]
SEED = 62_000_000
MOVED_DEG = 5.0


@dataclass(frozen=True)
class Canvas:
    """An image to draw on, with the spine's place in it.

    Attributes
    ----------
    pixels : (rows, columns) float32 array
        Bone is bright.
    spacing_mm : (row, column)
        Pixel spacing.
    z, x, half_width : (209,) arrays
        The centreline, mm below and right of the first pixel, and half the width of the spine.
    """

    pixels: Image
    spacing_mm: tuple[float, float]
    z: NDArray[np.float64]
    x: NDArray[np.float64]
    half_width: NDArray[np.float64]

    @property
    def white(self) -> float:
        """The brightest value."""
        return float(self.pixels.max())

    def at(self, share: float) -> tuple[float, float]:
        """Return z and x of a part of the way from T1 to L5, mm."""
        row = share * 208
        index = np.arange(209)
        return float(np.interp(row, index, self.z)), float(np.interp(row, index, self.x))

    def shape(self, *outlines: NDArray[np.float64], blur_mm: float = 1.5) -> Image:
        """Return how far polygons of (z, x) in mm cover each pixel, 0 to 1."""
        cover = np.zeros(self.pixels.shape, np.float32)
        for outline in outlines:
            points = np.round((outline[:, ::-1] / self.spacing_mm[::-1]) * 16).astype(np.int32)
            cv2.fillPoly(cover, [points], 1.0, shift=4)
        sigma = [max(0.3, blur_mm / mm) for mm in self.spacing_mm[::-1]]
        return np.asarray(cv2.GaussianBlur(cover, (0, 0), sigma[0], sigmaY=sigma[1]), np.float32)


def _line(z: NDArray[np.float64], x: NDArray[np.float64], half: float) -> NDArray[np.float64]:
    """Return the outline of a line down the image, mm."""
    return np.concatenate([np.stack([z, x - half], 1), np.stack([z, x + half], 1)[::-1]])


def _box(z: float, x: float, high: float, wide: float, slope: float = 0.0) -> NDArray[np.float64]:
    corners = np.array([[-high, -wide], [-high, wide], [high, wide], [high, -wide]]) / 2
    corners[:, 0] += slope * corners[:, 1]
    return corners + [z, x]


def _disc(z: float, x: float, radius: float) -> NDArray[np.float64]:
    turn = np.linspace(0, 2 * np.pi, 25)
    return np.stack([z + radius * np.sin(turn), x + radius * np.cos(turn)], 1)


def _metal(canvas: Canvas, *outlines: NDArray[np.float64]) -> Image:
    return np.maximum(canvas.pixels, canvas.white * np.minimum(1, 1.5 * canvas.shape(*outlines, blur_mm=1.0)))


def rods(canvas: Canvas, rng: np.random.Generator) -> Image:
    """Two spinal rods with the heads of screws."""
    first = rng.uniform(0.0, 0.6)
    part = np.linspace(first, min(1.0, first + rng.uniform(0.3, 0.7)), 12)
    z, x = np.array([canvas.at(p) for p in part]).T
    straight = np.linspace(x[0], x[-1], len(x))
    x = x + rng.uniform(0, 1) * (straight - x)
    outlines = []
    for side in (-1, 1):
        rod = x + side * rng.uniform(9, 16)
        outlines += [_line(z, rod, rng.uniform(2.5, 3.5))]
        outlines += [_disc(a, b, rng.uniform(4, 7)) for a, b in zip(z[::2], rod[::2], strict=True)]
    return _metal(canvas, *outlines)


def plate(canvas: Canvas, rng: np.random.Generator) -> Image:
    """A metal plate over or beside the spine."""
    return _plate(canvas, rng, 35.0)


def plate_over(canvas: Canvas, rng: np.random.Generator) -> Image:
    """A metal plate over the spine."""
    return _plate(canvas, rng, 12.0)


def _plate(canvas: Canvas, rng: np.random.Generator, aside_mm: float) -> Image:
    z, x = canvas.at(rng.uniform(0.15, 0.85))
    x += rng.uniform(-aside_mm, aside_mm)
    box = _box(z, x, rng.uniform(50, 150), rng.uniform(18, 45), rng.uniform(-0.4, 0.4))
    return _metal(canvas, box)


def metal_over_all(canvas: Canvas, rng: np.random.Generator) -> Image:
    """Metal over most of the spine: a plate, or two thick rods."""
    first, last = rng.uniform(0.0, 0.1), rng.uniform(0.85, 1.0)
    z, x = np.array([canvas.at(part) for part in np.linspace(first, last, 40)]).T
    places, half = ((0.0,), rng.uniform(14, 22)) if rng.random() < 0.5 else ((-9.0, 9.0), rng.uniform(6, 7))
    return _metal(canvas, *(_line(z, x + place, half) for place in places))


def prosthesis(canvas: Canvas, rng: np.random.Generator) -> Image:
    """A compact implant beside the spine."""
    z, x = canvas.at(rng.uniform(0.1, 0.9))
    return _metal(canvas, _disc(z, x + rng.choice([-1, 1]) * rng.uniform(15, 50), rng.uniform(12, 26)))


def contrast_medium(canvas: Canvas, rng: np.random.Generator) -> Image:
    """Contrast medium in the bowel beside and before the lumbar spine."""
    shown = canvas.pixels.copy()
    for _ in range(int(rng.integers(3, 9))):
        z, x = canvas.at(rng.uniform(0.62, 1.0))
        blob = canvas.shape(_disc(z, x + rng.uniform(-75, 75), rng.uniform(10, 26)), blur_mm=3.0)
        shown += canvas.white * rng.uniform(0.4, 0.8) * blob
    return np.minimum(shown, canvas.white)


def clipped(canvas: Canvas, rng: np.random.Generator) -> Image:
    """The upper half of the grey range, more or less, is lost."""
    return np.minimum(canvas.pixels, canvas.white * np.float32(rng.uniform(0.35, 0.6)))


def step(canvas: Canvas, rng: np.random.Generator) -> Image:
    """The person moves sideways in mid-scan."""
    row = int(canvas.at(rng.uniform(0.1, 0.9))[0] / canvas.spacing_mm[0])
    shift = rng.choice([-1, 1]) * rng.uniform(12, 40) / canvas.spacing_mm[1]
    move = np.array([[1, 0, shift], [0, 1, 0]], np.float64)
    below = canvas.pixels[row:]
    border = float(canvas.pixels.min())
    moved = cv2.warpAffine(below, move, below.shape[::-1], borderMode=cv2.BORDER_CONSTANT, borderValue=border)
    return np.concatenate([canvas.pixels[:row], np.asarray(moved, np.float32)])


def belt(canvas: Canvas, rng: np.random.Generator) -> Image:
    """A belt with a buckle across the spine."""
    z, x = canvas.at(rng.uniform(0.3, 0.95))
    high, slope = rng.uniform(25, 45), rng.uniform(-0.08, 0.08)
    strap = canvas.white * rng.uniform(0.15, 0.5) * canvas.shape(_box(z, x, high, 340, slope))
    shown = np.minimum(canvas.pixels + strap, canvas.white)
    buckle = canvas.shape(_box(z, x + rng.uniform(-40, 40), high, rng.uniform(30, 60), slope), blur_mm=1.0)
    return np.maximum(shown, canvas.white * np.minimum(1, 1.5 * buckle))


def wire(canvas: Canvas, rng: np.random.Generator) -> Image:
    """A wire or cable across the spine."""
    z, x = canvas.at(rng.uniform(0.1, 0.9))
    cover = canvas.shape(_box(z, x, rng.uniform(3, 8), rng.uniform(200, 340), rng.uniform(-0.2, 0.2)))
    return np.minimum(canvas.pixels + canvas.white * rng.uniform(0.4, 1.0) * cover, canvas.white)


def coarse(canvas: Canvas, rng: np.random.Generator) -> Image:
    """Rows of 9 to 14 mm."""
    count = max(100, round(len(canvas.pixels) * canvas.spacing_mm[0] / rng.uniform(9, 14)))
    return np.asarray(
        cv2.resize(canvas.pixels, (canvas.pixels.shape[1], count), interpolation=cv2.INTER_AREA), np.float32
    )


# what is drawn, and the flags of which one is due
KINDS: dict[str, tuple[Callable[[Canvas, np.random.Generator], Image], tuple[str, ...]]] = {
    "rods": (rods, ("metal",)),
    "plate": (plate, ("metal",)),
    "plate over the spine": (plate_over, ("metal",)),
    "prosthesis": (prosthesis, ("metal",)),
    "contrast medium": (contrast_medium, ("contrast-medium", "metal")),
    "clipped greys": (clipped, ("saturated",)),
    "step": (step, ("motion",)),
    "belt": (belt, ("object-across", "metal")),
    "wire": (wire, ("object-across", "metal")),
    "coarse rows": (coarse, ("rows-coarse",)),
    "metal over most of the spine": (metal_over_all, ("metal",)),
}


@dataclass(frozen=True)
class Outcome:
    """One scan, undisturbed ("") or disturbed: flags, movement of the angle, and of the centre on flagged rows.

    `over_band` holds the movement in half-widths of the undisturbed band, `over_given` in those that the result has.
    `error_deg` is the half-width of the Cobb angle's interval, `wrong_deg` the difference from the true angle, where
    these are known.
    """

    group: str
    kind: str
    flags: tuple[str, ...]
    moved_deg: float
    over_band: tuple[float, ...] = ()
    over_given: tuple[float, ...] = ()
    code: str = ""
    error_deg: float | None = None
    wrong_deg: float | None = None


def outcomes(
    group: str,
    scan: Scan,
    estimator: SpineEstimator,
    rng: np.random.Generator,
    true_deg: float | None = None,
    kinds: Iterable[str] = KINDS,
) -> Iterator[Outcome]:
    """Take a scan, whose largest Cobb angle is `true_deg`, through the runtime as it is and with each disturbance."""
    try:
        plain = estimator(scan)
    except Refusal:
        return
    yield Outcome(group, "", plain.quality.flags, 0.0)
    pixels = plain.prepared.body.pixels
    curves = plain.curves
    half = (curves.coronal[:, 2] - curves.coronal[:, 0]) / 2
    canvas = Canvas(pixels, scan.pixel_spacing_mm, -curves.z, curves.coronal[:, 1], half)
    for kind in kinds:
        shown = KINDS[kind][0](canvas, rng)
        row_mm = scan.pixel_spacing_mm[0] * len(pixels) / len(shown)
        disturbed = Scan(shown, (row_mm, scan.pixel_spacing_mm[1]), scan.source, None)
        try:
            found = estimator(disturbed)
        except Refusal as refusal:
            yield Outcome(group, kind, (), 0.0, code=refusal.code)
            continue
        measured = found.measurements
        moved = abs(measured.max_cobb_deg - plain.measurements.max_cobb_deg)
        wrong = None if true_deg is None else abs(measured.max_cobb_deg - true_deg)
        over = over_bands(plain, found) if kind != "step" else ((), ())
        yield Outcome(group, kind, found.quality.flags, moved, *over, "", measured.max_cobb_error_90_deg, wrong)


def over_bands(plain: SpineResult, found: SpineResult) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return how far the centre moved on disturbed rows, in half-widths of the undisturbed and of the given band."""
    rows = np.zeros(209, bool)
    for disturbed in find_disturbances(found.prepared, found.curves).rows.values():
        rows |= disturbed
    if plain.band_90 is None or found.band_90 is None:
        return (), ()
    was = np.interp(-found.curves.z, -plain.curves.z, plain.curves.coronal[:, 1])
    band = np.interp(-found.curves.z, -plain.curves.z, plain.band_90.coronal)
    moved = np.abs(found.curves.coronal[:, 1] - was)[rows]
    return tuple(moved / band[rows]), tuple(moved / found.band_90.coronal[rows])


_estimator: SpineEstimator
_kinds: Collection[str]


def _open(model: str | None, kinds: Collection[str]) -> None:
    global _estimator, _kinds
    _kinds = kinds
    cv2.setNumThreads(1)
    # phantoms without metal: what they carry would be found, and rightly
    extras._SHARES.update(dict.fromkeys(extras._SHARES, 0.0))
    _estimator = SpineEstimator(engine="onnx-cpu", model=model, threads=1)


def _tried(task: tuple[str, Maker, int]) -> list[Outcome]:
    group, make, seed = task
    made = make(seed)
    if made.scanner.moved:
        return []
    scan = Scan(made.bone.astype(np.float32), made.framing.pixel_mm, str(seed), None)
    true_deg = cobb_deg(made.tilts_deg[:, 0])
    return list(outcomes(group, scan, _estimator, np.random.default_rng(seed), true_deg, _kinds))


def table(found: list[Outcome]) -> str:
    """Return the rates as Markdown."""
    plain = [outcome for outcome in found if not outcome.kind]
    lines = ["| flag | false alarms on undisturbed scans |", "|---|---|"]
    for flag in FLAGS:
        wrong = sum(flag in outcome.flags for outcome in plain)
        lines.append(f"| `{flag}` | {100 * wrong / len(plain):.1f} % ({wrong} of {len(plain)}) |")
    if len(plain) == len(found):
        return "\n".join(lines)
    lines += [
        "",
        f"| disturbance | refused | Cobb moved by more than {MOVED_DEG:g} degrees | flagged of these "
        "| flagged of the others | 90 % of errors on flagged rows, bands | within the given band "
        "| flagged: Cobb interval holds the undisturbed angle | the true angle |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, (_, due) in KINDS.items():
        of_kind = [outcome for outcome in found if outcome.kind == kind]
        done = [outcome for outcome in of_kind if not outcome.code]
        cells = [f"{len(of_kind) - len(done)} of {len(of_kind)}"]
        moved = [outcome for outcome in done if outcome.moved_deg > MOVED_DEG]
        cells.append(f"{len(moved)}")
        for group in (moved, [outcome for outcome in done if outcome.moved_deg <= MOVED_DEG]):
            hits = sum(bool(set(due) & set(outcome.flags)) for outcome in group)
            cells.append(f"{100 * hits / len(group):.0f} % ({hits} of {len(group)})" if group else "-")
        errors, given = (
            np.concatenate([np.array(getattr(outcome, name)) for outcome in done] or [np.empty(0)])
            for name in ("over_band", "over_given")
        )
        cells.append(f"{np.quantile(errors, 0.9):.1f}" if len(errors) else "-")
        cells.append(f"{100 * np.mean(given <= 1):.0f} %" if len(given) else "-")
        flagged = [outcome for outcome in done if set(due) & set(outcome.flags)]
        cells += [_held([(outcome.moved_deg, outcome.error_deg) for outcome in flagged])]
        cells += [_held([(outcome.wrong_deg, outcome.error_deg) for outcome in flagged])]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _held(cases: list[tuple[float | None, float | None]]) -> str:
    known = [off <= error for off, error in cases if off is not None and error is not None]
    return f"{100 * np.mean(known):.0f} % ({sum(known)} of {len(known)})" if known else "-"


def main(argv: list[str] | None = None) -> int:
    """Measure how often disturbed pictures are flagged, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m export.studies.disturbance", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="phantoms, and as many people (default %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="of the first (default %(default)s)")
    parser.add_argument("--people", type=Path, metavar="DIR", help="folder with packs of bone")
    parser.add_argument("--scan", type=Path, metavar="FILE", help="a real scan, disturbed 20 times in the same way")
    parser.add_argument("--model", help="default: the packaged model")
    parser.add_argument("--undisturbed", action="store_true", help="draw nothing, and count false alarms alone")
    parser.add_argument("--workers", type=int, default=usable_cores())
    parser.add_argument("--json", type=report_file, metavar="FILE", help="write every outcome here too")
    options = parser.parse_args(argv)
    try:
        makers = makers_of(options.people)
    except UsageError as error:
        parser.error(str(error))
    kinds = () if options.undisturbed else tuple(KINDS)
    tasks = [(group, make, options.seed + k) for k in range(options.count) for group, make in makers.items()]
    with ordered_map(options.workers, _open, (options.model, kinds)) as mapped:
        found = [outcome for part in mapped(_tried, tasks) for outcome in part]
    if options.scan is not None:
        _open(options.model, kinds)
        scan = replace(read_scan(options.scan), header=None)
        for seed in range(20):
            drawn = outcomes("real scan", scan, _estimator, np.random.default_rng(seed), kinds=kinds)
            # undisturbed it is one scan
            found += [outcome for outcome in drawn if outcome.kind or seed == 0]
    print(table(found))
    if options.json:
        rows: list[Any] = [vars(outcome) for outcome in found]
        options.json.write_text(json.dumps(rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
