"""Compare results with the truth and with a baseline without side view; shared by all evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_spine.bundle.bands import VIEWS, Bands
from edge_spine.measure import KYPHOSIS, LORDOSIS, Measurements, cobb_deg, measure
from edge_spine.metrics import centreline_deviation, iou3d
from edge_spine.network import ROWS
from edge_spine.reconstruct import Curves, Spine, reconstruct
from edge_spine.result import SpineResult
from edge_spine.scan import Scan
from edge_spine.vertebrae import LEVELS, Levels
from export.training.phantoms.phantom import Phantom, make_subject

CLASSES = (
    ("below 10", 0.0, 10.0),
    ("10 to 25", 10.0, 25.0),
    ("25 to 40", 25.0, 40.0),
    ("above 40", 40.0, 180.0),
)
FIGURES = (
    "coronal_mae_mm",
    "coronal_rmse_mm",
    "sagittal_mae_mm",
    "sagittal_rmse_mm",
    "deviation3d_mm",
    "iou3d",
    "cobb_mae_deg",
)
LEVEL_FIGURES = (
    *("level_mae_mm", "level_named", "ends_mae_mm", "endplate_cobb_mae_deg", "endplate_cobb_bias_deg"),
    *("cobb_interval", "kyphosis_interval", "lordosis_interval"),
)
BASELINE_SUBJECTS = 1000

Row = dict[str, float]


def scan_of(phantom: Phantom, pixels: NDArray[Any] | None = None) -> Scan:
    """Return a phantom's bone image, or `pixels`, as a scan read by the runtime."""
    shown = phantom.bone if pixels is None else pixels
    return Scan(
        pixels=shown.astype(np.float32),
        pixel_spacing_mm=phantom.framing.pixel_mm,
        source=f"phantom {phantom.seed}",
        sop_instance_uid=None,
    )


def mean_sagittal(count: int = BASELINE_SUBJECTS) -> NDArray[np.float64]:
    """Return the mean sagittal curves (209, 3) of training subjects from T1 to L5, crop pixels, centre of mean 0."""
    total = np.zeros((ROWS, 3))
    for seed in range(count):
        subject = make_subject(seed)
        total += subject.truth(subject.trunk_heights_mm).sagittal / subject.model_pixel_mm
    return total / count


@dataclass(frozen=True, eq=False)
class Measured:
    """A spine from given curves."""

    curves: Curves
    spine: Spine
    measurements: Measurements


Answer: TypeAlias = SpineResult | Measured


def measured(curves: Curves, levels: Levels | None = None) -> Measured:
    """Reconstruct and measure curves, with the vertebrae at `levels` or at average proportions."""
    spine = reconstruct(curves)
    return Measured(curves, spine, measure(spine, levels))


def compare(found: Answer, truth: Answer) -> Row:
    """Return the errors of an answer relative to the truth at the same heights; angles by the same rule."""
    coronal, sagittal = found.curves.coronal - truth.curves.coronal, found.curves.sagittal - truth.curves.sagittal
    return {
        "coronal_mae_mm": float(np.abs(coronal).mean()),
        "coronal_rmse_mm": float(np.sqrt((coronal**2).mean())),
        "sagittal_mae_mm": float(np.abs(sagittal).mean()),
        "sagittal_rmse_mm": float(np.sqrt((sagittal**2).mean())),
        "deviation3d_mm": centreline_deviation(found.spine, truth.spine),
        "iou3d": iou3d(found.spine, truth.spine),
        "cobb_mae_deg": abs(found.measurements.max_cobb_deg - truth.measurements.max_cobb_deg),
    }


def judge_levels(result: SpineResult, phantom: Phantom) -> Row:
    """Return the errors of the vertebrae that were found, and of the angles against those of the endplates.

    Returns
    -------
    dict
        The names of `LEVEL_FIGURES`; those of intervals only where the bundle has calibrated errors.
    """
    found, true, angles = result.levels, phantom.levels, result.measurements
    inside = [name == level for name, level in zip(true.names_at(found.z), LEVELS, strict=True)]
    wrong = endplate_errors(result, phantom)
    row = {
        "level_mae_mm": float(np.abs(found.z - true.z).mean()),
        "level_named": float(np.mean(inside)),
        "ends_mae_mm": (abs(found.top - true.top) + abs(found.bottom - true.bottom)) / 2,
        "endplate_cobb_mae_deg": abs(wrong["cobb"]),
        "endplate_cobb_bias_deg": wrong["cobb"],
    }
    errors = (angles.max_cobb_error_90_deg, angles.kyphosis_error_90_deg, angles.lordosis_error_90_deg)
    for (name, error), half in zip(wrong.items(), errors, strict=True):
        if half is not None:
            row[f"{name}_interval"] = float(abs(error) <= half)
    return row


def endplate_errors(result: SpineResult, phantom: Phantom) -> Row:
    """Return a result's Cobb angle, kyphosis and lordosis less those between the true tilts of the bodies, degrees."""
    coronal, sagittal = phantom.tilts_deg.T
    tilt = dict(zip(LEVELS, sagittal.tolist(), strict=True))
    angles = result.measurements
    return {
        "cobb": angles.max_cobb_deg - cobb_deg(coronal),
        "kyphosis": angles.kyphosis_t4_t12_deg - (tilt[KYPHOSIS[0]] - tilt[KYPHOSIS[1]]),
        "lordosis": angles.lordosis_l1_l5_deg - (tilt[LORDOSIS[1]] - tilt[LORDOSIS[0]]),
    }


def centre_errors(curves: Curves, truth: Curves) -> NDArray[np.float64]:
    """Return the absolute errors (2, 209) of the coronal and of the sagittal centre, mm."""
    errors = [getattr(curves, view)[:, 1] - getattr(truth, view)[:, 1] for view in VIEWS]
    return np.abs(np.stack(errors))


def judge_bands(bands: Bands, error_mm: NDArray[np.float64]) -> Row:
    """Return the fraction of rows whose band contains the truth, and the mean half-width (mm)."""
    row = {}
    for view, error in zip(VIEWS, error_mm, strict=True):
        half = getattr(bands, view)
        row[f"{view}_coverage"] = float((error <= half).mean())
        row[f"{view}_half_width_mm"] = float(half.mean())
    return row


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(1000, len(values)))].mean(axis=1)
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


def wilson(hits: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927)."""
    z = 1.96
    share, spread = hits / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z * np.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))
