"""Compare an engine on this machine with what the PyTorch network gave when the bundle was made."""

from __future__ import annotations

import io
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.bundle import Bundle
from edge_spine.engines.base import INPUT_SHAPE, OUTPUT_SHAPE, Engine
from edge_spine.errors import BundleError
from edge_spine.preprocess import as_tensor

MEAN_TOLERANCE_PX = 0.25
P99_TOLERANCE_PX = 1.0
_CROP_PX = INPUT_SHAPE[-1]


@dataclass(frozen=True)
class Deviation:
    """Absolute differences of one part of the output, in crop pixels and nominal millimetres."""

    part: str
    mean_px: float
    p99_px: float
    max_px: float
    mean_mm: float
    p99_mm: float
    max_mm: float


@dataclass(frozen=True)
class Verification:
    """Agreement of an engine with the PyTorch float32 reference.

    Attributes
    ----------
    engine, precision : str
        What was tested.
    references : int
        Number of reference crops.
    deviations : tuple of Deviation
        For "coronal", "sagittal" and "all" values; the tolerances apply to "all".
    mean_tolerance_px, p99_tolerance_px : float
        Largest accepted mean and 99th percentile, in crop pixels.
    passed : bool
        Whether both are met and every value is finite.
    """

    engine: str
    precision: str
    references: int
    deviations: tuple[Deviation, ...]
    mean_tolerance_px: float
    p99_tolerance_px: float
    passed: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; a figure that is not finite becomes None."""
        table: dict[str, Any] = asdict(self)
        for row in table["deviations"]:
            for key, value in row.items():
                if isinstance(value, float):
                    row[key] = round(value, 5) if math.isfinite(value) else None
        table["deviations"] = list(table["deviations"])
        return table

    def table(self) -> str:
        """Return the figures as lines of text."""
        lines = [
            f"{self.engine} ({self.precision}) against PyTorch float32, {self.references} reference crops",
            f"{'':10}{'mean px':>9}{'p99 px':>9}{'max px':>9}{'mean mm':>9}{'p99 mm':>9}{'max mm':>9}",
        ]
        for row in self.deviations:
            figures = (row.mean_px, row.p99_px, row.max_px, row.mean_mm, row.p99_mm, row.max_mm)
            lines.append(f"{row.part:10}" + "".join(f"{figure:9.4f}" for figure in figures))
        lines.append(
            f"tolerance of all: mean {self.mean_tolerance_px} px, p99 {self.p99_tolerance_px} px: "
            + ("passed" if self.passed else "MISSED")
        )
        return "\n".join(lines)


def verify(bundle: Bundle, engine: Engine) -> Verification:
    """Run a bundle's references through an engine and compare.

    Parameters
    ----------
    bundle : Bundle
        Its references are the inputs and what PyTorch float32 made of them.
    engine : Engine
        Opened on the same bundle.

    Raises
    ------
    BundleError
        The references are not what a bundle should hold.
    """
    crops, expected = read_references(bundle)
    found = np.concatenate([engine.infer(crop_tensor(crop)) for crop in crops])
    return compare(
        found,
        expected,
        engine=engine.name,
        precision=engine.precision,
        model_pixel_mm=bundle.nominal_model_pixel_mm,
    )


def read_references(bundle: Bundle) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return a bundle's reference crops, uint8 (K, 224, 224), and their outputs, float32 (K, 1254).

    Raises
    ------
    BundleError
        The file holds something else.
    """
    name = bundle.file_with_role("references")
    try:
        with np.load(io.BytesIO(bundle.read(name)), allow_pickle=False) as arrays:
            crops, outputs = arrays["inputs"], arrays["outputs"]
    except BundleError:
        raise
    except Exception:  # a damaged archive makes zipfile and NumPy raise many types
        raise BundleError(f"{name}: not an archive with the arrays 'inputs' and 'outputs'") from None
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
    mean_tolerance_px: float = MEAN_TOLERANCE_PX,
    p99_tolerance_px: float = P99_TOLERANCE_PX,
) -> Verification:
    """Compare two sets of outputs.

    Parameters
    ----------
    found, expected : ndarray
        (K, 1254), crop pixels / 224.
    engine, precision : str
        Where `found` comes from.
    model_pixel_mm : float
        Size of a crop pixel, for the figures in millimetres.
    mean_tolerance_px, p99_tolerance_px : float
        Largest accepted mean and 99th percentile of the absolute difference, in crop pixels.

    Returns
    -------
    Verification
        Not passed where any value is not finite.
    """
    error = np.abs(found.astype(np.float64) - expected).reshape(len(found), -1, 6) * _CROP_PX
    parts = {"coronal": error[..., :3], "sagittal": error[..., 3:], "all": error}
    rows = []
    for part, values in parts.items():
        with np.errstate(invalid="ignore"):
            figures = [float(values.mean()), float(np.percentile(values, 99)), float(values.max())]
        rows.append(Deviation(part, *figures, *(figure * model_pixel_mm for figure in figures)))
    # A comparison with NaN is false, so an output that is not finite never passes.
    passed = rows[-1].mean_px <= mean_tolerance_px and rows[-1].p99_px <= p99_tolerance_px
    return Verification(
        engine=engine,
        precision=precision,
        references=len(found),
        deviations=tuple(rows),
        mean_tolerance_px=mean_tolerance_px,
        p99_tolerance_px=p99_tolerance_px,
        passed=passed,
    )
