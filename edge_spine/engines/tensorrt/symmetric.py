"""Derive TensorRT's INT8 graph, symmetric with explicit Q/DQ, from the processor's.

TensorRT needs signed activations around zero and float biases, and fuses a residual sum into its convolution where
only the shortcut is quantised. ONNX Runtime on a processor is fast with unsigned activations that include their
ReLU. A bundle holds that graph only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.engines.base import TENSORRT_EXTRAS, importing
from edge_spine.errors import BundleError

_STEPS = 127
# operators that TensorRT computes in INT8 here; quantising for others would only cost accuracy
_INTEGER_OPERATORS = frozenset({"Conv", "MaxPool"})


def symmetric_graph(model: bytes, exact: Collection[str] = ()) -> bytes:
    """Derive TensorRT's form of an INT8 graph.

    Raise EngineUnavailable where the package `onnx` is not installed, BundleError where `model` is no such graph.

    Parameters
    ----------
    model : bytes
        Checked content of a bundle's ONNX file: uint8 activations, int8 weights per output channel, int32 biases.
    exact : collection of str
        Names of convolutions and residual sums, of those from `quantised_readers`, that read float activations.

    Returns
    -------
    bytes
        The same inputs and outputs in opset 17: int8 activations with zero point 0 whose scale covers the old range,
        the same int8 weights, float32 biases; a ReLU wherever a range began at zero. Activations are quantised where
        a convolution or pooling reads them, and on the shortcut of each residual sum.
    """
    onnx, graph = parsed_graph(model)
    try:
        _Rewriter(graph.graph, onnx, exact).rewrite()
        onnx.checker.check_model(graph)
    except (KeyError, IndexError, ValueError, onnx.checker.ValidationError) as error:
        raise BundleError(f"tensorrt: the INT8 graph is not of the expected form ({type(error).__name__})") from None
    return bytes(graph.SerializeToString(deterministic=True))


def with_weight_pairs(symmetric: bytes) -> bytes:
    """Return a symmetric graph whose int8 weights are float32, each followed by a QuantizeLinear that restores them.

    TensorRT 8 takes no int8 constants; from the pair it makes the same int8 weights.
    """
    onnx, model = parsed_graph(symmetric)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    value, nodes = onnx.numpy_helper.to_array, []
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            weights, scale = constants[node.input[0]], value(constants[node.input[1]])
            whole = value(weights)
            restored = whole.astype(np.float32) * scale.reshape(-1, *[1] * (whole.ndim - 1))
            weights.CopyFrom(onnx.numpy_helper.from_array(restored, weights.name))
            pair = onnx.helper.make_node("QuantizeLinear", list(node.input), [f"{node.input[0]}.int8"])
            pair.name = pair.output[0]
            pair.attribute.extend(node.attribute)
            node.input[0] = pair.output[0]
            nodes.append(pair)
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString(deterministic=True))


def with_free_batch(model: bytes) -> bytes:
    """Return a graph for any number of images; raise BundleError where it is fixed in a way that is not known here."""
    onnx, graph = parsed_graph(model)
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    value = onnx.numpy_helper.to_array
    shapes: set[str] = set()
    others: set[str] = set()
    for node in graph.graph.node:
        reshaping = node.op_type == "Reshape"
        shapes.update(node.input[1:] if reshaping else ())
        others.update(node.input[:1] if reshaping else node.input)
    for name in sorted(shapes):
        shape = value(constants[name]) if name in constants and name not in others else np.zeros(1, np.int64)
        if shape[0] != 1:
            raise BundleError("tensorrt: the number of images is fixed in the graph")
        # 0 stands for the size of the tensor that is reshaped
        constants[name].CopyFrom(onnx.numpy_helper.from_array(np.array([0, *shape[1:]], np.int64), name))
    for end in (*graph.graph.input, *graph.graph.output):
        end.type.tensor_type.shape.dim[0].dim_param = "images"
    del graph.graph.value_info[:]
    return bytes(graph.SerializeToString(deterministic=True))


def quantised_readers(symmetric: bytes) -> list[str]:
    """Return the names of the nodes of a symmetric graph that read a quantised activation, in the graph's order."""
    _, model = parsed_graph(symmetric)
    constants = {tensor.name for tensor in model.graph.initializer}
    restored = {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] not in constants
    }
    return [node.name for node in model.graph.node if restored.intersection(node.input)]


def parsed_graph(model: bytes) -> tuple[Any, Any]:
    """Return the module `onnx`, or raise EngineUnavailable, and the parsed model, or raise BundleError."""
    with importing("tensorrt", "onnx", *TENSORRT_EXTRAS):
        import onnx
        from google.protobuf.message import DecodeError
    try:
        return onnx, onnx.load_model_from_string(model)
    except DecodeError:
        raise BundleError("tensorrt: the model is no ONNX file") from None


class _Rewriter:
    def __init__(self, graph: Any, onnx: Any, exact: Collection[str]) -> None:
        self.graph, self.onnx, self.exact = graph, onnx, exact
        self.constants: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
        self.producer: dict[str, Any] = {name: node for node in graph.node for name in node.output}
        self.consumers: dict[str, list[Any]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.consumers[name].append(node)

    def rewrite(self) -> None:
        renamed: dict[str, str] = {}
        nodes: list[Any] = []
        for node in self.graph.node:
            if node.op_type == "QuantizeLinear":
                nodes += self._quantised(node, renamed)
            elif node.op_type == "DequantizeLinear" and node.input[0] in self.constants:
                nodes += self._constant(node, renamed)
            elif node.op_type != "DequantizeLinear":
                nodes.append(node)
        for node in nodes:
            node.input[:] = [renamed.get(name, name) for name in node.input]
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        kept = [tensor for name, tensor in self.constants.items() if name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
        # the stored shapes belong to tensors that have been removed
        del self.graph.value_info[:]

    def _quantised(self, node: Any, renamed: dict[str, str]) -> list[Any]:
        """Replace the Q/DQ pair of an activation; `renamed` gets the new name of its output."""
        (restored,) = self.consumers[node.output[0]]
        answer = restored.output[0]
        scale, point = (self._value(name) for name in node.input[1:3])
        low, high = (float(scale) * (end - int(point)) for end in (0, 255))
        source, made = node.input[0], []
        if low == 0:
            made.append(self.onnx.helper.make_node("Relu", [source], [f"{answer}.relu"], name=f"{node.name}.relu"))
            source = f"{answer}.relu"
        direct, through = self._readers(node, answer)
        for reader in direct:
            reader.input[:] = [source if name == answer else name for name in reader.input]
        if through:
            ends = [f"{answer}.scale", f"{answer}.zero"]
            self._add(ends[0], np.array(max(-low, high) / _STEPS, np.float32))
            self._add(ends[1], np.array(0, np.int8))
            whole, back = f"{answer}.int8", f"{answer}.symmetric"
            make = self.onnx.helper.make_node
            made.append(make("QuantizeLinear", [source, *ends], [whole], name=node.name))
            made.append(make("DequantizeLinear", [whole, *ends], [back], name=restored.name))
            renamed[answer] = back
        return made

    def _readers(self, node: Any, answer: str) -> tuple[list[Any], list[Any]]:
        """Return the readers of an activation that take it in float, and those that take it quantised."""
        direct: list[Any] = []
        through: list[Any] = []
        for reader in self.consumers[answer]:
            whole = reader.op_type in _INTEGER_OPERATORS or (reader.op_type == "Add" and self._shortcut(reader, answer))
            (through if whole and reader.name not in self.exact else direct).append(reader)
        return direct, through

    def _shortcut(self, total: Any, answer: str) -> bool:
        """Return whether `answer` is the shortcut of a residual sum: the term behind fewer convolutions."""
        other = next((name for name in total.input if name != answer), None)
        return other is not None and self._depth(answer) < self._depth(other)

    def _depth(self, name: str) -> int:
        """Count the convolutions since the last activation that has more than one reader."""
        depth = 0
        while name in self.producer:
            node = self.producer[name]
            if node.op_type == "DequantizeLinear" and len(self.consumers[name]) > 1:
                break
            depth += node.op_type == "Conv"
            name = node.input[0]
        return depth

    def _constant(self, node: Any, renamed: dict[str, str]) -> list[Any]:
        """Keep int8 weights of integer convolutions; convert other constants to float32."""
        values, scale = (self._value(name).astype(np.float64) for name in node.input[:2])
        if values.ndim == 4 and self.consumers[node.output[0]][0].name not in self.exact:
            return [node]
        per_channel = scale.reshape(-1, *[1] * (values.ndim - 1))
        renamed[node.output[0]] = f"{node.output[0]}.float"
        self._add(renamed[node.output[0]], (values * per_channel).astype(np.float32))
        return []

    def _value(self, name: str) -> NDArray[Any]:
        value: NDArray[Any] = self.onnx.numpy_helper.to_array(self.constants[name])
        return value

    def _add(self, name: str, value: NDArray[Any]) -> None:
        self.constants[name] = self.onnx.numpy_helper.from_array(value, name)
