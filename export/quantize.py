"""Quantise the float32 graph to INT8 for processors: QDQ, unsigned asymmetric activations.

ONNX Runtime fuses this form (uint8 activations, int8 weights per output channel) into integer
convolutions; it leaves many convolutions of TensorRT's symmetric form in float.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType
from onnxruntime.quantization import quantize_static as ort_quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from edge_spine.engines.verification import crop_tensor
from edge_spine.network import INPUT_NAME
from export.bias_correction import correct_biases

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
# Parts of the network by node names of the exporter.
PARTS = {
    "stem": ("/model/model.0/",),
    "attention": ("/net.3/MatMul", "/net.3/Mul", "/net.3/Add", "/net.3/Softmax", "/net.3/pos_emb/"),
    "stack": ("/layer/",),
    "head": ("/linear/",),
}
_QUANTISED_OPERATORS = ["Conv", "Relu", "MaxPool", "AveragePool", "Add", "MatMul", "Softmax", "Gemm"]


@dataclass(frozen=True)
class Recipe:
    """Calibration method, and parts that stay in float32.

    Attributes
    ----------
    method : str
        "minmax", "percentile" or "entropy".
    percentile : float
        For "percentile": percentage of a tensor's values inside its range.
    float_parts : tuple of str
        Keys of `PARTS`.
    bias_correction : bool
        Whether to correct biases for the rounding of the weights, see `export.bias_correction`.
    """

    method: str = "percentile"
    percentile: float = 99.99
    float_parts: tuple[str, ...] = ("attention", "head")
    bias_correction: bool = True

    def __post_init__(self) -> None:
        """Raise ValueError for unknown names."""
        if self.method not in METHODS:
            raise ValueError(f"calibration method {self.method!r} is none of {', '.join(METHODS)}")
        unknown = set(self.float_parts) - set(PARTS)
        if unknown:
            raise ValueError(f"{sorted(unknown)} are no parts of the network: {', '.join(PARTS)}")


def quantise(graph: onnx.ModelProto, crops: NDArray[np.uint8], recipe: Recipe) -> onnx.ModelProto:
    """Quantise a float32 graph.

    Parameters
    ----------
    graph : onnx.ModelProto
        From `export.onnx_graph.export_graph`; it is not changed.
    crops : ndarray
        uint8 (N, 224, 224), the calibration set.
    recipe : Recipe
        Calibration and precision.

    Returns
    -------
    onnx.ModelProto
        The same inputs and outputs, with QuantizeLinear and DequantizeLinear pairs.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, quantised = (Path(folder) / f"{name}.onnx" for name in ("plain", "prepared", "quantised"))
        onnx.save(graph, plain)
        # Shapes are static, so symbolic inference (and sympy) is not needed.
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        ready = onnx.load(prepared)
        if recipe.bias_correction:
            ready = correct_biases(ready, crops)
            onnx.save(ready, prepared)
        # ONNX Runtime prints several lines for each crop.
        with contextlib.redirect_stdout(io.StringIO()):
            ort_quantize_static(
                prepared,
                quantised,
                CropReader(crops),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_QUANTISED_OPERATORS,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_float_nodes(ready, recipe.float_parts),
                calibrate_method=METHODS[recipe.method],
                extra_options={
                    "ActivationSymmetric": False,
                    "WeightSymmetric": True,
                    "CalibTensorRangeSymmetric": False,
                    "CalibPercentile": recipe.percentile,
                    # One crop at a time; histograms of all crops need tens of GB.
                    "CalibStridedMinMax": 1,
                },
            )
        result = onnx.load(quantised)
    onnx.checker.check_model(result)
    return result


class CropReader(CalibrationDataReader):
    """Provide crops, uint8 (N, 224, 224), to the calibration."""

    def __init__(self, crops: NDArray[np.uint8]) -> None:
        self._crops = crops
        self._place, self._end = 0, len(crops)

    def __len__(self) -> int:
        """Return the number of crops."""
        return len(self._crops)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Continue with the crops from `start_index` to `end_index`, exclusive."""
        self._place, self._end = start_index, end_index

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next input, or None after the last."""
        if self._place >= self._end:
            return None
        self._place += 1
        return {INPUT_NAME: crop_tensor(self._crops[self._place - 1])}


def _float_nodes(graph: onnx.ModelProto, parts: Sequence[str]) -> list[str]:
    marks = [mark for part in parts for mark in PARTS[part]]
    return [node.name for node in graph.graph.node if any(mark in node.name for mark in marks)]
