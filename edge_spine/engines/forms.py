"""Derive the forms of a network (its precisions) from the graphs in a bundle.

========  =====================================  ==========================================================
form      for                                    where it comes from
========  =====================================  ==========================================================
int8      ONNX Runtime on processors             the bundle's engine file, as it is
int8-trt  TensorRT                               derived from the engine file, see `engines.tensorrt.symmetric`
fp16      TensorRT, ONNX Runtime on GPUs         the bundle's float file, where it has one, as it is
fp32      comparison                             derived from the float file: the same weights in float32
========  =====================================  ==========================================================
"""

from __future__ import annotations

from edge_spine.bundle.load import Bundle
from edge_spine.engines.tensorrt.symmetric import parsed_graph, symmetric_graph
from edge_spine.errors import UsageError

INT8, INT8_TENSORRT, FP16, FP32 = FORMS = ("int8", "int8-trt", "fp16", "fp32")


def tensorrt_form(precision: str) -> str:
    """Return the form that TensorRT runs for a precision; INT8 for "auto"."""
    return INT8_TENSORRT if precision in ("auto", INT8) else precision


def form_graph(bundle: Bundle, form: str) -> bytes:
    """Return the ONNX graph of a form, from checked files of a bundle.

    Parameters
    ----------
    bundle : Bundle
        From `load_bundle`.
    form : str
        One of `FORMS`.

    Raises
    ------
    UsageError
        The bundle was exported without the file that the form comes from.
    EngineUnavailable
        The form is derived and `onnx` is not installed.
    BundleError
        A file is damaged or not a graph of the expected structure.
    """
    if form in (INT8, INT8_TENSORRT):
        model = bundle.read(bundle.file_with_role("engine"))
        return model if form == INT8 else symmetric_graph(model, bundle.exact_readers)
    if not bundle.has_role("float"):
        raise UsageError(
            f"the model {bundle.name} {bundle.version} has no float file and so no {form}; export --forms all adds it"
        )
    model = bundle.read(bundle.file_with_role("float"))
    return model if form == FP16 else widened(model)


def widened(model: bytes) -> bytes:
    """Return a float16 graph with the same weights in float32."""
    onnx, graph = parsed_graph(model)
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    to_array, from_array = onnx.numpy_helper.to_array, onnx.numpy_helper.from_array
    tensors = list(graph.graph.initializer)
    for node in graph.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == half:
                attribute.i = single
            elif attribute.HasField("t"):
                tensors.append(attribute.t)
    for tensor in tensors:
        if tensor.data_type == half:
            tensor.CopyFrom(from_array(to_array(tensor).astype("float32"), tensor.name))
    # the stored types of inner tensors are float16
    del graph.graph.value_info[:]
    return bytes(graph.SerializeToString(deterministic=True))
