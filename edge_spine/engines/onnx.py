"""ONNX Runtime on the processor or, with onnxruntime-gpu, on an NVIDIA GPU."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.engines.base import Engine, EngineName, check_ends, first_line, importing, losing
from edge_spine.engines.driver import require_cuda, require_gpu
from edge_spine.engines.memory import ran_out
from edge_spine.engines.quiet_import import import_onnxruntime
from edge_spine.errors import BundleError, EngineUnavailable, UsageError
from edge_spine.network import INPUT_NAME, OUTPUT_NAME
from edge_spine.processors import limited_cores

PROVIDERS = {EngineName.ONNX_CPU: "CPUExecutionProvider", EngineName.ONNX_CUDA: "CUDAExecutionProvider"}
_EXTRAS = {EngineName.ONNX_CPU: "cpu", EngineName.ONNX_CUDA: "cuda"}
_ERRORS_ONLY = 3


class OnnxEngine(Engine):
    """Run a network in ONNX Runtime.

    Parameters
    ----------
    model : bytes
        Checked content of an ONNX file with the input "image" (1, 3, 224, 224) and the output "curves" (1, 1254), both
        float32.
    provider : EngineName
        ONNX_CPU or ONNX_CUDA; never replaced by the other.
    threads : int, optional
        Threads inside an operator; ONNX Runtime takes the physical cores where it is not given.
    exact_integers : bool
        Compute INT8 sums exactly, more slowly, on x86 processors without VNNI, where they can overflow 16 bits.
    as_written : bool
        Compute node after node, without graph optimisation, as a reference for another engine that runs this graph.

    Raises
    ------
    EngineUnavailable
        ONNX Runtime is not installed or cannot use the provider here.
    BundleError
        ONNX Runtime cannot read the model, or it has other inputs or outputs.
    """

    def __init__(
        self,
        model: bytes,
        *,
        provider: EngineName = EngineName.ONNX_CPU,
        precision: str = "int8",
        threads: int | None = None,
        exact_integers: bool = False,
        as_written: bool = False,
    ) -> None:
        self.name, self.precision = provider.value, precision
        runtime = runtime_with(provider)
        options = runtime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        level = runtime.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_DISABLE_ALL if as_written else level.ORT_ENABLE_ALL
        options.inter_op_num_threads = 1
        # threads that spin between inferences slow down reconstruction and drawing
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if exact_integers:
            options.add_session_config_entry("session.x64quantprecision", "1")
        if used := threads or limited_cores():
            options.intra_op_num_threads = used
        if provider is EngineName.ONNX_CUDA and hasattr(runtime, "preload_dlls"):
            runtime.preload_dlls()
        try:
            session = runtime.InferenceSession(model, sess_options=options, providers=[PROVIDERS[provider]])
        except Exception as error:  # ONNX Runtime raises types of its own that share no base class
            damaged = BundleError(f"{provider}: the model cannot be loaded: {first_line(error)}")
            raise ran_out(self.name, error) or damaged from None
        # ONNX Runtime silently falls back to the processor where CUDA's libraries are missing
        if session.get_providers()[0] != PROVIDERS[provider]:
            raise EngineUnavailable(
                f"{provider}: onnxruntime {runtime.__version__} could not start {PROVIDERS[provider]}; "
                "check that its CUDA and cuDNN libraries are installed"
            )
        session.disable_fallback()
        # kept for the fallback alone: as large as the model
        session._model_bytes = None
        ends = [(end.name, tuple(end.shape), end.type) for end in (*session.get_inputs(), *session.get_outputs())]
        check_ends(self.name, ends, "tensor(float)")
        self._session: Any = session

    def _infer_block(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        # another thread may close the engine meanwhile
        session = self._session
        if session is None:
            raise UsageError(f"{self.name}: the engine is closed")
        with losing(self.name) if self.name == EngineName.ONNX_CUDA else nullcontext():
            curves: NDArray[np.float32] = session.run([OUTPUT_NAME], {INPUT_NAME: images})[0]
        return curves

    def close(self) -> None:
        """Release the session; a running inference ends first."""
        self._session = None


def runtime_with(name: EngineName) -> Any:
    """Import ONNX Runtime, and raise EngineUnavailable where it cannot run "onnx-cpu" or "onnx-cuda" here."""
    with importing(name, "onnxruntime", _EXTRAS[name]):
        runtime = import_onnxruntime()
    if PROVIDERS[name] not in runtime.get_available_providers():
        raise EngineUnavailable(
            f"{name}: the installed onnxruntime {runtime.__version__} has no {PROVIDERS[name]}; pip install "
            f"'.[{_EXTRAS[name]}]' in an environment without the other onnxruntime package"
        )
    # onnxruntime-gpu lists CUDA on machines without a GPU too
    if name is EngineName.ONNX_CUDA:
        built_for = str(getattr(runtime, "cuda_version", "")).partition(".")[0]
        gpu = require_gpu(name)
        if built_for in ("12", "13"):
            package = f"onnxruntime-gpu {runtime.__version__}"
            # 1.21 is built for CUDA 12
            require_cuda(name, gpu, package, built_for, "pip install 'onnxruntime-gpu[cuda,cudnn]==1.21.*'")
    return runtime
