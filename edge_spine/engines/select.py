"""Choose and open an inference engine; an engine that was named is never replaced by another."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np

from edge_spine.bundle.load import Bundle
from edge_spine.engines.base import Engine, EngineName, first_line
from edge_spine.engines.forms import FP16, INT8, form_graph, tensorrt_form
from edge_spine.engines.memory import ran_out
from edge_spine.errors import BundleError, EdgeSpineError, EngineUnavailable, GpuMemoryShort, UsageError
from edge_spine.network import INPUT_SHAPE

ENGINES = tuple(name.value for name in EngineName)
PRECISIONS = ("auto", "int8", "fp16", "fp32")
AUTO_ORDER = (EngineName.TENSORRT, EngineName.ONNX_CUDA, EngineName.OPENVINO, EngineName.ONNX_CPU)
_ON_GPUS = (EngineName.TENSORRT, EngineName.ONNX_CUDA)
# references that are run at the start where INT8 sums may overflow: few where they are computed exactly
_CHECKED_EXACT, _CHECKED = 2, 6
# OpenCV's number of AVX-512 VNNI, which its Python module does not name
_OPENCV_VNNI = 23
_log = logging.getLogger(__name__)


class _WrongSums(EngineUnavailable):
    """INT8 sums overflow on this processor."""


def open_engine(bundle: Bundle, engine: str = "auto", *, threads: int | None = None, precision: str = "auto") -> Engine:
    """Load a bundle's network into an engine.

    Parameters
    ----------
    engine : str
        One of `ENGINES`. "auto" opens the first that runs here of TensorRT, ONNX Runtime on a GPU, OpenVINO and ONNX
        Runtime on the processor, and logs the choice; an engine that fails in any way is passed over with its reason.
        Any other is opened or refused.
    threads : int, optional
        Threads inside an operator on the processor.
    precision : str
        One of `PRECISIONS`. "auto" is INT8, but float16 for "onnx-cuda" where the bundle has it, since ONNX Runtime
        has no INT8 convolutions on a GPU.

    Returns
    -------
    Engine
        A context manager, which has run once: the first inference allocates memory and is slow.

    Raises
    ------
    EngineUnavailable
        The engine cannot run here; the message says in one line what is missing or what failed.
    BundleError
        The network is damaged.
    UsageError
        There is no engine or precision of this name, the bundle lacks the precision, or `threads` is not a whole
        number from 1.
    """
    if engine not in ENGINES:
        raise UsageError(f"engine {engine!r} is none of {', '.join(ENGINES)}")
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is none of {', '.join(PRECISIONS)}")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise UsageError(f"threads is {threads!r}, a whole number from 1 is expected")
    if engine != EngineName.AUTO:
        return _started(bundle, EngineName(engine), threads, precision)
    passed_over: list[str] = []
    for name in AUTO_ORDER:
        problem = engine_problem(name)
        if problem is None:
            try:
                opened = _started(bundle, name, threads, precision)
            except (EngineUnavailable, BundleError) as error:
                problem = str(error)
                # wrong sums are a property of the processor; the user can repair any other problem
                _log.log(logging.INFO if isinstance(error, _WrongSums) else logging.WARNING, "%s", problem)
            else:
                _log.info("auto takes %s (%s)%s", name, opened.precision, "".join(f"; {why}" for why in passed_over))
                return opened
        passed_over.append(problem)
    raise EngineUnavailable(f"no engine can run here; {passed_over[-1]}")


def engine_problem(name: EngineName) -> str | None:
    """Return why an engine cannot run here, in one line, or None where it can."""
    try:
        with in_one_line(name):
            _require(name)
    except EdgeSpineError as error:
        return str(error)
    return None


@contextmanager
def in_one_line(name: EngineName) -> Iterator[None]:
    """Raise EngineUnavailable in place of any other exception; GpuMemoryShort where it says that memory ran out."""
    try:
        yield
    except EdgeSpineError:
        raise
    except Exception as error:
        if (short := ran_out(name, error)) is not None:
            raise short from None
        kind, said = type(error).__name__, first_line(error)
        raise EngineUnavailable(f"{name}: it fails to start: {kind if said == kind else f'{kind}: {said}'}") from None


def _started(bundle: Bundle, name: EngineName, threads: int | None, precision: str) -> Engine:
    with in_one_line(name):
        opened = _open(bundle, name, threads, precision)
        try:
            if not np.isfinite(opened.infer(np.zeros(INPUT_SHAPE, np.float32))).all():
                raise EngineUnavailable(f"{name}: its first answer holds numbers that are not finite")
        except BaseException:
            with suppress(Exception):
                opened.close()
            raise
        return opened


def runs_on_gpu(engine: str) -> bool:
    """Return whether an engine, one of `ENGINES`, runs on a GPU; for "auto", whether one on a GPU can run here."""
    return engine in _ON_GPUS or (engine == EngineName.AUTO and any(engine_problem(name) is None for name in _ON_GPUS))


def _require(name: EngineName) -> None:
    """Raise EngineUnavailable where an engine cannot run here."""
    if name is EngineName.TENSORRT:
        from edge_spine.engines.tensorrt.engine import require_tensorrt

        require_tensorrt()
    elif name is EngineName.OPENVINO:
        from edge_spine.engines.openvino import openvino_runtime

        openvino_runtime()
    else:
        from edge_spine.engines.onnx import runtime_with

        runtime_with(name)


def engine_problems() -> dict[str, str | None]:
    """Return `engine_problem` of each engine except "auto"."""
    return {name.value: engine_problem(name) for name in EngineName if name is not EngineName.AUTO}


def _open(bundle: Bundle, name: EngineName, threads: int | None, precision: str) -> Engine:
    if name is EngineName.TENSORRT:
        return _on_tensorrt(bundle, precision)
    _require(name)
    if precision == "auto":
        precision = FP16 if name is EngineName.ONNX_CUDA and bundle.has_role("float") else INT8
    model = form_graph(bundle, precision)
    # the engine file of a bundle may hold another precision than INT8
    shown = bundle.precision(bundle.file_with_role("engine")) if precision == INT8 else precision
    saturates = shown == INT8 and _may_saturate()
    exact = saturates and name is EngineName.ONNX_CPU
    # under emulation OpenVINO's INT8 for ARM missed the tolerance
    checked = exact or (name is EngineName.OPENVINO and shown == INT8 and (saturates or not _is_x86()))
    if exact:
        _log.info("onnx-cpu: this processor may cut off INT8 sums; computing them exactly, which is slower")
    engine: Engine
    if name is EngineName.OPENVINO:
        from edge_spine.engines.openvino import OpenVinoEngine

        engine = OpenVinoEngine(model, precision=shown, threads=threads)
    else:
        from edge_spine.engines.onnx import OnnxEngine

        engine = OnnxEngine(model, provider=name, precision=shown, threads=threads, exact_integers=exact)
    if checked:
        from edge_spine.engines.verification import verify

        if not verify(bundle, engine, _CHECKED_EXACT if exact else _CHECKED).passed:
            engine.close()
            hint = "edge-spine verify shows it" if exact else "use onnx-cpu"
            raise _WrongSums(f"{name.value}: INT8 gives wrong results on this processor; {hint}")
    return engine


def _on_tensorrt(bundle: Bundle, precision: str) -> Engine:
    """Open TensorRT; where the precision was left open, in float16 if no INT8 plan can be built or passes."""
    from edge_spine.engines.tensorrt.build import PlanRefused
    from edge_spine.engines.tensorrt.engine import TensorRTEngine, ready_plan

    form = tensorrt_form(precision)
    try:
        plan, verdict = ready_plan(bundle, form)
    except (PlanRefused, BundleError) as error:
        if precision != "auto":
            raise
        _log.warning("%s; trying %s", error, FP16)
        form = FP16
        plan, verdict = ready_plan(bundle, form)
    shown = form.removesuffix("-trt")
    try:
        return TensorRTEngine(plan, precision=shown)
    except GpuMemoryShort as error:
        if verdict["block"] == 1:
            raise
        _log.warning("%s; trying single scans", error)
        plan, _ = ready_plan(bundle, form, block=1)
        return TensorRTEngine(plan, precision=shown)


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64", "x86", "i386", "i686")


def _may_saturate() -> bool:
    """Return whether INT8 products may be added in 16 bits: on x86 processors without VNNI."""
    import cv2

    return _is_x86() and not cv2.checkHardwareSupport(_OPENCV_VNNI)
