"""Calibrate the 90 % bands of a bundle's centres: `python -m export.training.calibrate --model BUNDLE --count 1000`.

Phantoms that nothing else uses take the runtime's whole walk with the bundle's own INT8 engine. For each row of each
view by itself, split conformal prediction (Papadopoulos et al. 2002; Lei et al. 2018) turns the absolute errors of the
row's centre into a half-width, which is put into the bundle's manifest, under its seal. A bundle that has bands
already gets new ones. `python -m export.training.evaluate` measures how often they hold.

The score is the error in crop pixels, since the result's errors scale with them, over a widening with the largest
Cobb angle that the walk measures. How fast that widens is fitted on a fifth of the phantoms, the bands on the others,
or they would not be exact. Coverage is marginal: it holds over all scans like the phantoms, not for each kind of them.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge_spine import SpineEstimator
from edge_spine.bands import NOMINAL, SCHEMA, UNIT, VIEWS, widening
from edge_spine.bundle import MANIFEST, Bundle, load_bundle, manifest_bytes, parse_manifest
from edge_spine.errors import EdgeSpineError, Refusal, UsageError
from edge_spine.outputs.atomic import write_files
from export.training.dataset import BAND_SEED
from export.training.evaluate import centre_errors, scan_of
from export.training.phantom import Phantom, make_phantom

_FIT_SHARE = 0.2
_SEVERITIES_DEG = np.geomspace(15, 1000, 100)
_METHOD = (
    "split conformal, each row by itself: half-width = row x crop pixel (mm) x (1 + (largest measured Cobb angle / "
    "severity_deg)^2)"
)

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Errors:
    """Errors of the runtime's walk on N phantoms.

    Attributes
    ----------
    error_px : (N, 2, 209) array
        Absolute error of the coronal and of the sagittal centre, crop pixels of the result.
    cobb_deg : (N,) array
        Largest Cobb angle of the result, which is what the runtime knows, degrees.
    refused : int
        Phantoms that the walk refused, which are not among the N.
    """

    error_px: Array
    cobb_deg: Array
    refused: int


def collect(estimator: SpineEstimator, phantoms: Iterable[Phantom]) -> Errors:
    """Take phantoms through the whole walk.

    Raises
    ------
    UsageError
        Every one was refused.
    """
    errors, cobbs, refused = [], [], 0
    for phantom in phantoms:
        try:
            result = estimator(scan_of(phantom))
        except Refusal:
            refused += 1
            continue
        error_mm = centre_errors(result.curves, phantom.truth(result.curves.z))
        errors.append(error_mm / result.prepared.model_pixel_mm)
        cobbs.append(result.measurements.max_cobb_deg)
    if not errors:
        raise UsageError(f"no phantom could be used, {refused} were refused")
    return Errors(np.array(errors), np.array(cobbs), refused)


def conformal_quantile(scores: Array, nominal: float = NOMINAL) -> Array:
    """Return the order statistic that holds one further score with at least the nominal probability.

    Parameters
    ----------
    scores : (N, ...) array
        Exchangeable along the first axis.
    nominal : float
        Probability.

    Returns
    -------
    (...) array
        The ceil((N + 1) nominal)-th smallest score (Lei et al. 2018, section 2.2).

    Raises
    ------
    UsageError
        N is too small: no score found so far would be large enough.
    """
    # rounded, since 0.9 is a little more than nine tenths in binary
    rank = math.ceil(round((len(scores) + 1) * nominal, 9))
    if rank > len(scores):
        least = math.ceil(round(nominal / (1 - nominal), 9))
        raise UsageError(f"{len(scores)} phantoms are too few for a band of {nominal:.0%}, {least} are needed")
    quantile: Array = np.sort(scores, axis=0)[rank - 1]
    return quantile


def fit_severity(error: Array, cobb_deg: Array) -> float:
    """Find the Cobb angle (degrees) at which errors are twice those of straight spines.

    The likeliest of a hundred between 15 and 1000, for errors (N,) that are exponential around a mean that grows by
    `widening` with `cobb_deg` (N,); 1000 stands for no growth.
    """
    scale = np.stack([widening(cobb_deg, severity) for severity in _SEVERITIES_DEG])
    loss = np.log((error / scale).mean(axis=1)) + np.log(scale).mean(axis=1)
    return float(_SEVERITIES_DEG[int(np.argmin(loss))])


def calibrate(errors: Errors) -> dict[str, Any]:
    """Return the rows of the bands, their `severity_deg`, and how many phantoms gave the rows.

    Raises
    ------
    UsageError
        There are too few phantoms.
    """
    fitted = max(1, round(_FIT_SHARE * len(errors.cobb_deg)))
    severities: dict[str, float] = {}
    rows: dict[str, list[float]] = {}
    for index, view in enumerate(VIEWS):
        error, cobb = errors.error_px[:, index], errors.cobb_deg
        severities[view] = round(fit_severity(error[:fitted].mean(axis=1), cobb[:fitted]), 1)
        quantile = conformal_quantile(error[fitted:] / widening(cobb[fitted:], severities[view])[:, np.newaxis])
        # upwards, so that rounding never makes a band narrower
        rows[view] = [round(value, 4) for value in (np.ceil(quantile * 1e4) / 1e4).tolist()]
    return {**rows, "severity_deg": severities, "count": len(errors.cobb_deg) - fitted}


def with_bands(bundle: Bundle, errors: Errors, first_seed: int) -> bytes:
    """Return the bundle's manifest with bands from errors of its own engine.

    Raises
    ------
    UsageError
        There are too few phantoms, or the bundle does not say which weights it was made from.
    BundleError
        The bands would not be valid.
    """
    weights = bundle.manifest.get("checkpoint", {}).get("sha256")
    if not weights:
        raise UsageError(f"{bundle.folder.name}: the manifest does not name the weights that it was made from")
    found = calibrate(errors)
    fitted = len(errors.cobb_deg) - found["count"]
    bands = {
        "schema": SCHEMA,
        "nominal": NOMINAL,
        "unit": UNIT,
        **found,
        "calibrated_on": f"phantoms, seeds from {first_seed}: {found['count']} for the bands, {fitted} others for "
        f"severity_deg, {errors.refused} refused; not patients",
        "method": _METHOD,
        "weights_sha256": weights,
        "localiser_sha256": bundle.manifest["files"][bundle.file_with_role("localiser")]["sha256"],
    }
    content = manifest_bytes({**bundle.manifest, "bands": bands})
    parse_manifest(content)
    return content


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m export.training.calibrate", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, metavar="BUNDLE", help="bundle folder to add bands to")
    parser.add_argument("--count", type=int, default=1000, help="phantoms to calibrate on (default 1000)")
    parser.add_argument("--seed", type=int, default=BAND_SEED, help=f"first phantom's seed (default {BAND_SEED})")
    parser.add_argument("--engine", default="auto", help="engine to run (default auto)")
    parser.add_argument("--workers", type=int, default=2, help="processes that render; 1 for this one (default 2)")
    return parser


def _run(options: argparse.Namespace) -> None:
    if options.count < 1 or options.workers < 1:
        raise UsageError("--count and --workers must be at least 1")
    if options.seed < BAND_SEED:
        raise UsageError(f"--seed must be {BAND_SEED} or more: training, evaluation and INT8 use the phantoms before")
    bundle = load_bundle(options.model)
    seeds = range(options.seed, options.seed + options.count)
    with ExitStack() as stack:
        estimator = stack.enter_context(SpineEstimator(engine=options.engine, model=options.model))
        phantoms: Iterable[Phantom] = map(make_phantom, seeds)
        if options.workers > 1:
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(options.workers))
            phantoms = pool.imap(make_phantom, seeds, chunksize=4)
        errors = collect(estimator, tqdm(phantoms, total=options.count, unit="phantom", disable=None))
    content = with_bands(bundle, errors, options.seed)
    if load_bundle(options.model).sha256 != bundle.sha256:
        raise UsageError(f"{options.model}: the bundle was replaced meanwhile; nothing was added to it")
    # only the manifest changes, so that one renaming exchanges the whole bundle
    write_files(options.model, {MANIFEST: content})
    calibration = load_bundle(options.model).bands
    assert calibration is not None
    for view in VIEWS:
        rows, severity = getattr(calibration, view), getattr(calibration, f"{view}_severity_deg")
        print(f"{view}: {rows.mean():.2f} crop pixels ({rows.min():.2f} to {rows.max():.2f}), doubled at {severity}°")


def main(argv: list[str] | None = None) -> int:
    """Calibrate from the command line.

    Returns
    -------
    int
        0 when the bundle has its bands, 1 where it cannot be loaded or written, 2 on wrong usage.
    """
    options = _parser().parse_args(argv)
    try:
        _run(options)
    except UsageError as error:
        print(f"calibrate: {error}", file=sys.stderr)
        return 2
    except (EdgeSpineError, OSError) as error:
        print(f"calibrate: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
