"""Measure a bundle on the test part of real pairs: `python -m export.training.evaluate --pairs DIR`.

The pairs are those that `export.training.alignment.align` put into DIR/test, which training never opens. As in the
paper, the network sees the true crop, so that the localiser has no part in the figures. The baseline is told the true
coronal curves and answers the mean sagittal curve of the training pairs. Every measurement is noted in
DIR/evaluations.json: what has been measured often, and chosen by its result, is no longer held out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.bundle import load_bundle
from edge_spine.bundle.load import Bundle
from edge_spine.engines import open_engine
from edge_spine.engines.verification import crop_tensor
from edge_spine.errors import Refusal, UsageError
from edge_spine.files import beside
from edge_spine.network import CROP_SIZE, CropPlacement
from edge_spine.reconstruct import Curves, curves_from_output
from edge_spine.refine import refined
from export.training import agreement
from export.training.agreement import Row, centre_errors, compare, judge_bands
from export.training.samples import held_out_pairs

NOTES = "evaluations.json"


@dataclass
class Measured:
    """Rows of the model, the baseline and the bands, and true Cobb angles (degrees), one an accepted pair."""

    rows: list[Row] = field(default_factory=list)
    baseline: list[Row] = field(default_factory=list)
    bands: list[Row] = field(default_factory=list)
    cobbs: list[float] = field(default_factory=list)
    refused: int = 0


def measure_pairs(model: str | Path | None, folder: Path, engine: str) -> Measured:
    """Measure a bundle on the pairs of DIR/test.

    Raises
    ------
    UsageError
        There are no test pairs.
    """
    crops, targets, sizes = held_out_pairs(folder / "test")
    mean = _mean_sagittal(folder / "train")
    bundle, measured = load_bundle(model), Measured()
    with open_engine(bundle, engine) as network:
        for crop, target, size in zip(crops, targets, sizes.tolist(), strict=True):
            place = CropPlacement(size, (0.0, 0.0), (1.0, 1.0))
            tensor = crop_tensor(crop)
            output = network.infer(tensor)[0]
            if bundle.refinement is not None:
                output = refined(tensor, output, bundle.refinement)
            _add(measured, output, curves_from_output(target.ravel(), place), place, mean, bundle)
    return measured


def _add(
    measured: Measured,
    output: NDArray[np.float32],
    truth: Curves,
    place: CropPlacement,
    mean: NDArray[np.float64],
    bundle: Bundle,
) -> None:
    true = agreement.measured(truth)
    try:
        found = agreement.measured(curves_from_output(output, place))
    except Refusal:
        measured.refused += 1
        return
    guess = replace(truth, sagittal=mean * place.model_pixel_mm)
    measured.rows.append(compare(found, true))
    measured.baseline.append(compare(agreement.measured(guess), true))
    measured.cobbs.append(true.measurements.max_cobb_deg)
    if bundle.bands is not None:
        bands = bundle.bands.at(place.model_pixel_mm, found.measurements.max_cobb_deg)
        measured.bands.append(judge_bands(bands, centre_errors(found.curves, truth)))


def _mean_sagittal(folder: Path) -> NDArray[np.float64]:
    """Return the mean sagittal curves (209, 3) of the training pairs, crop pixels, centre column of mean 0."""
    _, targets, _ = held_out_pairs(folder)
    mean = targets[:, :, 3:].mean(axis=0, dtype=np.float64) * CROP_SIZE
    return np.asarray(mean - mean[:, 1].mean())


def note(folder: Path, entry: dict[str, Any]) -> int:
    """Add a measurement to the folder's notes; return how many were there before."""
    path = folder / NOTES
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        known = [*known, entry]
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{folder.name}/{NOTES} cannot be read ({type(error).__name__})") from None
    with beside(path) as partial:
        partial.write_text(json.dumps(known, indent=1), encoding="utf-8")
    return len(known) - 1
