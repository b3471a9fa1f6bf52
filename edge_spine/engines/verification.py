"""Compare an engine on this machine with the outputs of PyTorch that a bundle holds, or with another engine."""

from __future__ import annotations

import math
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.bundle.load import Bundle
from edge_spine.engines.base import Engine
from edge_spine.errors import BundleError, Refusal
from edge_spine.measure import scoliosis_curves
from edge_spine.metrics import centreline_deviation, iou3d
from edge_spine.network import CROP_SIZE, INPUT_SHAPE, OUTPUT_SHAPE, CropPlacement
from edge_spine.npz import read_arrays
from edge_spine.preprocessing.crop import as_tensor
from edge_spine.reconstruct import Spine, curves_from_output, reconstruct

PYTORCH = "PyTorch float32"


@dataclass(frozen=True)
class Tolerance:
    """Largest accepted figures of a form, see `Deviation` and `ShapeDifference`; None for one without a limit."""

    mean_mm: float
    max_mm: float
    row_mm: float
    scan_mm: float
    p99_mm: float | None = None
    cobb_deg: float | None = None

    def __str__(self) -> str:
        names = ("mean", "largest", "worst row", "worst scan", "p99", "Cobb")
        limits = [(name, limit) for name, limit in zip(names, astuple(self), strict=True) if limit is not None]
        return ", ".join(f"{name} {limit} {'degrees' if name == 'Cobb' else 'mm'}" for name, limit in limits)


# mean figures hide one wrong row or scan of many: the worst of each has a limit of its own
INTEGER_TOLERANCE = Tolerance(mean_mm=0.3, max_mm=3.0, row_mm=0.6, scan_mm=1.0, p99_mm=1.0, cobb_deg=0.5)
FLOAT_TOLERANCE = Tolerance(mean_mm=0.05, max_mm=0.5, row_mm=0.1, scan_mm=0.1)


@dataclass(frozen=True)
class Deviation:
    """Absolute differences of one part of the output, in crop pixels and nominal millimetres.

    Mean, 99th percentile and largest of all values; `row_mm` and `scan_mm` are the largest mean of a row over all
    scans, and of a scan.
    """

    part: str
    mean_px: float
    p99_px: float
    max_px: float
    mean_mm: float
    p99_mm: float
    max_mm: float
    row_mm: float
    scan_mm: float


_FIGURES = tuple(field.name for field in fields(Deviation))[1:]


@dataclass(frozen=True)
class ShapeDifference:
    """Mean differences of the reconstructed spines: largest curve-based Cobb angle, and see `edge_spine.metrics`."""

    cobb_deg: float
    deviation3d_mm: float
    iou3d: float


@dataclass(frozen=True)
class Verification:
    """Agreement of an engine with a reference.

    `deviations` are those of "coronal", "sagittal" and "all" values, and the tolerance applies to "all". `shape` is
    None where no reference gives a spine, as for a network that was never trained.
    """

    engine: str
    precision: str
    # number of reference crops
    references: int
    deviations: tuple[Deviation, ...]
    shape: ShapeDifference | None
    tolerance: Tolerance
    reference: str = PYTORCH

    @property
    def strain(self) -> float:
        """Largest figure as a share of its tolerance; infinite where a figure is not finite."""
        whole, most = self.deviations[-1], self.tolerance
        names = ("mean_mm", "p99_mm", "max_mm", "row_mm", "scan_mm")
        judged = [(getattr(whole, name), getattr(most, name)) for name in names]
        if self.shape is not None:
            judged.append((self.shape.cobb_deg, most.cobb_deg))
        return max(value / limit if math.isfinite(value) else math.inf for value, limit in judged if limit is not None)

    @property
    def passed(self) -> bool:
        """Whether the tolerance is met; an engine that loses a reference's spine has not passed."""
        return self.strain <= 1

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; a figure that is not finite becomes None."""
        table: dict[str, Any] = _plain({**asdict(self), "passed": self.passed})
        return table

    def table(self) -> str:
        """Return the figures as lines of text."""
        lines = [
            f"{self.engine} ({self.precision}) against {self.reference}, {self.references} reference crops",
            f"{'':10}" + "".join(f"{name.replace('_', ' '):>9}" for name in _FIGURES),
        ]
        for row in self.deviations:
            part, *figures = astuple(row)
            lines.append(f"{part:10}" + "".join(f"{figure:9.4f}" for figure in figures))
        if self.shape is None:
            lines.append("spine     the references make no spine to compare")
        else:
            cobb, deviation, iou = astuple(self.shape)
            lines.append(f"spine     Cobb {cobb:.3f} degrees, 3D deviation {deviation:.4f} mm, IoU {iou:.4f}")
        lines.append(f"tolerance of all: {self.tolerance}: " + ("passed" if self.passed else "MISSED"))
        return "\n".join(lines)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    return (round(value, 5) if math.isfinite(value) else None) if isinstance(value, float) else value


def verify(bundle: Bundle, engine: Engine, count: int | None = None) -> Verification:
    """Run the first `count` references of a bundle (all by default) through an engine; raise as `read_references`."""
    crops, expected = read_references(bundle)
    found = outputs_of(engine, crops[:count])
    pixel = bundle.nominal_model_pixel_mm
    return compare(found, expected[:count], engine=engine.name, precision=engine.precision, model_pixel_mm=pixel)


def outputs_of(engine: Engine, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run crops, uint8 (K, 224, 224), through an engine; return float32 (K, 1254)."""
    return np.concatenate([engine.infer(crop_tensor(crop)) for crop in crops])


def read_references(bundle: Bundle) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return a bundle's reference crops, uint8 (K, 224, 224), and their outputs, float32 (K, 1254).

    Raise BundleError where the file has other arrays.
    """
    name = bundle.file_with_role("references")
    crops, outputs = read_arrays(bundle.read(name), name, "inputs", "outputs")
    crops_fit = crops.dtype == np.uint8 and crops.shape[1:] == INPUT_SHAPE[2:] and len(crops) > 0
    if not crops_fit or outputs.dtype != np.float32 or outputs.shape != (len(crops), OUTPUT_SHAPE[1]):
        raise BundleError(
            f"{name}: inputs are {crops.dtype} {crops.shape} and outputs {outputs.dtype} {outputs.shape}, "
            "uint8 (K, 224, 224) and float32 (K, 1254) expected"
        )
    return crops, outputs


def crop_tensor(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return a stored crop, uint8 (224, 224), as the network's input, float32 (1, 3, 224, 224) in [0, 1]."""
    return as_tensor(crop.astype(np.float32) / np.float32(255))


def compare(
    found: NDArray[np.float32],
    expected: NDArray[np.float32],
    *,
    engine: str,
    precision: str,
    model_pixel_mm: float,
    reference: str = PYTORCH,
    tolerance: Tolerance | None = None,
) -> Verification:
    """Compare two sets of outputs.

    Parameters
    ----------
    found, expected : ndarray
        (K, 1254), crop pixels / 224, from `engine` and from `reference`.
    model_pixel_mm : float
        Size of a crop pixel, for the figures in millimetres.
    tolerance : Tolerance, optional
        That of the precision against PyTorch float32 where it is not given.
    """
    if tolerance is None:
        tolerance = INTEGER_TOLERANCE if precision.startswith("int8") else FLOAT_TOLERANCE
    error = np.abs(found.astype(np.float64) - expected).reshape(len(found), -1, 6) * CROP_SIZE
    parts = {"coronal": error[..., :3], "sagittal": error[..., 3:], "all": error}
    rows = []
    for part, values in parts.items():
        with np.errstate(invalid="ignore"):
            figures = [float(values.mean()), float(np.percentile(values, 99)), float(values.max())]
            worst = [float(values.mean(axis=axes).max()) for axes in ((0, 2), (1, 2))]
        rows.append(Deviation(part, *figures, *(figure * model_pixel_mm for figure in (*figures, *worst))))
    place = CropPlacement(model_pixel_mm, (0.0, 0.0), (model_pixel_mm, model_pixel_mm))
    shape = _shape_difference(found, expected, place)
    return Verification(engine, precision, len(found), tuple(rows), shape, tolerance, reference)


def _shape_difference(
    found: NDArray[np.float32], expected: NDArray[np.float32], placement: CropPlacement
) -> ShapeDifference | None:
    figures = []
    for answer, reference in zip(found, expected, strict=True):
        true = _spine(reference, placement)
        if true is None:
            continue
        spine = _spine(answer, placement)
        if spine is None:
            # infinite, so that it is never accepted
            figures.append((math.inf, math.inf, 0.0))
            continue
        cobb = abs(_largest_cobb(spine) - _largest_cobb(true))
        figures.append((cobb, centreline_deviation(spine, true), iou3d(spine, true)))
    return ShapeDifference(*(float(value) for value in np.mean(figures, axis=0))) if figures else None


def _spine(output: NDArray[np.float32], placement: CropPlacement) -> Spine | None:
    try:
        return reconstruct(curves_from_output(output, placement))
    except Refusal:
        return None


def _largest_cobb(spine: Spine) -> float:
    curves = scoliosis_curves(spine.centreline[:, 0], spine.centreline[:, 2])
    return max((curve.cobb_deg for curve in curves), default=0.0)
