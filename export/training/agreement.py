"""Compare results with the truth and with a baseline without side view; shared by all evaluations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.bundle.bands import VIEWS, Bands
from edge_spine.measure import measure
from edge_spine.metrics import centreline_deviation, iou3d
from edge_spine.network import ROWS
from edge_spine.reconstruct import Curves, Spine
from edge_spine.scan import Scan
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
    """Return the mean sagittal curves (209, 3) of training subjects, crop pixels, centre column of mean 0."""
    total = np.zeros((ROWS, 3))
    for seed in range(count):
        subject = make_subject(seed)
        pixel = subject.model_pixel_mm
        curves = subject.curves_at(subject.row_heights_mm)[:, 3:] / pixel
        total += curves - curves[:, 1].mean()
    return total / count


def compare(curves: Curves, spine: Spine, truth: Curves, true_spine: Spine) -> Row:
    """Return the errors of a result relative to the truth at the same heights."""
    coronal, sagittal = curves.coronal - truth.coronal, curves.sagittal - truth.sagittal
    return {
        "coronal_mae_mm": float(np.abs(coronal).mean()),
        "coronal_rmse_mm": float(np.sqrt((coronal**2).mean())),
        "sagittal_mae_mm": float(np.abs(sagittal).mean()),
        "sagittal_rmse_mm": float(np.sqrt((sagittal**2).mean())),
        "deviation3d_mm": centreline_deviation(spine, true_spine),
        "iou3d": iou3d(spine, true_spine),
        "cobb_mae_deg": abs(measure(spine).max_cobb_deg - measure(true_spine).max_cobb_deg),
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
