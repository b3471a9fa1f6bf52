"""Runtimes to compare: the engines of edge_spine, PyTorch, OpenVINO, NNCF, and the matrix products alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from measuring import ROOT
from numpy.typing import NDArray

CALIBRATION_CROPS = 64
OURS = (
    "ours, openvino int8",
    "ours, onnx-cpu int8",
    "ours, tensorrt int8",
    "ours, tensorrt fp16",
    "ours, onnx-cuda fp16",
    "ours, onnx-cuda fp32",
)
LITE = ("lite, openvino int8", "lite, onnx-cpu int8")
EAGER, EAGER_GPU = "PyTorch eager float32", "PyTorch eager float32, GPU"
# The matrix products of the network alone.
FLOOR, FLOAT_FLOOR = "floor: INT8 products", "floor: float32 products"
WEIGHTS = {"spine": ROOT / "export/weights/spine.safetensors", "lite": ROOT / "export/weights/spine-lite.safetensors"}
Image = NDArray[np.float32]
Infer = Callable[[Image], NDArray[np.float32]]


class Work:
    """Inputs from which the peers are built.

    Attributes
    ----------
    model : str
        A packaged model or the folder of a bundle.
    weights : Path
        PyTorch weights of the bundle.
    graph : Path
        float32 ONNX graph of the weights.
    threads : int
        Threads of each peer.
    """

    def __init__(self, model: str, weights: Path, folder: Path, threads: int) -> None:
        self.model, self.weights, self.threads = model, weights, threads
        self.graph = folder / "float32.onnx"

    def prepare(self) -> None:
        """Write the float32 graph, if PyTorch is installed."""
        if find_spec("torch") is None:
            return
        import onnx

        from export.checkpoint import load_regressor
        from export.onnx_graph import export_graph

        onnx.save(export_graph(load_regressor(self.weights)[0]), self.graph)

    def engine_file(self) -> bytes:
        """Return the bundle's INT8 file."""
        from edge_spine.bundle import load_bundle

        bundle = load_bundle(self.model)
        return bundle.read(bundle.file_with_role("engine"))


def ours(model: str, engine: str, precision: str, threads: int) -> Infer:
    """Open an engine of edge_spine."""
    from edge_spine.bundle import load_bundle
    from edge_spine.engines import open_engine

    return open_engine(load_bundle(model), engine, threads=threads, precision=precision).infer


def torch_eager(work: Work, device: str = "cpu", *, compiled: bool = False) -> Infer:
    """Run PyTorch float32, eager as in the published code or compiled."""
    import torch

    from export.checkpoint import load_regressor

    torch.set_num_threads(work.threads)
    network: Any = load_regressor(work.weights)[0].to(device)
    if compiled:
        network = torch.compile(network)

    def infer(image: Image) -> NDArray[np.float32]:
        with torch.inference_mode():
            answer: NDArray[np.float32] = network(torch.from_numpy(image).to(device)).cpu().numpy()
        return answer

    return infer


def onnx_float(work: Work) -> Infer:
    """Run the float32 graph in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = work.threads
    session = onnxruntime.InferenceSession(str(work.graph), options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image})[0]


def openvino(work: Work, *, hint: str, quantised: str | None = None) -> Infer:
    """Run the float32 graph, the bundle's INT8 file or the NNCF model in OpenVINO."""
    import openvino as runtime

    core = runtime.Core()
    if quantised == "nncf":
        model = by_nncf(work)
    else:
        model = core.read_model(work.engine_file() if quantised == "ours" else str(work.graph))
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": work.threads}
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def infer(image: Image) -> NDArray[np.float32]:
        request.infer([image], share_inputs=True)
        answer: NDArray[np.float32] = request.get_output_tensor(0).data.copy()
        return answer

    return infer


def by_nncf(work: Work) -> Any:
    """Quantise the PyTorch network with NNCF as documented, with the calibration crops of the INT8 file.

    None of the crops is a reference.
    """
    import nncf
    import openvino as runtime
    import torch

    from edge_spine.engines.verification import crop_tensor
    from edge_spine.network import INPUT_SHAPE
    from export.checkpoint import load_regressor
    from export.training.dataset import calibration_crops

    network = load_regressor(work.weights)[0]
    # NNCF cannot quantise the attention of the ONNX graph.
    model = runtime.convert_model(network, example_input=torch.rand(INPUT_SHAPE), input=list(INPUT_SHAPE))
    crops = nncf.Dataset(list(calibration_crops(CALIBRATION_CROPS)), crop_tensor)
    return nncf.quantize(model, crops, preset=nncf.QuantizationPreset.MIXED, subset_size=CALIBRATION_CROPS)


def products(work: Work, *, integers: bool) -> Infer:
    """Compute each matrix product of the network's convolutions once; the output is meaningless."""
    import torch

    torch.set_num_threads(work.threads)
    torch.backends.quantized.engine = "onednn"
    calls = []
    for (rows, inner, columns), count in product_sizes(work.graph).items():
        calls += [(integer_product if integers else float_product)(rows, inner, columns)] * count

    def run(image: Image) -> NDArray[np.float32]:
        for call in calls:
            call()
        return np.zeros((1, 1254), np.float32)

    return run


def product_sizes(graph: Path) -> Counter[tuple[int, int, int]]:
    """Return how often each product (rows, inner, columns) occurs when convolutions are written as products."""
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load(graph))
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in model.graph.value_info
    }
    kernels = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    sizes: Counter[tuple[int, int, int]] = Counter()
    for node in model.graph.node:
        if node.op_type == "Conv":
            filters, *inner = kernels[node.input[1]]
            height, width = shapes[node.output[0]][2:]
            sizes[height * width, int(np.prod(inner)), filters] += 1
    return sizes


def integer_product(rows: int, inner: int, columns: int) -> Callable[[], object]:
    """Multiply uint8 by int8 in oneDNN, through PyTorch."""
    import torch

    weights = torch.quantize_per_tensor(torch.randn(columns, inner), 0.01, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(weights, None)
    values = torch.quantize_per_tensor(torch.rand(rows, inner), 0.01, 0, torch.quint8)
    return lambda: torch.ops.quantized.linear(values, packed, 0.1, 0)


def float_product(rows: int, inner: int, columns: int) -> Callable[[], object]:
    """Multiply float32 in PyTorch's BLAS, into the same output each time."""
    import torch

    first, second, result = torch.randn(rows, inner), torch.randn(inner, columns), torch.empty(rows, columns)
    return lambda: torch.mm(first, second, out=result)


OTHERS: dict[str, Callable[[Work], Infer]] = {
    EAGER: torch_eager,
    EAGER_GPU: partial(torch_eager, device="cuda"),
    "PyTorch compiled float32": partial(torch_eager, compiled=True),
    "ONNX Runtime float32": onnx_float,
    "OpenVINO float32": partial(openvino, hint="f32"),
    "OpenVINO bfloat16": partial(openvino, hint="bf16"),
    "OpenVINO INT8, our graph": partial(openvino, hint="f32", quantised="ours"),
    "OpenVINO INT8, our graph, rest bfloat16": partial(openvino, hint="bf16", quantised="ours"),
    "OpenVINO INT8 by NNCF": partial(openvino, hint="f32", quantised="nncf"),
    FLOOR: partial(products, integers=True),
    FLOAT_FLOOR: partial(products, integers=False),
}
PEERS = (*OURS, *LITE, *OTHERS)


def peer(name: str, work: Work) -> Infer:
    """Create a peer by name."""
    if name in OTHERS:
        return OTHERS[name](work)
    whose, engine, precision = name.replace(",", "").split()
    return ours("lite" if whose == "lite" else work.model, engine, precision, work.threads)
