"""ONNX Runtime on the processor or, with onnxruntime-gpu, on an NVIDIA GPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.engines.base import Engine, EngineName, first_line
from edge_spine.engines.driver import gpu_problem
from edge_spine.engines.quiet_import import import_onnxruntime
from edge_spine.errors import BundleError, EngineUnavailable, UsageError
from edge_spine.network import INPUT_NAME, INPUT_SHAPE, OUTPUT_NAME, OUTPUT_SHAPE

PROVIDERS = {EngineName.ONNX_CPU: "CPUExecutionProvider", EngineName.ONNX_CUDA: "CUDAExecutionProvider"}
_EXTRAS = {EngineName.ONNX_CPU: "cpu", EngineName.ONNX_CUDA: "cuda"}
_ERRORS_ONLY = 3


class OnnxEngine(Engine):
    """Run a network in ONNX Runtime.

    Parameters
    ----------
    model : bytes or path
        An ONNX file with the input "image" (1, 3, 224, 224) and the output "curves" (1, 1254),
        both float32; of a bundle, the checked bytes from `Bundle.read`.
    provider : str
        "onnx-cpu" or "onnx-cuda"; never replaced by the other.
    precision : str
        What the engine reports as its precision.
    threads : int, optional
        Threads inside an operator; ONNX Runtime takes the physical cores where it is not given.
    exact_integers : bool
        Compute INT8 sums exactly, more slowly, on x86 processors without VNNI, where they can overflow 16 bits.

    Raises
    ------
    EngineUnavailable
        ONNX Runtime is not installed or cannot use the provider here.
    BundleError
        ONNX Runtime cannot read the model, or it has other inputs or outputs.
    UsageError
        `threads` or `provider` is not an accepted value.
    """

    def __init__(
        self,
        model: bytes | str | os.PathLike[str],
        *,
        provider: str = EngineName.ONNX_CPU,
        precision: str = "int8",
        threads: int | None = None,
        exact_integers: bool = False,
    ) -> None:
        if provider not in PROVIDERS:
            raise UsageError(f"engine {provider!r} is none of {', '.join(PROVIDERS)}")
        name = EngineName(provider)
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise UsageError(f"threads is {threads!r}, a whole number from 1 is expected")
        self.name = name.value
        self.precision = precision
        runtime = _runtime(name)
        problem = provider_problem(name)
        if problem:
            raise EngineUnavailable(problem)
        content = model if isinstance(model, bytes) else Path(model).read_bytes()
        self._session: Any = _session(runtime, content, name, threads, exact_integers)

    def _infer_one(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._session is None:
            raise UsageError(f"{self.name}: the engine is closed")
        curves: NDArray[np.float32] = self._session.run([OUTPUT_NAME], {INPUT_NAME: image})[0]
        return curves

    def close(self) -> None:
        """Release the session."""
        self._session = None


def provider_problem(name: EngineName) -> str | None:
    """Return why "onnx-cpu" or "onnx-cuda" cannot run here, in one line, or None where it can."""
    try:
        runtime = _runtime(name)
    except EngineUnavailable as error:
        return str(error)
    if PROVIDERS[name] not in runtime.get_available_providers():
        return (
            f"{name}: the installed onnxruntime {runtime.__version__} has no {PROVIDERS[name]}; "
            f"install edge-spine[{_EXTRAS[name]}] in an environment without the other onnxruntime package"
        )
    # onnxruntime-gpu lists CUDA on machines without a GPU too
    problem = gpu_problem() if name is EngineName.ONNX_CUDA else None
    return f"{name}: {problem}" if problem else None


def _runtime(name: EngineName) -> Any:
    try:
        return import_onnxruntime()
    except ImportError as error:
        raise EngineUnavailable(
            f"{name}: onnxruntime cannot be imported ({first_line(error)}); install edge-spine[{_EXTRAS[name]}]"
        ) from None


def _session(runtime: Any, content: bytes, provider: EngineName, threads: int | None, exact_integers: bool) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.inter_op_num_threads = 1
    # threads that spin between inferences slow down reconstruction and drawing
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if exact_integers:
        options.add_session_config_entry("session.x64quantprecision", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    if provider is EngineName.ONNX_CUDA and hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()
    try:
        session = runtime.InferenceSession(content, sess_options=options, providers=[PROVIDERS[provider]])
    except Exception as error:  # ONNX Runtime raises types of its own that share no base class
        raise BundleError(f"{provider}: the model cannot be loaded: {first_line(error)}") from None
    # ONNX Runtime silently falls back to the processor where CUDA's libraries are missing
    if session.get_providers()[0] != PROVIDERS[provider]:
        raise EngineUnavailable(
            f"{provider}: onnxruntime {runtime.__version__} could not start {PROVIDERS[provider]}; "
            "check that its CUDA and cuDNN libraries are installed"
        )
    session.disable_fallback()
    found = [(end.name, tuple(end.shape), end.type) for end in (*session.get_inputs(), *session.get_outputs())]
    wanted = [
        (INPUT_NAME, INPUT_SHAPE, "tensor(float)"),
        (OUTPUT_NAME, OUTPUT_SHAPE, "tensor(float)"),
    ]
    if found != wanted:
        raise BundleError(f"{provider}: the model's inputs and outputs are {found}, {wanted} expected")
    return session
