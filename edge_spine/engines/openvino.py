"""OpenVINO on the processor: runs the same INT8 file as ONNX Runtime, faster but with a slower start."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.engines.base import Engine, EngineName, check_ends, first_line, importing
from edge_spine.engines.quiet_import import import_openvino
from edge_spine.errors import BundleError, EngineUnavailable, UsageError
from edge_spine.lending import Lender
from edge_spine.network import INPUT_NAME
from edge_spine.processors import limited_cores, usable_cores

_DEVICE = "CPU"


class OpenVinoEngine(Engine):
    """Run a network in OpenVINO; see `edge_spine.engines.onnx.OnnxEngine` for the parameters and the errors."""

    name = EngineName.OPENVINO.value

    def __init__(self, model: bytes, *, precision: str = "int8", threads: int | None = None) -> None:
        self.precision = precision
        runtime = openvino_runtime()
        core = runtime.Core()
        if _DEVICE not in core.available_devices:
            raise EngineUnavailable(f"{self.name}: OpenVINO {runtime.__version__} finds no processor it can run on")
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            # bfloat16, the default where the processor has it, rounds coordinates to a third of a crop pixel
            "INFERENCE_PRECISION_HINT": "f32",
            # pinning would put several processes on the same first cores
            "ENABLE_CPU_PINNING": False,
        }
        if used := threads or limited_cores():
            settings["INFERENCE_NUM_THREADS"] = used
        try:
            network = core.read_model(model)
            ends = [
                (end.any_name if end.names else "", tuple(end.partial_shape.get_min_shape()), str(end.element_type))
                for end in (*network.inputs, *network.outputs)
            ]
            check_ends(self.name, ends, "<Type: 'float32'>")
            first = core.compile_model(network, _DEVICE, settings).create_infer_request()
        except RuntimeError as error:
            raise BundleError(f"{self.name}: the model cannot be loaded: {first_line(error)}") from None
        # A request serves one thread at a time, and a compiled model as many as it has streams, which is one here. A
        # second is compiled when two threads call at once, unless the first one uses all processors.
        self._requests: Lender[Any] | None = Lender(
            lambda: core.compile_model(network, _DEVICE, settings).create_infer_request(),
            max(1, usable_cores() // threads) if threads else 1,
            first,
        )

    def _infer_block(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        requests = self._requests
        if requests is None:
            raise UsageError(f"{self.name}: the engine is closed")
        with requests.lent() as request:
            request.infer({INPUT_NAME: images}, share_inputs=True)
            curves: NDArray[np.float32] = request.get_output_tensor(0).data.copy()
            return curves

    def close(self) -> None:
        """Release the compiled models; a running inference ends first."""
        self._requests = None


def openvino_runtime() -> Any:
    """Import OpenVINO, or raise EngineUnavailable."""
    with importing(OpenVinoEngine.name, "openvino", "openvino"):
        return import_openvino()
