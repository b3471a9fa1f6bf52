"""Export the PyTorch network to a float32 ONNX graph (opset 17, batch of one) and compare both."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from edge_spine.errors import EdgeSpineError
from edge_spine.network import INPUT_NAME, INPUT_SHAPE, OUTPUT_NAME, OUTPUT_SHAPE
from export.lite import Network
from export.regressor import INPUT_SIZE
from export.thin_head import with_thin_head

OPSET = 17
# 0.02 of a crop pixel: above float32's rounding through 60 layers, far below any tolerance of a bundle.
GRAPH_TOLERANCE = 0.02 / INPUT_SIZE


class GraphError(EdgeSpineError):
    """The exported graph differs from the network."""


def export_graph(regressor: Network) -> onnx.ModelProto:
    """Export the network.

    Parameters
    ----------
    regressor : SpineRegressor or SpineLite
        Set to evaluation mode.

    Returns
    -------
    onnx.ModelProto
        Input "image", float32 (1, 3, 224, 224); output "curves", float32 (1, 1254); batch norms
        that follow a convolution are folded into it, and a last layer of low rank is split in two
        (`export.thin_head`).

    Raises
    ------
    GraphError
        ONNX's checker rejects the graph, or inputs, outputs or their values differ by more than
        `GRAPH_TOLERANCE`.
    """
    regressor.eval()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        # The tracing exporter is deprecated, but the new one requires onnxscript and opset 18.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            with_thin_head(regressor).eval(),
            (torch.rand(INPUT_SHAPE, generator=torch.Generator().manual_seed(0)),),
            Path(folder) / "graph.onnx",
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            opset_version=OPSET,
            dynamo=False,
        )
        graph = onnx.load(Path(folder) / "graph.onnx")
    check_graph(graph, regressor)
    return graph


def check_graph(graph: onnx.ModelProto, regressor: Network) -> float:
    """Compare a float32 graph with the network on two smooth random images.

    Returns
    -------
    float
        Largest absolute difference of the outputs.

    Raises
    ------
    GraphError
        See `export_graph`.
    """
    try:
        onnx.checker.check_model(graph, full_check=True)
    except onnx.checker.ValidationError as error:
        raise GraphError(f"the ONNX graph is not valid: {str(error).splitlines()[0]}") from None
    ends = [
        (end.name, tuple(size.dim_value for size in end.type.tensor_type.shape.dim))
        for end in (*graph.graph.input, *graph.graph.output)
    ]
    wanted = [(INPUT_NAME, INPUT_SHAPE), (OUTPUT_NAME, OUTPUT_SHAPE)]
    if ends != wanted:
        raise GraphError(f"the ONNX graph's inputs and outputs are {ends}, {wanted} expected")
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(1)
    largest = 0.0
    for _ in range(2):
        # Smooth grey images: on noise or colour, far from a scan, float32 rounding errors grow.
        coarse = torch.rand((1, 1, 14, 14), generator=generator)
        soft = nn.functional.interpolate(coarse, size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear")
        image = soft.expand(INPUT_SHAPE).contiguous()
        found = session.run([OUTPUT_NAME], {INPUT_NAME: image.numpy()})[0]
        with torch.inference_mode():
            expected = regressor(image).numpy()
        largest = max(largest, float(np.abs(found - expected).max()))
    if not largest <= GRAPH_TOLERANCE:
        raise GraphError(
            f"the ONNX graph's output differs from PyTorch's by {largest:.2g}, {GRAPH_TOLERANCE:.2g} is accepted"
        )
    return largest
