"""Compare INT8 on the processor with PyTorch float32, and reject a bundle beyond tolerance."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from edge_spine.engines.onnx import OnnxEngine
from edge_spine.engines.verification import Verification, compare, crop_tensor, outputs_of
from edge_spine.errors import EdgeSpineError
from export.lite import Network


class GateError(EdgeSpineError):
    """The quantised network differs too much from the original."""


def reference_outputs(regressor: Network, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the output of PyTorch float32.

    Parameters
    ----------
    regressor : SpineRegressor or SpineLite
        Set to evaluation mode.
    crops : ndarray
        uint8 (K, 224, 224).

    Returns
    -------
    ndarray
        float32 (K, 1254).
    """
    regressor.eval()
    with torch.inference_mode():
        return np.concatenate([regressor(torch.from_numpy(crop_tensor(crop))).numpy() for crop in crops])


def pass_gate(
    model: bytes,
    crops: NDArray[np.uint8],
    expected: NDArray[np.float32],
    *,
    precision: str,
    model_pixel_mm: float,
) -> Verification:
    """Compare a quantised model on the processor with the reference.

    Parameters
    ----------
    model : bytes
        ONNX file of the bundle.
    crops : ndarray
        uint8 (K, 224, 224), none of them used for calibration.
    expected : ndarray
        float32 (K, 1254), from `reference_outputs`.
    precision : str
        Precision for the manifest.
    model_pixel_mm : float
        Nominal size of a crop pixel.

    Returns
    -------
    Verification
        Figures of the comparison.

    Raises
    ------
    GateError
        The difference exceeds the tolerance of this precision.
    """
    # The file is judged, not this processor, which may cut off INT8 sums.
    with OnnxEngine(model, precision=precision, exact_integers=True) as engine:
        found = outputs_of(engine, crops)
        name = engine.name
    return check(compare(found, expected, engine=name, precision=precision, model_pixel_mm=model_pixel_mm))


def check(result: Verification) -> Verification:
    """Return a verification, or raise if it is not passed.

    Raises
    ------
    GateError
        A figure exceeds its tolerance.
    """
    if not result.passed:
        whole = result.deviations[-1]
        cobb = "" if result.shape is None else f", Cobb angles by {result.shape.cobb_deg:.3f} degrees"
        raise GateError(
            f"no bundle written: {result.precision} differs from PyTorch float32 by {whole.mean_mm:.3f} mm in the mean"
            f", {whole.p99_mm:.3f} mm at the 99th percentile, {whole.row_mm:.3f} mm in the worst row, "
            f"{whole.scan_mm:.3f} mm in the worst of {result.references} crops, {whole.max_mm:.3f} mm at most{cobb}; "
            f"accepted are {result.tolerance}; try another calibration method, more crops or more parts in float"
        )
    return result
