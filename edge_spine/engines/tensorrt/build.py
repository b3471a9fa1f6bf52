"""Build a plan from an ONNX graph with TensorRT 8.6, 10, 11 or TensorRT-RTX.

Features are detected by the attributes of the module, not by its version.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from edge_spine.engines.base import TENSORRT_EXTRAS, check_ends, importing
from edge_spine.engines.forms import FP16, FP32, INT8_TENSORRT
from edge_spine.engines.tensorrt.symmetric import with_free_batch, with_weight_pairs
from edge_spine.errors import BundleError, EngineUnavailable
from edge_spine.network import INPUT_NAME, INPUT_SHAPE
from edge_spine.streams import say

WORKSPACE_BYTES = 1 << 30
# of the processor's memory, for TensorRT's kernels: it is the GPU's too where both share one
_KERNELS_BYTES = 1450 << 20
# of NVIDIA's support matrices; the second is what TensorRT 11 asks for
_RTX_CAPABILITIES, _TURING = ("7.5", "8.6", "8.9", "12.0", "12.1"), (7, 5)
# cuDNN and cuBLAS take hundreds of megabytes at run time and no layer of this network uses them
_LIBRARY_TACTICS = ("CUDNN", "CUBLAS", "CUBLAS_LT")
_log = logging.getLogger(__name__)


class PlanRefused(EngineUnavailable):
    """A plan that cannot be built, or that does not compute what its graph says."""


def import_tensorrt() -> ModuleType:
    """Import TensorRT, or TensorRT-RTX where only that is installed; raise EngineUnavailable where neither can be."""
    failures: list[Exception] = []
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            return importlib.import_module(name)
        except (ImportError, OSError) as error:  # Windows' bindings raise FileNotFoundError for a missing DLL
            failures.append(error)
    # one that is installed and does not load says more than that the other is not installed
    told = next((error for error in failures if not isinstance(error, ModuleNotFoundError)), failures[0])
    with importing("tensorrt", "it", *TENSORRT_EXTRAS):
        raise told


def require_capability(trt: Any, found: str) -> None:
    """Raise EngineUnavailable where TensorRT has no code for a compute capability: its errors do not say so."""
    if trt.__name__ == "tensorrt_rtx":
        if found not in _RTX_CAPABILITIES:
            supported = ", ".join(_RTX_CAPABILITIES)
            raise EngineUnavailable(
                f"tensorrt: TensorRT-RTX runs on compute capability {supported}, and this GPU has {found}; "
                "install tensorrt"
            )
    elif not hasattr(trt.BuilderFlag, "FP16") and tuple(map(int, found.split("."))) < _TURING:
        raise EngineUnavailable(
            f"tensorrt: TensorRT {trt.__version__} needs compute capability 7.5 or newer, and this GPU has {found}; "
            "use onnx-cpu"
        )


def strongly_typed(trt: Any) -> bool:
    """Return whether precisions come from the types in the graph, as from TensorRT 10.12 on.

    Earlier versions have the flag but are incomplete; `DISTRIBUTIVE_INDEPENDENCE` came with 10.12.
    """
    return hasattr(trt.BuilderFlag, "DISTRIBUTIVE_INDEPENDENCE")


def options_text(trt: Any, form: str) -> str:
    """Return the builder's options in one line, for a plan's sidecar."""
    typing = "strongly typed" if strongly_typed(trt) else f"flags {' '.join(_precision_flags(form)) or 'none'}"
    return f"{typing}, workspace {WORKSPACE_BYTES >> 20} MiB, no cuDNN, no cuBLAS, detailed"


def building_needs(model: bytes, integrated: bool) -> int:
    """Return the bytes that a build takes of the GPU: workspace, and the weights as they are read and in the plan."""
    return WORKSPACE_BYTES + 2 * len(model) + (_KERNELS_BYTES if integrated else 0)


def build_plan(
    trt: Any,
    model: bytes,
    form: str,
    *,
    block: int = 1,
    timing_cache: bytes = b"",
    progress: Callable[[str], None] | None = None,
) -> tuple[bytes, bytes]:
    """Build a plan for the GPU of this machine from the ONNX graph of a form; return it and the timing cache.

    Parameters
    ----------
    block : int
        Number of images that the plan also computes together: a second optimisation profile where it is not 1.
    progress : callable, optional
        Called with a line of text about the progress.

    Raises
    ------
    BundleError
        TensorRT cannot parse the graph.
    EngineUnavailable
        TensorRT cannot build here.
    """
    logger = make_logger(trt)
    try:
        builder = trt.Builder(logger)
    except (TypeError, RuntimeError):
        raise EngineUnavailable("tensorrt: its builder does not start on this machine") from None
    if form == INT8_TENSORRT and not strongly_typed(trt):
        model = with_weight_pairs(model)
    if block > 1:
        model = with_free_batch(model)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise BundleError(f"tensorrt: the parser refuses the {form} graph: {(errors or ['no reason given'])[0]}")
    ends = [network.get_input(index) for index in range(network.num_inputs)]
    ends += [network.get_output(index) for index in range(network.num_outputs)]
    # a free batch size is -1
    shapes = [(end.name, (abs(end.shape[0]), *tuple(end.shape)[1:])) for end in ends]
    check_ends(f"tensorrt, {form} graph", shapes)
    config = builder.create_builder_config()
    if block > 1:
        for size in (1, block):
            profile = builder.create_optimization_profile()
            profile.set_shape(INPUT_NAME, *[(size, *INPUT_SHAPE[1:])] * 3)
            config.add_optimization_profile(profile)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    if not strongly_typed(trt):
        for flag in _precision_flags(form):
            config.set_flag(getattr(trt.BuilderFlag, flag))
    if hasattr(trt, "ProfilingVerbosity"):
        # without it the inspector tells no tactics and no types
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if form == FP32 and hasattr(trt.BuilderFlag, "TF32"):
        # on by default, with which fp32 would be rounded to 10 bits
        config.clear_flag(trt.BuilderFlag.TF32)
    everything = _leave_out_libraries(trt, config)
    cache = _use_timing_cache(trt, config, timing_cache)
    if progress is not None and hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _progress_monitor(trt, progress)
    plan = builder.build_serialized_network(network, config)
    if plan is None and everything is not None:
        _log.warning("tensorrt: no plan without cuDNN and cuBLAS; trying with them")
        config.set_tactic_sources(everything)
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise PlanRefused(f"tensorrt: no plan could be built for {form}; -v shows what TensorRT says")
    timings = cache.serialize() if cache is not None else None
    return bytes(plan), b"" if timings is None else bytes(timings)


def make_logger(trt: Any) -> Any:
    """Return a TensorRT logger that writes to this module's logger, shown with -v only."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                _log.info("tensorrt: %s", message)
            elif severity == trt.ILogger.Severity.WARNING:
                _log.debug("tensorrt: %s", message)

    return Logger()


def terminal_progress(text: str) -> None:
    """Show a line on stderr in place of the one before, where stderr is a terminal."""
    if sys.stderr is not None and sys.stderr.isatty():
        say(f"\r\x1b[K{text}", sys.stderr, end="")


def _precision_flags(form: str) -> tuple[str, ...]:
    return {INT8_TENSORRT: ("INT8", "FP16"), FP16: ("FP16",), FP32: ()}[form]


def _network_flags(trt: Any) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    if strongly_typed(trt):
        return 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0
    return 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0


def _leave_out_libraries(trt: Any, config: Any) -> int | None:
    """Leave cuDNN and cuBLAS out; return the tactic sources from before, or None where they do not exist."""
    sources = getattr(trt, "TacticSource", None)
    if sources is None:
        return None
    before = int(config.get_tactic_sources())
    left_out = sum(1 << int(getattr(sources, name)) for name in _LIBRARY_TACTICS if hasattr(sources, name))
    config.set_tactic_sources(before & ~left_out)
    return before if before & left_out else None


def _use_timing_cache(trt: Any, config: Any, content: bytes) -> Any:
    """Give the builder a timing cache; return it, or None where this TensorRT has none."""
    if trt.__name__ == "tensorrt_rtx" or not hasattr(config, "create_timing_cache"):
        return None
    # TensorRT refuses a cache of another GPU or version, and may return None for it; an empty one replaces it
    for start in dict.fromkeys((content, b"")):
        cache = config.create_timing_cache(start)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    return None


def _progress_monitor(trt: Any, progress: Callable[[str], None]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(f"building: {phase_name}, {step + 1} of {self.steps.get(phase_name, 0)}")
            return True

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()
