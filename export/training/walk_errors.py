"""Collect the errors of the runtime's whole walk on phantoms and people, for its calibration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_spine import SpineEstimator
from edge_spine.bundle.bands import VIEWS, widening
from edge_spine.errors import Refusal, UsageError
from export.training.agreement import endplate_errors, scan_of
from export.training.phantoms.phantom import Phantom

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Errors:
    """Errors of the runtime's walk on N phantoms.

    Attributes
    ----------
    error_px : (N, 2, 209) array
        Error of the coronal and of the sagittal centre, crop pixels of the result.
    cobb_deg : (N,) array
        Largest Cobb angle of the result, which is what the runtime knows, degrees.
    refused : int
        Phantoms that the walk refused, which are not among the N.
    angles_deg : (N, 3) array
        Errors of Cobb angle, kyphosis and lordosis against the tilts of the endplates, degrees.
    mean_curve_px : (N,) array, optional
        Mean absolute error of the sagittal centre when the mean curve is the answer, crop pixels of the result.
    """

    error_px: Array
    cobb_deg: Array
    refused: int
    angles_deg: Array
    mean_curve_px: Array | None = None

    def scores(self, view: int, severity_deg: float) -> Array:
        """Return one view's errors (N, 209) as those of straight spines."""
        scores: Array = self.error_px[:, view] / widening(self.cobb_deg, severity_deg)[:, np.newaxis]
        return scores


def collect(estimator: SpineEstimator, phantoms: Iterable[Phantom], mean_curve: Array | None = None) -> Errors:
    """Take phantoms through the whole walk.

    Parameters
    ----------
    estimator : SpineEstimator
        The bundle.
    phantoms : iterable of Phantom
        With their truth.
    mean_curve : (209,) array, optional
        A sagittal centre of mean 0, crop pixels, to compare the answers with.

    Raises
    ------
    UsageError
        Every one was refused.
    """
    errors, cobbs, angles, baseline, refused = [], [], [], [], 0
    for phantom in phantoms:
        try:
            result = estimator(scan_of(phantom))
        except Refusal:
            refused += 1
            continue
        truth, pixel_mm = phantom.truth(result.curves.z), result.prepared.model_pixel_mm
        error_mm = [getattr(result.curves, view)[:, 1] - getattr(truth, view)[:, 1] for view in VIEWS]
        errors.append(np.stack(error_mm) / pixel_mm)
        if mean_curve is not None:
            guess_mm = mean_curve * phantom.model_pixel_mm
            baseline.append(float(np.abs(guess_mm - truth.sagittal[:, 1]).mean()) / pixel_mm)
        cobbs.append(result.measurements.max_cobb_deg)
        angles.append(list(endplate_errors(result, phantom).values()))
    if not errors:
        raise UsageError(f"no phantom could be used, {refused} were refused")
    return Errors(
        np.array(errors), np.array(cobbs), refused, np.array(angles), np.array(baseline) if baseline else None
    )
