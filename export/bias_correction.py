"""Round convolution weights to INT8 with errors that cancel, and correct biases for the mean error that is left.

Neighbouring pixels are alike, so the errors of a kernel's weights add up. Each error is carried on to the next place of
the kernel (error diffusion), which keeps the sums of neighbouring weights.

After a ReLU a convolution's inputs have a mean far from zero, so the rounding errors of its weights add
up to a constant per output channel. That constant is known: the sum of the weights' errors times the mean
of each input channel over the calibration crops (empirical bias correction, Nagel et al., ICCV 2019).
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from edge_spine.engines.verification import crop_tensor
from edge_spine.network import INPUT_NAME

_WEIGHT_STEPS = 127
_ERRORS_ONLY = 3


def correct_biases(graph: onnx.ModelProto, crops: NDArray[np.uint8]) -> onnx.ModelProto:
    """Return a float32 graph with rounded kernels, and biases corrected for the INT8 rounding of the weights.

    Parameters
    ----------
    graph : onnx.ModelProto
        float32, batch norms folded; it is not changed.
    crops : ndarray
        uint8 (N, 224, 224), calibration set.
    """
    corrected = onnx.ModelProto()
    corrected.CopyFrom(graph)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    convolutions = [node for node in corrected.graph.node if node.op_type == "Conv"]
    means = _channel_means(graph, sorted({node.input[0] for node in convolutions}), crops)
    for node in convolutions:
        kernel = weights[node.input[1]]
        kept = rounded(kernel)
        error = (kernel - kept).sum(axis=(2, 3), dtype=np.float64)
        old = weights[node.input[2]] if len(node.input) > 2 else 0
        # The exporter shares equal biases; each node needs its own.
        names = [f"{node.name}.rounded_kernel", f"{node.name}.corrected_bias"]
        bias = (old + error @ means[node.input[0]]).astype(np.float32)
        for name, array in zip(names, (kept, bias), strict=True):
            corrected.graph.initializer.append(numpy_helper.from_array(array, name))
        node.input[:] = [node.input[0], *names]
    used = {name for node in corrected.graph.node for name in node.input}
    needed = [tensor for tensor in corrected.graph.initializer if tensor.name in used]
    del corrected.graph.initializer[:]
    corrected.graph.initializer.extend(needed)
    return corrected


def rounded(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a kernel (out, in, height, width) rounded as in INT8: symmetric, one scale per output channel.

    The error of each place is carried on to the next, along rows to and fro. The largest weights stay the largest, so
    that rounding again changes nothing.
    """
    scale = np.abs(kernel).max(axis=(1, 2, 3), keepdims=True).astype(np.float64) / _WEIGHT_STEPS
    scale[scale == 0] = 1
    wanted = kernel / scale
    steps = np.empty_like(wanted)
    carried = np.zeros(kernel.shape[:2])
    for row in range(kernel.shape[2]):
        for column in range(kernel.shape[3])[:: -1 if row % 2 else 1]:
            place = wanted[:, :, row, column]
            largest = np.abs(place) > _WEIGHT_STEPS - 1e-3
            chosen = np.where(largest, place, place + carried).round().clip(-_WEIGHT_STEPS, _WEIGHT_STEPS)
            carried += place - chosen
            steps[:, :, row, column] = chosen
    return np.asarray(steps * scale, dtype=np.float32)


def _channel_means(
    graph: onnx.ModelProto, tensors: list[str], crops: NDArray[np.uint8]
) -> dict[str, NDArray[np.float64]]:
    watched = onnx.ModelProto()
    watched.CopyFrom(graph)
    inner = [name for name in tensors if name != INPUT_NAME]
    for name in inner:
        watched.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    totals: dict[str, NDArray[np.float64]] = {}
    for crop in crops:
        image = crop_tensor(crop)
        # An empty list of names would request every output.
        outputs = session.run(inner, {INPUT_NAME: image}) if inner else []
        maps = {INPUT_NAME: image, **dict(zip(inner, outputs, strict=True))}
        for name in tensors:
            mean = maps[name].mean(axis=(0, 2, 3), dtype=np.float64)
            totals[name] = totals.get(name, np.zeros_like(mean)) + mean
    return {name: total / len(crops) for name, total in totals.items()}
