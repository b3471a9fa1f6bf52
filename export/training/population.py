"""Add the range of a population's side views to a bundle: `python -m export.training.population --model BUNDLE`.

The range contains the sagittal centre of each row in 90 % of the training subjects, relative to the mean of their
centreline, in crop pixels. The preview draws it behind the inferred side view.

Also the limits of kyphosis and lordosis, 1st and 99th percentile, outside which a result is flagged as
"side-view-atypical". They are those of the subjects' true curves or, with `--answers N`, those of the
bundle's results on N phantoms: a network that is uncertain about the side view predicts values closer to the mean, and
then rarely exceeds limits of the truth. On 250 phantoms model 0.3.0
gave 10.2 to 47.5 and 13.2 to 59.5 degrees, their true curves 10.4 to 50.2 and 13.2 to 69.0: only the
upper end is too small. The truth is therefore the default; compare again for a new model.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from edge_spine import SpineEstimator
from edge_spine.bundle import load_bundle
from edge_spine.bundle.bands import ANGLE_SHARE, ANGLES, SHARE, UNIT
from edge_spine.bundle.bands import POPULATION_SCHEMA as SCHEMA
from edge_spine.errors import EdgeSpineError, Refusal, UsageError
from edge_spine.measure import Measurements, measure
from edge_spine.reconstruct import reconstruct
from export.exit_status import refused
from export.training.block import replace_block
from export.training.dataset import EVALUATION_SEED
from export.training.evaluate import scan_of
from export.training.phantoms.phantom import make_phantom, make_subject


def angles_of(measurements: Measurements) -> tuple[float, float]:
    """Return kyphosis and lordosis, degrees."""
    return measurements.kyphosis_t4_t12_deg, measurements.lordosis_l1_l5_deg


def angle_limits(angles: Sequence[tuple[float, float]], source: str) -> dict[str, Any]:
    """Return the central 98 % of kyphoses and lordoses (N, 2), degrees, as a manifest holds them.

    Parameters
    ----------
    angles : sequence of (float, float)
        From `angles_of`.
    source : {"true curves", "answers"}
        Source of the angles.
    """
    tail = 50 * (1 - ANGLE_SHARE)
    limits = np.percentile(angles, (tail, 100 - tail), axis=0).round(2).T.tolist()
    return {**dict(zip(ANGLES, limits, strict=True)), "angles_of": source}


def answered_angles(model: Path, count: int, engine: str = "auto") -> list[tuple[float, float]]:
    """Return kyphosis and lordosis of a bundle's results on `count` unseen phantoms.

    Raises
    ------
    UsageError
        The runtime refuses 10 % or more.
    """
    found = []
    with SpineEstimator(engine=engine, model=model) as estimator:
        for seed in tqdm(range(EVALUATION_SEED, EVALUATION_SEED + count), unit="phantom", disable=None):
            with suppress(Refusal):
                found.append(angles_of(estimator(scan_of(make_phantom(seed))).measurements))
    if len(found) <= 0.9 * count:
        raise UsageError(f"{count - len(found)} of {count} phantoms were refused")
    return found


def population_range(count: int) -> dict[str, Any]:
    """Return range and angles of the training subjects of seeds 0 to `count` - 1, as a manifest holds them."""
    places, angles = [], []
    for seed in tqdm(range(count), unit="subject", disable=None):
        subject = make_subject(seed)
        truth = subject.truth(subject.trunk_heights_mm)
        places.append(truth.sagittal[:, 1] / subject.model_pixel_mm)
        angles.append(angles_of(measure(reconstruct(truth), subject.levels)))
    tail = 50 * (1 - SHARE)
    low, high = np.percentile(places, (tail, 100 - tail), axis=0)
    return {
        "schema": SCHEMA,
        "share": SHARE,
        "unit": UNIT,
        "low": low.round(3).tolist(),
        "high": high.round(3).tolist(),
        **angle_limits(angles, "true curves"),
        "count": count,
        "described": f"synthetic phantoms, seeds 0 to {count - 1}, each row by itself; not patients",
    }


def main(argv: list[str] | None = None) -> int:
    """Add the range from the command line; return 0, 1 if the bundle cannot be loaded or written, 2 on wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m export.training.population", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, metavar="BUNDLE", help="bundle folder to add it to")
    parser.add_argument("--count", type=int, default=4000, help="subjects (default 4000)")
    parser.add_argument(
        "--answers", type=int, metavar="N", help="limit the angles by the bundle's answers on N phantoms"
    )
    parser.add_argument("--engine", default="auto", help="engine that answers (default auto)")
    options = parser.parse_args(argv)
    if min(options.count, options.answers or options.count) < 100:
        parser.error("--count and --answers must be at least 100")
    try:
        bundle = load_bundle(options.model)
        population = population_range(options.count)
        if options.answers is not None:
            population |= angle_limits(answered_angles(options.model, options.answers, options.engine), "answers")
        replace_block(bundle, "population", population)
    except (EdgeSpineError, OSError) as error:
        return refused("population", error)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
