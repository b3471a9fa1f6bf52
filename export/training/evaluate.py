"""Measure a bundle on held-out phantoms: `python -m export.training.evaluate --count 1000 --json evaluation.json`.

Every scan takes the runtime's whole walk (body, localiser, crop, engine, reconstruction), and is compared with the
phantom's truth at the heights of the result. The baseline is told the true coronal curves and answers every
sagittal question with the mean curve of training subjects; what a model is worth is its distance from that.
Where the bundle has 90 % bands, how often they hold the truth is counted too: of all rows of all phantoms, so that
a row's band is judged by itself, and of whole curves, which lie within all of their rows' bands less often.

`--people DIR --only NAME[,NAME]` measures it on people whose bone comes from the packs in a folder instead, see
`export.training.yardstick`; `--pairs DIR` on the test part of real pairs, see `export.training.pairs_yardstick`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge_spine import SpineEstimator
from edge_spine.bundle import load_bundle
from edge_spine.bundle.bands import NOMINAL, VIEWS
from edge_spine.bundle.load import Bundle
from edge_spine.errors import EdgeSpineError, Refusal, UsageError
from edge_spine.network import CROP_SIZE
from edge_spine.preprocessing import prepare
from edge_spine.preprocessing.locator import Localiser
from edge_spine.preprocessing.prepare import Prepared
from edge_spine.processors import usable_cores
from edge_spine.scan import Scan
from export.exit_status import refused
from export.options import report_file
from export.training import pairs_yardstick, yardstick, yardstick_table
from export.training.agreement import (
    CLASSES,
    FIGURES,
    Row,
    centre_errors,
    compare,
    interval,
    judge_bands,
    mean_sagittal,
    measured,
    scan_of,
)
from export.training.dataset import EVALUATION_SEED
from export.training.phantoms.phantom import Phantom, make_phantom
from export.training.processes import ordered_map

VARIANTS = ("as scanned", "tilted", "shifted", "feet cut", "inverted")
BAND_TOLERANCE = 0.02
_CENTRE = (CROP_SIZE - 1) / 2


def assess(
    estimator: SpineEstimator, phantom: Phantom, mean_curve: NDArray[np.float64]
) -> tuple[Row, Row, Row | None, float]:
    """Return the model's row, the baseline's row, that of the bands where there are any, and the true Cobb angle.

    Raises
    ------
    Refusal
        The runtime refuses the scan.
    """
    result = estimator(scan_of(phantom))
    truth = measured(phantom.truth(result.curves.z), phantom.levels)
    guess = replace(truth.curves, sagittal=mean_curve * phantom.model_pixel_mm)
    model = compare(result, truth)
    bands = None
    if result.band_90 is not None:
        bands = judge_bands(result.band_90, centre_errors(result.curves, truth.curves))
    return model, compare(measured(guess, phantom.levels), truth), bands, truth.measurements.max_cobb_deg


def crop_error_px(prepared: Prepared, origin_px: tuple[float, float], model_pixel_mm: float) -> float:
    """Distance of a crop's centre from the true one, true crop pixels, the larger of row and column."""
    errors = []
    for found, true, spacing in zip(prepared.corner_mm, origin_px, prepared.pixel_spacing_mm, strict=True):
        found_mm = found + _CENTRE * prepared.model_pixel_mm
        true_mm = true * spacing + _CENTRE * model_pixel_mm
        errors.append(abs(found_mm - true_mm) / model_pixel_mm)
    return max(errors)


def vary(phantom: Phantom, variant: str) -> tuple[Scan, tuple[float, float]]:
    """Return a phantom's scan as `variant` and where its true crop begins, scan pixels."""
    rng = np.random.default_rng(phantom.seed)
    pixels = phantom.bone
    rows, columns = pixels.shape
    matrix = np.eye(2, 3)
    if variant == "tilted":
        turn = float(rng.uniform(4, 9)) * float(rng.choice([-1, 1]))
        matrix = cv2.getRotationMatrix2D(((columns - 1) / 2, (rows - 1) / 2), turn, 0.92)
    elif variant == "shifted":
        matrix[:, 2] = rng.uniform(-25, 25), rng.uniform(-12, 0)
    half = np.array([_CENTRE * phantom.model_pixel_mm / spacing for spacing in phantom.framing.pixel_mm])
    centre = np.array(phantom.crop_origin_px()) + half
    moved = matrix @ np.array([centre[1], centre[0], 1.0])
    if variant in ("tilted", "shifted"):
        # what comes into view beside the scan is the scanner's background
        background = 2**phantom.scanner.bits - 1 if phantom.scanner.inverted else 0
        pixels = cv2.warpAffine(pixels, matrix, (columns, rows), flags=cv2.INTER_LINEAR, borderValue=background)
    elif variant == "feet cut":
        share = float(rng.uniform(0.62, 0.95))
        pixels = pixels[: int((phantom.framing.top_left_mm[0] - phantom.person.z(share)) / phantom.framing.pixel_mm[0])]
    elif variant == "inverted":
        pixels = 2**phantom.scanner.bits - 1 - pixels
    return scan_of(phantom, pixels), (moved[1] - half[0], moved[0] - half[1])


def localisation(localiser: Localiser, phantom: Phantom) -> dict[str, float]:
    """Crop error (true crop pixels) of each variant of a scan; infinite where it is refused."""
    errors = {}
    for variant in VARIANTS:
        scan, origin = vary(phantom, variant)
        try:
            errors[variant] = crop_error_px(prepare(scan, localiser), origin, phantom.model_pixel_mm)
        except Refusal:
            errors[variant] = float("inf")
    return errors


def band_summary(rows: list[Row]) -> dict[str, Any]:
    """Coverage of a group's bands with its 95 % interval over phantoms, and their mean half-width, for each view."""
    views = {}
    for view in VIEWS:
        coverage = np.array([row[f"{view}_coverage"] for row in rows])
        views[view] = {
            "coverage": float(coverage.mean()),
            "interval_95": list(interval(coverage)),
            "whole_curve_coverage": float((coverage == 1).mean()),
            "half_width_mm": float(np.mean([row[f"{view}_half_width_mm"] for row in rows])),
        }
    return views


def summary(rows: list[Row], baseline: list[Row], bands: list[Row] | None = None) -> dict[str, Any]:
    """Means of a group, their 95 % intervals, the baseline's means, and the coverage of the bands (or None)."""
    if not rows:
        return {"count": 0}
    columns = {name: np.array([row[name] for row in rows]) for name in FIGURES}
    means = {name: float(values.mean()) for name, values in columns.items()}
    return {
        "count": len(rows),
        **means,
        "interval_95": {name: list(interval(values)) for name, values in columns.items()},
        "baseline": {name: float(np.mean([row[name] for row in baseline])) for name in FIGURES},
        "band_90": band_summary(bands) if bands else None,
    }


def evaluate(model: str | Path | None, phantoms: Iterable[Phantom], total: int, engine: str) -> dict[str, Any]:
    """Evaluate a bundle, as `edge_spine.bundle.load.load_bundle` takes it, on phantoms."""
    mean_curve = mean_sagittal()
    rows, baseline, bands, cobbs, refused = [], [], [], [], 0
    crops: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    bundle = load_bundle(model)
    localiser = Localiser(bundle.read(bundle.file_with_role("localiser")))
    with SpineEstimator(engine=engine, model=model) as estimator:
        for phantom in tqdm(phantoms, total=total, unit="phantom", disable=None):
            for variant, error in localisation(localiser, phantom).items():
                crops[variant].append(error)
            try:
                row, base, band, cobb = assess(estimator, phantom, mean_curve)
            except Refusal:
                refused += 1
                continue
            rows.append(row)
            baseline.append(base)
            if band is not None:
                bands.append(band)
            cobbs.append(cobb)
    return {
        **by_severity(rows, baseline, bands, cobbs),
        "refused": refused,
        "crop_within_8_px": {name: float(np.mean(np.array(errors) <= 8)) for name, errors in crops.items()},
        "model": _identity(bundle),
    }


def _identity(bundle: Bundle) -> dict[str, str]:
    return {"name": bundle.name, "version": bundle.version, "sha256": bundle.sha256}


def by_severity(rows: list[Row], baseline: list[Row], bands: list[Row], cobbs: list[float]) -> dict[str, Any]:
    """Summarise all rows, and those of each class of the true Cobb angle."""
    classes = {}
    for name, low, high in CLASSES:
        chosen = [k for k, cobb in enumerate(cobbs) if low <= cobb < high]
        # a bundle has bands for all results or for none
        classes[name] = summary(
            [rows[k] for k in chosen], [baseline[k] for k in chosen], [bands[k] for k in chosen] if bands else None
        )
    return {**summary(rows, baseline, bands), "severity": classes}


def evaluate_pairs(model: str | Path | None, folder: Path, engine: str) -> dict[str, Any]:
    """Evaluate a bundle on the test part of real pairs, and note it in their folder."""
    measured = pairs_yardstick.measure_pairs(model, folder, engine)
    if not measured.rows:
        raise UsageError(f"all {measured.refused} test pairs were refused")
    report = by_severity(measured.rows, measured.baseline, measured.bands, measured.cobbs)
    model_is = _identity(load_bundle(model))
    before = pairs_yardstick.note(folder, {**model_is, "count": report["count"], "refused": measured.refused})
    return {**report, "refused": measured.refused, "crop_within_8_px": {}, "model": model_is, "measured_before": before}


def table(report: dict[str, Any]) -> str:
    """Lay a report out as text."""
    heads = [("all", report), *report["severity"].items()]
    lines = [f"{'':18}" + "".join(f"{name:>22}" for name, _ in heads)]
    lines.append(f"{'count':18}" + "".join(f"{group['count']:>22}" for _, group in heads))
    for figure in FIGURES:
        cells = []
        for _, group in heads:
            if group["count"] == 0:
                cells.append("-")
                continue
            low, high = group["interval_95"][figure]
            cells.append(f"{group[figure]:.2f} [{low:.2f}, {high:.2f}]")
        lines.append(f"{figure:18}" + "".join(f"{cell:>22}" for cell in cells))
        cells = [f"{g['baseline'][figure]:.2f}" if g["count"] else "-" for _, g in heads]
        lines.append(f"{'  baseline':18}" + "".join(f"{cell:>22}" for cell in cells))
    lines += _band_lines(heads) if report.get("band_90") else ["no 90 % bands: the bundle is not calibrated"]
    lines.append(f"refused: {report['refused']}")
    for variant, share in report["crop_within_8_px"].items():
        lines.append(f"crops within 8 pixels, {variant}: {100 * share:.1f} %")
    if "measured_before" in report:
        lines.append(f"these test pairs were measured {report['measured_before']} times before")
    return "\n".join(lines)


def _band_lines(heads: list[tuple[str, dict[str, Any]]]) -> list[str]:
    lines = []
    for view in VIEWS:
        cells: list[str] = []
        whole: list[str] = []
        widths: list[str] = []
        for _, group in heads:
            if group["count"] == 0:
                for column in (cells, whole, widths):
                    column.append("-")
                continue
            part = group["band_90"][view]
            low, high = (100 * end for end in part["interval_95"])
            cells.append(f"{100 * part['coverage']:.1f} [{low:.1f}, {high:.1f}]")
            whole.append(f"{100 * part['whole_curve_coverage']:.1f}")
            widths.append(f"{part['half_width_mm']:.2f}")
        for name, values in ((f"{view} in band %", cells), ("  whole curve %", whole), ("  half-width mm", widths)):
            lines.append(f"{name:18}" + "".join(f"{value:>22}" for value in values))
    away = max(abs(heads[0][1]["band_90"][view]["coverage"] - NOMINAL) for view in VIEWS)
    kept = "yes" if away <= BAND_TOLERANCE else "NO"
    lines.append(f"bands within 2 points of 90 %: {kept} ({100 * away:.1f} away at most)")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m export.training.evaluate", description=__doc__)
    parser.add_argument("--count", type=int, help="phantoms (default 1000), or scans of each person (default 100)")
    parser.add_argument("--json", type=report_file, help="write the figures here as well")
    parser.add_argument("--model", help="spine (default), lite, or a bundle folder")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes that render")
    parser.add_argument("--people", type=Path, metavar="DIR", help="measure on people made from the packs in a folder")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME[,NAME]",
        help="a person: one pack, or a thoracic and a lumbar one; may be repeated (default: each pack by itself)",
    )
    parser.add_argument(
        "--pairs",
        type=Path,
        metavar="DIR",
        help="measure on the test part of the real pairs in a folder, on their true crops",
    )
    parser.add_argument("--seen", action="store_true", help="accept people that training saw, and mark their figures")
    return parser


def _run(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    count = options.count if options.count is not None else yardstick.COUNT if options.people else 1000
    if count < 1 or options.workers < 1:
        raise UsageError("--count and --workers must be at least 1")
    if options.pairs:
        if options.people or options.only or options.seen or options.count is not None:
            raise UsageError("--pairs takes all test pairs; leave --people, --only, --seen and --count out")
        report = evaluate_pairs(options.model, options.pairs, options.engine)
        return table(report), report
    if options.people:
        report = yardstick.evaluate_people(
            options.people,
            yardstick.choose_people(options.people, options.only),
            count,
            model=options.model,
            engine=options.engine,
            workers=options.workers,
            allow_seen=options.seen,
        )
        return yardstick_table.table(report), report
    if options.only or options.seen:
        raise UsageError("--only and --seen need --people DIR")
    seeds = range(EVALUATION_SEED, EVALUATION_SEED + count)
    with ordered_map(options.workers, chunk=4) as mapped:
        report = evaluate(options.model, mapped(make_phantom, seeds), count, options.engine)
    return table(report), report


def main(argv: list[str] | None = None) -> int:
    """Evaluate from the command line; return 0, 1 where the bundle cannot be used, 2 on wrong usage."""
    options = _parser().parse_args(argv)
    try:
        text, report = _run(options)
    except EdgeSpineError as error:
        return refused("evaluate", error)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1, allow_nan=False), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
