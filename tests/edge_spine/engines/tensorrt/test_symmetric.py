"""TensorRT's symmetric graph, derived from the packaged INT8 graph."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_spine.bundle import load_bundle
from edge_spine.engines.forms import form_graph
from edge_spine.engines.tensorrt.symmetric import (
    quantised_readers,
    symmetric_graph,
    with_free_batch,
    with_weight_pairs,
)
from edge_spine.engines.verification import crop_tensor, read_references
from edge_spine.errors import BundleError


def test_the_form_is_symmetric_and_has_no_quantised_bias(packaged, symmetric) -> None:
    graph = onnx.load_model_from_string(symmetric).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > 150
    for node in pairs:
        assert values[node.input[2]].dtype == np.int8 and not values[node.input[2]].any()
    exact = set(packaged.exact_readers)
    for node in graph.node:
        if node.op_type == "Conv" and node.name not in exact:
            data, kernel = (producer[name] for name in node.input[:2])
            assert (data.op_type, kernel.op_type) == ("DequantizeLinear", "DequantizeLinear"), node.name
            assert values[node.input[2]].dtype == np.float32
    assert Counter(value.dtype for value in values.values())[np.dtype(np.int32)] == 0


def test_residual_sums_are_quantised_on_their_shortcut_only(packaged, symmetric) -> None:
    graph = onnx.load_model_from_string(symmetric).graph
    producer = {name: node for node in graph.node for name in node.output}
    sums = [node for node in graph.node if node.op_type == "Add" and node.name.endswith("/Add")]
    residual = [node for node in sums if any(producer[name].op_type == "Conv" for name in node.input)]
    assert len(residual) == 19
    for node in residual:
        kinds = sorted(producer[name].op_type for name in node.input)
        if node.name not in packaged.exact_readers:
            assert kinds == ["Conv", "DequantizeLinear"], node.name


def test_the_attention_and_the_last_layers_are_not_quantised(symmetric) -> None:
    readers = quantised_readers(symmetric)
    kinds = {node.name: node.op_type for node in onnx.load_model_from_string(symmetric).graph.node}
    assert {kinds[name] for name in readers} == {"Conv", "MaxPool", "Add"}
    assert not [name for name in readers if "pos_emb" in name or "linear" in name or "MatMul" in name]


@pytest.mark.slow
def test_a_reader_that_is_left_out_reads_floats(packaged) -> None:
    model = form_graph(packaged, "int8")
    readers = quantised_readers(symmetric_graph(model))
    graph = onnx.load_model_from_string(symmetric_graph(model, readers)).graph
    kinds = Counter(node.op_type for node in graph.node)
    assert kinds["QuantizeLinear"] == kinds["DequantizeLinear"] == 0
    assert len(readers) == len(set(readers)) > 80
    one = symmetric_graph(model, [readers[5]])
    assert set(readers) - set(quantised_readers(one)) == {readers[5]}


def test_another_graph_is_refused_in_one_line(fake_model: Path) -> None:
    for content in (b"nothing", load_bundle().read("localiser.onnx")[:1000]):
        with pytest.raises(BundleError) as caught:
            symmetric_graph(content)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_weight_pairs_restore_the_same_integers(symmetric) -> None:
    before, after = (onnx.load_model_from_string(model) for model in (symmetric, with_weight_pairs(symmetric)))
    onnx.checker.check_model(after)
    value = numpy_helper.to_array
    old = {tensor.name: value(tensor) for tensor in before.graph.initializer}
    new = {tensor.name: value(tensor) for tensor in after.graph.initializer}
    pairs = [node for node in after.graph.node if node.op_type == "QuantizeLinear" and node.input[0] in new]
    weights = [name for name, array in old.items() if array.dtype == np.int8 and array.ndim == 4]
    assert sorted(node.input[0] for node in pairs) == sorted(weights)
    for name, scale, _ in (node.input for node in pairs):
        integers = np.rint(new[name] / new[scale].reshape(-1, 1, 1, 1))
        assert new[name].dtype == np.float32 and np.array_equal(integers, old[name])


@pytest.mark.slow
@pytest.mark.parametrize("form", ["symmetric", "half"])
def test_a_graph_with_a_free_number_of_images_answers_each_as_alone(packaged, request, form: str) -> None:
    model = request.getfixturevalue(form)
    free = with_free_batch(model)
    crops, _ = read_references(packaged)
    images = np.concatenate([crop_tensor(crop) for crop in crops[:3]])
    together, alone = (onnx_runtime(graph) for graph in (free, model))
    answers = np.concatenate([alone.run(None, {"image": image[None]})[0] for image in images])
    np.testing.assert_allclose(together.run(None, {"image": images})[0], answers, atol=2e-3 if form == "half" else 1e-5)


def test_a_graph_whose_number_of_images_cannot_be_freed_is_refused(symmetric) -> None:
    graph = onnx.load_model_from_string(symmetric)
    shape = next(node.input[1] for node in graph.graph.node if node.op_type == "Reshape")
    (tensor,) = [tensor for tensor in graph.graph.initializer if tensor.name == shape]
    tensor.CopyFrom(numpy_helper.from_array(np.array([2, -1], np.int64), shape))
    with pytest.raises(BundleError, match="the number of images is fixed"):
        with_free_batch(graph.SerializeToString())


def onnx_runtime(model: bytes):
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
