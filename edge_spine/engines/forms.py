"""Derive the forms of a network (its precisions) from the graphs in a bundle.

========  =====================================  ==========================================================
form      for                                    where it comes from
========  =====================================  ==========================================================
int8      ONNX Runtime on processors             the bundle's engine file, as it is
int8-trt  TensorRT                               derived from the engine file, see `engines.tensorrt.symmetric`
fp16      TensorRT, ONNX Runtime on GPUs         the bundle's float file as it is, else the engine file's weights
fp32      comparison                             derived from fp16: the same weights in float32
========  =====================================  ==========================================================
"""

from __future__ import annotations

from typing import Any

from edge_spine.bundle.load import Bundle
from edge_spine.engines.tensorrt.symmetric import parsed_graph, quantised_readers, symmetric_graph
from edge_spine.network import INPUT_NAME, OUTPUT_NAME

INT8, INT8_TENSORRT, FP16, FP32 = "int8", "int8-trt", "fp16", "fp32"


def tensorrt_form(precision: str) -> str:
    """Return the form that TensorRT runs for a precision; INT8 for "auto"."""
    return INT8_TENSORRT if precision in ("auto", INT8) else precision


def form_graph(bundle: Bundle, form: str) -> bytes:
    """Return the ONNX graph of a form ("int8", "int8-trt", "fp16", "fp32"), from checked files of a bundle.

    Raises
    ------
    EngineUnavailable
        The form is derived and `onnx` is not installed.
    BundleError
        A file is damaged or not a graph of the expected structure.
    """
    if form in (INT8, INT8_TENSORRT):
        model = bundle.read(bundle.file_with_role("engine"))
        return model if form == INT8 else symmetric_graph(model, bundle.exact_readers)
    if bundle.has_role("float"):
        half = bundle.read(bundle.file_with_role("float"))
    else:
        # the weights of the INT8 file, whose rounding stays in them
        model = bundle.read(bundle.file_with_role("engine"))
        half = narrowed(symmetric_graph(model, quantised_readers(symmetric_graph(model))))
    return half if form == FP16 else widened(half)


def narrowed(model: bytes) -> bytes:
    """Return a float32 graph with weights and arithmetic in float16, and float32 input and output."""
    onnx, graph = parsed_graph(model)
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    _convert(onnx, graph, single, half)
    for node in graph.graph.node:
        node.input[:] = [f"{name}.half" if name == INPUT_NAME else name for name in node.input]
        node.output[:] = [f"{name}.half" if name == OUTPUT_NAME else name for name in node.output]
    cast = onnx.helper.make_node
    graph.graph.node.insert(0, cast("Cast", [INPUT_NAME], [f"{INPUT_NAME}.half"], to=half, name="input.half"))
    graph.graph.node.append(cast("Cast", [f"{OUTPUT_NAME}.half"], [OUTPUT_NAME], to=single, name="output.single"))
    return bytes(graph.SerializeToString(deterministic=True))


def widened(model: bytes) -> bytes:
    """Return a float16 graph with the same weights in float32."""
    onnx, graph = parsed_graph(model)
    _convert(onnx, graph, onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT)
    return bytes(graph.SerializeToString(deterministic=True))


def _convert(onnx: Any, graph: Any, source: int, target: int) -> None:
    """Convert the weights of a graph, and what its inner casts give, from one float type to another."""
    to_array, from_array = onnx.numpy_helper.to_array, onnx.numpy_helper.from_array
    kind = onnx.helper.tensor_dtype_to_np_dtype(target)
    tensors = list(graph.graph.initializer)
    for node in graph.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == source:
                attribute.i = target
            elif attribute.HasField("t"):
                tensors.append(attribute.t)
    for tensor in tensors:
        if tensor.data_type == source:
            tensor.CopyFrom(from_array(to_array(tensor).astype(kind), tensor.name))
    # the stored types of inner tensors are those from before
    del graph.graph.value_info[:]
