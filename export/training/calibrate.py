"""Calibrate the 90 % bands of a bundle's centres: `python -m export.training.calibrate --model BUNDLE --count 1000`.

Phantoms that nothing else uses take the runtime's whole walk with the bundle's own INT8 engine. For each row of each
view by itself, split conformal prediction (Papadopoulos et al. 2002; Lei et al. 2018) turns the absolute errors of the
row's centre into a half-width, which is put into the bundle's manifest, under its seal. A bundle that has bands
already gets new ones. `python -m export.training.evaluate` measures how often they hold.

With `--people DIR --only NAME[,NAME] --only ...` bands also hold for people whom training did not see: each `--only`
is one person whose bone comes from these packs, see `export.training.people_bands`. A row keeps the wider of both
bands. How often they hold is printed for phantoms and for each person when the others alone give the bands, and how
much better the side view is than the mean curve (`sagittal_gain`) is put into the bundle.

The score is the error in crop pixels, since the result's errors scale with them, over a widening with the largest
Cobb angle that the walk measures. How fast that widens is fitted on a fifth of the phantoms, the bands on the others,
or they would not be exact. Coverage is marginal: it holds over all scans like the phantoms, not for each kind of them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge_spine import SpineEstimator
from edge_spine.bundle import load_bundle
from edge_spine.bundle.bands import NOMINAL, SCHEMA, UNIT, VIEWS, widening
from edge_spine.bundle.load import Bundle
from edge_spine.errors import EdgeSpineError, UsageError
from export.exit_status import refused
from export.training.agreement import mean_sagittal
from export.training.angle_errors import angles_block, interval_lines
from export.training.block import replace_block
from export.training.dataset import BAND_SEED
from export.training.people import make_person
from export.training.people_bands import (
    LEAST_IMAGES,
    LEAST_PEOPLE,
    METHOD,
    coverage,
    left_out_coverage,
    people_rows,
)
from export.training.phantoms.phantom import Phantom, make_phantom
from export.training.processes import ordered_map
from export.training.walk_errors import Errors, collect

_FIT_SHARE = 0.2
_SEVERITIES_DEG = np.geomspace(15, 1000, 100)
_METHOD = (
    "split conformal, each row by itself: half-width = row x crop pixel (mm) x (1 + (largest measured Cobb angle / "
    "severity_deg)^2)"
)

Array = NDArray[np.float64]


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


def calibrate(errors: Errors, people: Mapping[str, Errors] | None = None) -> dict[str, Any]:
    """Return the rows of the bands, their `severity_deg`, and how many phantoms gave the rows.

    Parameters
    ----------
    errors : Errors
        Of phantoms.
    people : mapping of Errors, optional
        By person; rows are then wide enough for both.

    Raises
    ------
    UsageError
        There are too few phantoms or people.
    """
    fitted = max(1, round(_FIT_SHARE * len(errors.cobb_deg)))
    severities: dict[str, float] = {}
    rows: dict[str, list[float]] = {}
    for index, view in enumerate(VIEWS):
        error, cobb = np.abs(errors.error_px[:, index]), errors.cobb_deg
        severities[view] = round(fit_severity(error[:fitted].mean(axis=1), cobb[:fitted]), 1)
        quantile = conformal_quantile(error[fitted:] / widening(cobb[fitted:], severities[view])[:, np.newaxis])
        if people:
            signed = [person.scores(index, severities[view]) for person in people.values()]
            quantile = np.maximum(quantile, people_rows(signed))
        # upwards, so that rounding never makes a band narrower
        rows[view] = [round(value, 4) for value in (np.ceil(quantile * 1e4) / 1e4).tolist()]
    return {**rows, "severity_deg": severities, "count": len(errors.cobb_deg) - fitted}


def sagittal_gain(people: Mapping[str, Errors]) -> float:
    """Return the share of the mean curve's sagittal error that the model saves, every person weighing the same.

    Raises
    ------
    ValueError
        The errors were collected without a mean curve.
    """
    model, baseline = 0.0, 0.0
    for person in people.values():
        if person.mean_curve_px is None:
            raise ValueError("errors with those of the mean curve are needed")
        model += float(np.abs(person.error_px[:, 1]).mean())
        baseline += float(person.mean_curve_px.mean())
    return 1 - model / baseline


def coverage_table(errors: Errors, people: Mapping[str, Errors]) -> list[str]:
    """Return lines that say how often bands hold, side by side for phantoms and for people.

    Raises
    ------
    UsageError
        There are too few phantoms or people.
    """
    alone, both = calibrate(errors), calibrate(errors, people)
    left_out = f"people, each by bands from the others ({len(people)})"
    table: dict[str, list[float]] = {}
    for index, view in enumerate(VIEWS):
        severity = both["severity_deg"][view]
        floor, rows = np.array(alone[view]), np.array(both[view])
        scores = {name: person.scores(index, severity) for name, person in people.items()}
        found = left_out_coverage(scores, floor)
        column = {
            "phantoms, their bands alone": coverage(floor, errors.scores(index, severity)),
            "phantoms": coverage(rows, errors.scores(index, severity)),
            "people, phantoms' bands alone": float(np.mean([coverage(floor, score) for score in scores.values()])),
            "people, in sample": float(np.mean([coverage(rows, score) for score in scores.values()])),
            left_out: float(np.mean(list(found.values()))),
            **{f"  {name}": share for name, share in found.items()},
        }
        for name, share in column.items():
            table.setdefault(name, []).append(share)
    width = max(map(len, table))
    lines = [f"{name:{width}}" + "".join(f"{share:10.1%}" for share in shares) for name, shares in table.items()]
    return [f"{'coverage of the 90 % bands':{width}}" + "".join(f"{view:>10}" for view in VIEWS), *lines]


def bands_block(
    bundle: Bundle, errors: Errors, first_seed: int, people: Mapping[str, Errors] | None = None
) -> dict[str, Any]:
    """Return bands, as a manifest holds them, from errors of a bundle's engine on phantoms and, if given, on people.

    Raises
    ------
    UsageError
        There are too few phantoms or people, or the bundle does not say which weights it was made from.
    """
    weights = bundle.manifest.get("checkpoint", {}).get("sha256")
    if not weights:
        raise UsageError(f"{bundle.folder.name}: the manifest does not name the weights that it was made from")
    found = calibrate(errors, people)
    fitted = len(errors.cobb_deg) - found["count"]
    bands = {
        "schema": SCHEMA,
        "nominal": NOMINAL,
        "unit": UNIT,
        **found,
        "calibrated_on": f"phantoms, seeds from {first_seed}: {found['count']} for the bands, {fitted} others for "
        f"severity_deg, {errors.refused} refused{_described(people)}; not patients",
        "method": f"{_METHOD}; {METHOD}" if people else _METHOD,
        "weights_sha256": weights,
        "localiser_sha256": bundle.manifest["files"][bundle.file_with_role("localiser")]["sha256"],
    }
    if people:
        bands["sagittal_gain"] = round(sagittal_gain(people), 3)
    return bands


def _described(people: Mapping[str, Errors] | None) -> str:
    if not people:
        return ""
    images = sum(len(person.cobb_deg) for person in people.values())
    refused = sum(person.refused for person in people.values())
    return f"; {images} images of {len(people)} left-out people ({', '.join(people)}), {refused} refused"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m export.training.calibrate", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, metavar="BUNDLE", help="bundle folder to add bands to")
    parser.add_argument("--count", type=int, default=1000, help="phantoms to calibrate on (default 1000)")
    parser.add_argument("--seed", type=int, default=BAND_SEED, help=f"first phantom's seed (default {BAND_SEED})")
    parser.add_argument("--engine", default="auto", help="engine to run (default auto)")
    parser.add_argument("--workers", type=int, default=2, help="processes that render; 1 for this one (default 2)")
    parser.add_argument("--people", type=Path, metavar="DIR", help="folder of packs of real bone")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME[,NAME]",
        help="packs of one person whom training did not see; once for each person",
    )
    parser.add_argument("--per-person", type=int, default=40, metavar="N", help="images of each person (default 40)")
    return parser


def _groups(options: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    """Return the packs of each person.

    Raises
    ------
    UsageError
        There are too few people or images, or a pack belongs to two.
    """
    if bool(options.people) != bool(options.only):
        raise UsageError("--people and --only belong together")
    groups = {only: tuple(name.strip() for name in only.split(",")) for only in options.only}
    names = [name for group in groups.values() for name in group]
    if len(groups) != len(options.only) or len(set(names)) != len(names) or not all(names):
        raise UsageError("every --only needs packs of its own: bands over people need people who share no bone")
    if groups and (len(groups) < LEAST_PEOPLE or options.per_person < LEAST_IMAGES):
        raise UsageError(f"--only is needed for {LEAST_PEOPLE} people or more, with {LEAST_IMAGES} images each")
    return groups


def _run(options: argparse.Namespace) -> None:
    if options.count < 1 or options.workers < 1:
        raise UsageError("--count and --workers must be at least 1")
    if options.seed < BAND_SEED:
        raise UsageError(f"--seed must be {BAND_SEED} or more: training, evaluation and INT8 use the phantoms before")
    groups = _groups(options)
    bundle = load_bundle(options.model)
    seeds = range(options.seed, options.seed + options.count)
    with ExitStack() as stack:
        estimator = stack.enter_context(SpineEstimator(engine=options.engine, model=options.model))
        render = stack.enter_context(ordered_map(options.workers, chunk=4))
        phantoms = render(make_phantom, seeds)
        errors = collect(estimator, tqdm(phantoms, total=options.count, unit="phantom", disable=None))
        people = _people(estimator, groups, options, render) if groups else None
    bands = bands_block(bundle, errors, options.seed, people)
    angles = angles_block(errors, people or {}, bands["calibrated_on"], bands["weights_sha256"])
    replace_block(bundle, "bands", bands)
    replace_block(load_bundle(options.model), "angles", angles)
    calibration = load_bundle(options.model).bands
    assert calibration is not None
    for view in VIEWS:
        rows, severity = getattr(calibration, view), getattr(calibration, f"{view}_severity_deg")
        print(f"{view}: {rows.mean():.2f} crop pixels ({rows.min():.2f} to {rows.max():.2f}), doubled at {severity}°")
    if people:
        print(*coverage_table(errors, people), sep="\n")
        print(f"sagittal gain over the mean curve, left-out people: {sagittal_gain(people):.1%}")
    print(*interval_lines(angles, {"phantoms": errors, **(people or {})}), sep="\n")


def _people(
    estimator: SpineEstimator,
    groups: Mapping[str, tuple[str, ...]],
    options: argparse.Namespace,
    render: Callable[[Callable[[int], Phantom], range], Iterable[Phantom]],
) -> dict[str, Errors]:
    mean_curve = mean_sagittal()[:, 1]
    people = {}
    for index, (person, names) in enumerate(groups.items()):
        first = options.seed + index * options.per_person
        images = render(partial(make_person, options.people, names), range(first, first + options.per_person))
        people[person] = collect(
            estimator, tqdm(images, total=options.per_person, unit=person, disable=None), mean_curve
        )
    return people


def main(argv: list[str] | None = None) -> int:
    """Calibrate from the command line; return 0, 1 where the bundle cannot be loaded or written, 2 on wrong usage."""
    options = _parser().parse_args(argv)
    try:
        _run(options)
    except (EdgeSpineError, OSError) as error:
        return refused("calibrate", error)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
