"""Compare the range of each quantiser in an INT8 graph with the values that it is given.

A wrong scale of one layer may cost less in the output than the tolerance allows, and more on other scans.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from edge_spine.engines.verification import crop_tensor
from edge_spine.network import INPUT_NAME, OUTPUT_NAME
from export.gate import GateError

# Accepted values as a share of the range. The quantisers of both packaged models have 0.72 to 1.29; a halved scale
# gives twice that, and one that is four times too large a quarter.
LEAST, MOST = 0.5, 1.35
# crops that are looked at; fewer than the least say nothing of a range
COUNT, LEAST_CROPS = 12, 3


def check_ranges(model: bytes, crops: NDArray[np.uint8], percentile: float) -> None:
    """Raise an error where a quantiser's range does not fit the values in front of it.

    Parameters
    ----------
    model : bytes
        INT8 graph, whose ranges were calibrated by a percentile.
    crops : ndarray
        uint8 (K, 224, 224); at most `COUNT` are used, and nothing is checked with fewer than `LEAST_CROPS`.
    percentile : float
        Percentage of a tensor's values inside its range.

    Raises
    ------
    GateError
        The values fill less than `LEAST` or more than `MOST` of a range.
    """
    if len(crops) < LEAST_CROPS:
        return
    for name, share in used_shares(model, crops, percentile).items():
        if not LEAST <= share <= MOST:
            raise GateError(
                f"no bundle written: the values at {name} fill {share:.2f} of its range, {LEAST} to {MOST} expected; "
                "its scale is wrong, or the calibration crops are unlike the references"
            )


def used_shares(model: bytes, crops: NDArray[np.uint8], percentile: float) -> dict[str, float]:
    """Return the share of its range that the values of each quantiser of an activation fill, by node name.

    Quantisers whose values all become zero are left out.
    """
    graph = onnx.load_model_from_string(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    quantisers = [
        node for node in graph.graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in constants
    ]
    tensors = list(dict.fromkeys(node.input[0] for node in quantisers if node.input[0] != INPUT_NAME))
    for name in tensors:
        graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    chosen = crops[:: -(-len(crops) // COUNT)]
    ends: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    kept: dict[str, int] = {}
    for crop in chosen:
        image = crop_tensor(crop)
        # an empty list of names would request every output
        wanted = [OUTPUT_NAME, *tensors]
        found = dict(zip(wanted, session.run(wanted, {INPUT_NAME: image}), strict=True)) | {INPUT_NAME: image}
        for name, value in found.items():
            # one side's values outside the range, over all crops: more of one crop are never needed
            kept[name] = max(1, round(value.size * len(chosen) * (100 - percentile) / 200))
            few = min(kept[name], value.size)
            parted = np.partition(value.ravel(), (few - 1, value.size - few))
            ends[name].append(np.stack([parted[:few], -parted[value.size - few :]]))
    shares = {}
    for node in quantisers:
        scale, zero = (constants[name] for name in node.input[1:3])
        limits = np.iinfo(zero.dtype)
        low, high = (float(scale) * (end - int(zero)) for end in (limits.min, limits.max))
        reached = np.sort(np.concatenate(ends[node.input[0]], axis=1), axis=1)[:, kept[node.input[0]] - 1]
        sides = ((float(reached[0]), low), (-float(reached[1]), high))
        if max(abs(value) for value, _ in sides) < scale:
            # a layer without output, as an untrained one, has no range to compare
            continue
        shares[node.name] = max(value / limit for value, limit in sides if limit != 0)
    return shares
