"""Run a network in TensorRT on an NVIDIA GPU, from a plan that was built on this machine."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import re
import weakref
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.bundle.load import Bundle
from edge_spine.engines.base import Engine, EngineName, losing
from edge_spine.engines.driver import Gpu, require_cuda, require_gpu
from edge_spine.engines.forms import INT8_TENSORRT, form_graph
from edge_spine.engines.tensorrt.build import (
    PlanRefused,
    build_plan,
    import_tensorrt,
    make_logger,
    options_text,
    terminal_progress,
)
from edge_spine.engines.tensorrt.cuda import CudaSession, import_pycuda
from edge_spine.engines.tensorrt.plan_cache import PlanCache
from edge_spine.engines.tensorrt.verdict import SCHEMA, in_words, judge
from edge_spine.errors import EngineUnavailable
from edge_spine.network import INPUT_NAME, INPUT_SHAPE, OUTPUT_NAME, OUTPUT_SHAPE

NAME = EngineName.TENSORRT.value
# distributions that are built for a major version of CUDA
_PACKAGES = ("tensorrt-cu{}", "tensorrt-cu{}-bindings", "tensorrt-rtx-cu{}")
_log = logging.getLogger(__name__)


def require_tensorrt() -> None:
    """Raise EngineUnavailable where TensorRT cannot run here."""
    _module_and_gpu()
    import_pycuda()
    PlanCache()


def _module_and_gpu() -> tuple[Any, Gpu]:
    # a driver that is missing or too old may end the process when TensorRT is imported
    gpu = require_gpu(NAME)
    built_for = [major for major in (12, 13) if any(_installed(name.format(major)) for name in _PACKAGES)]
    if built_for:
        least = built_for[0]
        instead = "pip install '.[tensorrt-cu12]' in its place" if least == 13 else "use onnx-cpu"
        require_cuda(NAME, gpu, f"TensorRT for CUDA {least}", least, instead)
    return import_tensorrt(), gpu


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def ready_plan(bundle: Bundle, form: str = INT8_TENSORRT, *, fresh: bool = False) -> bytes:
    """Return the plan of a bundle's form for this machine, from the cache or built now, if it passed its check.

    Parameters
    ----------
    bundle : Bundle
        With the graph that the plan is built from.
    form : str
        "int8-trt", "fp16" or "fp32".
    fresh : bool
        Build a new plan and check it in any case.

    Raises
    ------
    EngineUnavailable
        There is no usable GPU, a package is missing, the build fails, or the plan did not pass: see `verdict.judge`.
    BundleError
        See `edge_spine.engines.forms.form_graph` and `build_plan`.
    """
    return judged_plan(bundle, form, fresh=fresh)[0]


def judged_plan(bundle: Bundle, form: str = INT8_TENSORRT, *, fresh: bool = False) -> tuple[bytes, dict[str, Any]]:
    """Return a plan from `ready_plan`, and the result of its check against the references."""
    trt, gpu = _module_and_gpu()
    cache = PlanCache()
    model = form_graph(bundle, form)
    name, identity = plan_name(bundle, form, gpu), plan_identity(trt, model, form, gpu)

    def build() -> bytes:
        timings = f"timing-{re.sub(r'[^A-Za-z0-9.-]+', '-', identity['tensorrt'])}-sm{gpu.compute_capability}.cache"
        timing = cache.private_bytes(timings)
        plan, timing = build_plan(trt, model, form, timing_cache=timing, progress=terminal_progress)
        terminal_progress("")
        if timing:
            cache.keep_private(timings, timing)
        return plan

    plan = cache.load_or_build(name, identity, build, fresh=fresh)
    verdict = None if fresh else _known(cache.verdict(name, plan))
    if verdict is None:
        _log.info("tensorrt: checking the plan %s", name)
        engine = TensorRTEngine(plan, precision=form.removesuffix("-trt"))
        with engine:
            verdict = judge(bundle, form, model, engine, engine.layers())
        cache.keep_verdict(name, plan, verdict)
    if not verdict["passed"]:
        raise PlanRefused(f"{NAME}: the plan for {form} {in_words(verdict)}; edge-spine build --force makes a new one")
    return plan, verdict


def kept_verdict(bundle: Bundle, form: str) -> dict[str, Any] | None:
    """Return the verdict on the plan that is ready for this machine, without building; None where there is none.

    Raises
    ------
    EngineUnavailable
        As for `ready_plan`.
    """
    trt, gpu = _module_and_gpu()
    cache = PlanCache()
    name = plan_name(bundle, form, gpu)
    plan, _ = cache.load(name, plan_identity(trt, form_graph(bundle, form), form, gpu))
    return None if plan is None else _known(cache.verdict(name, plan))


def _known(verdict: dict[str, Any] | None) -> dict[str, Any] | None:
    return verdict if verdict is not None and verdict.get("schema") == SCHEMA else None


def plan_name(bundle: Bundle, form: str, gpu: Gpu) -> str:
    """Return the file name of a plan: model, form and kind of GPU."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", f"{bundle.name}-{bundle.sha256[:12]}-{form}-{gpu.name}")[:120]


def plan_identity(trt: Any, model: bytes, form: str, gpu: Gpu) -> dict[str, str]:
    """Return everything that a plan depends on, as text."""
    return {
        "tensorrt": f"{trt.__name__} {trt.__version__}",
        "gpu": gpu.name,
        "compute capability": gpu.compute_capability,
        "driver": gpu.driver,
        "system": f"{platform.system()} {platform.machine()}",
        "graph": hashlib.sha256(model).hexdigest(),
        "options": options_text(trt, form),
    }


class TensorRTEngine(Engine):
    """Run a plan with fixed buffers, one stream and a recorded CUDA graph.

    Attributes
    ----------
    graph : bool
        Whether the network is replayed from a recording, which takes less of the processor's time.

    Parameters
    ----------
    plan : bytes
        From `ready_plan`. Plans can run any code: never load one of unknown origin.
    precision : str
        What the engine reports as its precision.

    Raises
    ------
    EngineUnavailable
        There is no usable GPU, a package is missing, or TensorRT cannot load the plan.
    """

    name = NAME

    def __init__(self, plan: bytes, *, precision: str = "int8") -> None:
        self.precision = precision
        self._trt = trt = _module_and_gpu()[0]
        self._session = CudaSession({INPUT_NAME: INPUT_SHAPE}, {OUTPUT_NAME: OUTPUT_SHAPE})
        self._parts: list[Any] = []
        # runs once: at close, garbage collection or the end of the process
        self._finalizer = weakref.finalize(self, _shut_down, self._session, self._parts)
        try:
            with self._session.current():
                self._load(trt, plan)
            # the network must have run once before it can be recorded
            self._session.run(self._enqueue)
            self.graph = self._session.record(self._enqueue)
        except BaseException:
            self.close()
            raise

    def _load(self, trt: Any, plan: bytes) -> None:
        # local names would keep the objects alive in a traceback, after their context
        parts = self._parts
        parts.append(make_logger(trt))
        parts.append(trt.Runtime(parts[-1]))
        parts.append(parts[-1].deserialize_cuda_engine(plan))
        if parts[-1] is None:
            raise EngineUnavailable(f"{NAME}: the plan cannot be loaded; edge-spine build --force makes a new one")
        for tensor in (INPUT_NAME, OUTPUT_NAME):
            if parts[-1].get_tensor_dtype(tensor) != trt.DataType.FLOAT:
                raise EngineUnavailable(f"{NAME}: the plan's tensor {tensor!r} is not float32")
        parts.append(parts[-1].create_execution_context())
        if parts[-1] is None:
            raise EngineUnavailable(f"{NAME}: the GPU has not enough free memory for this network")
        for tensor in (INPUT_NAME, OUTPUT_NAME):
            parts[-1].set_tensor_address(tensor, self._session.address(tensor))

    def layers(self) -> list[Any]:
        """Return what TensorRT's inspector tells of each layer; empty where it tells nothing."""
        with self._session.current():
            return _inspected(self._trt, self._parts[-2])

    def _enqueue(self, stream: int) -> bool:
        return bool(self._parts[-1].execute_async_v3(stream))

    def _infer_one(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        with losing(NAME), self._session.current():
            self._session.host[INPUT_NAME][...] = image
            self._session.run(self._enqueue)
            curves: NDArray[np.float32] = self._session.host[OUTPUT_NAME].copy()
            return curves

    def close(self) -> None:
        """Release the plan, its buffers and the context."""
        self._finalizer()


def _inspected(trt: Any, engine: Any) -> list[Any]:
    try:
        text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
        # names of layers may hold control characters
        return list(json.loads(text, strict=False)["Layers"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        _log.debug("tensorrt: its inspector tells nothing that can be read (%s)", type(error).__name__)
        return []


def _shut_down(session: CudaSession, parts: list[Any]) -> None:
    # other threads find the session open or closed, never without its plan
    with session.lock:
        with session.current():
            # an execution context before its engine, that before its runtime
            while parts:
                parts.pop()
        session.close()
