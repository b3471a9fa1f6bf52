"""Run a network in TensorRT on an NVIDIA GPU, from a plan that was built on this machine."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import re
import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.bundle.load import Bundle
from edge_spine.engines.base import Engine, EngineName, first_line, losing
from edge_spine.engines.driver import Gpu, require_cuda, require_gpu
from edge_spine.engines.forms import INT8_TENSORRT, form_graph
from edge_spine.engines.memory import memory_short, naming_shortage, require_memory
from edge_spine.engines.tensorrt.build import (
    PlanRefused,
    build_plan,
    building_needs,
    import_tensorrt,
    make_logger,
    options_text,
    require_capability,
    terminal_progress,
)
from edge_spine.engines.tensorrt.cuda import CudaSession, free_memory, import_pycuda
from edge_spine.engines.tensorrt.plan_cache import PlanCache
from edge_spine.engines.tensorrt.verdict import SCHEMA, in_words, judge
from edge_spine.errors import BundleError, EngineUnavailable, GpuMemoryShort
from edge_spine.network import INPUT_NAME, INPUT_SHAPE, OUTPUT_NAME

NAME = EngineName.TENSORRT.value
# distributions that are built for a major version of CUDA
_PACKAGES = ("tensorrt-cu{}", "tensorrt-cu{}-bindings", "tensorrt-rtx-cu{}")
# releases of TensorRT for CUDA 12 from this one on need a driver for CUDA 12.2
_NEWER_DRIVERS = 11
# place of the plan among the parts that have to be given back in order: logger, runtime, plan, contexts
_ENGINE = 2
# images a second in blocks over those one by one from which blocks are kept
_WORTH = 1.1
_ROUNDS, _ROUND_S = 5, 0.2
_log = logging.getLogger(__name__)


def require_tensorrt() -> None:
    """Raise EngineUnavailable where TensorRT cannot run here."""
    _module_and_gpu()
    import_pycuda()
    PlanCache()


def _module_and_gpu() -> tuple[Any, Gpu]:
    # a driver that is missing or too old may end the process when TensorRT is imported
    gpu = require_gpu(NAME)
    built_for = [
        (major, version) for major in ("12", "13") for name in _PACKAGES if (version := _installed(name.format(major)))
    ]
    if built_for:
        major, version = built_for[0]
        least, instead = major, "pip install '.[tensorrt-cu12]' in its place" if major == "13" else "use onnx-cpu"
        if major == "12" and int(version.partition(".")[0]) >= _NEWER_DRIVERS:
            least, instead = "12.2", "pip install 'tensorrt-cu12<11' in its place"
        require_cuda(NAME, gpu, f"TensorRT {version} for CUDA {major}", least, instead)
    trt = import_tensorrt()
    require_capability(trt, gpu.compute_capability)
    return trt, gpu


def _installed(package: str) -> str | None:
    """Return the version of a distribution, or None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def ready_plan(
    bundle: Bundle, form: str = INT8_TENSORRT, *, fresh: bool = False, block: int | None = None
) -> tuple[bytes, dict[str, Any]]:
    """Return the plan of a bundle's form for this machine, from the cache or built now, and its verdict.

    Parameters
    ----------
    form : str
        "int8-trt", "fp16" or "fp32".
    fresh : bool
        Build a new plan and check it in any case.
    block : int, optional
        Number of images that the plan computes together, beside 1; by default what `fastest_block` found here, else 1.

    Raises
    ------
    EngineUnavailable
        There is no usable GPU, a package is missing, the build fails, or the plan did not pass: see
        `edge_spine.engines.tensorrt.verdict.judge`. GpuMemoryShort where the GPU has too little free memory for it.
    BundleError
        See `edge_spine.engines.forms.form_graph` and `build_plan`.
    """
    trt, gpu = _module_and_gpu()
    cache = PlanCache()
    if block is None:
        block = cache.block(plan_name(bundle, form, gpu))
        try:
            return ready_plan(bundle, form, fresh=fresh, block=block)
        except (PlanRefused, GpuMemoryShort) as error:
            if block == 1:
                raise
            _log.warning("%s; trying single scans", error)
            block = 1
    model = form_graph(bundle, form)
    name, identity = plan_name(bundle, form, gpu, block), plan_identity(trt, model, form, gpu, block)

    def build() -> bytes:
        # a plan that is built with too little memory lacks fast tactics, and would be kept
        free = free_memory(gpu.integrated)
        require_memory(NAME, "building the plan", building_needs(model, gpu.integrated), free)
        timings = f"timing-{re.sub(r'[^A-Za-z0-9.-]+', '-', identity['tensorrt'])}-sm{gpu.compute_capability}.cache"
        timing = cache.private_bytes(timings)
        plan, timing = build_plan(trt, model, form, block=block, timing_cache=timing, progress=terminal_progress)
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
    """Return the verdict on the cached plan, or None where no plan is ready; raise the errors of `ready_plan`."""
    trt, gpu = _module_and_gpu()
    cache = PlanCache()
    block = cache.block(plan_name(bundle, form, gpu))
    name = plan_name(bundle, form, gpu, block)
    plan, _ = cache.load(name, plan_identity(trt, form_graph(bundle, form), form, gpu, block))
    return None if plan is None else _known(cache.verdict(name, plan))


def _known(verdict: dict[str, Any] | None) -> dict[str, Any] | None:
    return verdict if verdict is not None and verdict.get("schema") == SCHEMA else None


def plan_name(bundle: Bundle, form: str, gpu: Gpu, block: int = 1) -> str:
    """Return the file name of a plan: model, form, kind of GPU and block size."""
    name = re.sub(r"[^A-Za-z0-9-]+", "-", f"{bundle.name}-{bundle.sha256[:12]}-{form}-{gpu.name}")[:120]
    return name if block == 1 else f"{name}-block{block}"


def plan_identity(trt: Any, model: bytes, form: str, gpu: Gpu, block: int = 1) -> dict[str, str]:
    """Return everything that a plan depends on, as text."""
    return {
        "tensorrt": f"{trt.__name__} {trt.__version__}",
        "gpu": gpu.name,
        "compute capability": gpu.compute_capability,
        # all modules of Orin have one name, and a power mode may switch some off
        "multiprocessors": str(gpu.multiprocessors),
        "driver": gpu.driver,
        "system": f"{platform.system()} {platform.machine()}",
        "graph": hashlib.sha256(model).hexdigest(),
        "options": options_text(trt, form),
        "block": str(block),
    }


def fastest_block(bundle: Bundle, form: str, sizes: Sequence[int], *, fresh: bool = False) -> dict[str, Any]:
    """Measure block sizes, from 2, on this machine and keep the fastest for `ready_plan`, if it is worth its memory.

    Returns
    -------
    dict
        ``block``, the size that is kept; ``single``, images a second of the plan for single images; and ``sizes``, for
        each size its ``images_per_second`` and those ``one_by_one`` from the same plan, or a ``problem``. 1 is kept
        where no size is `_WORTH` times as fast as ``single``, or single images become as much slower.

    Raises
    ------
    EngineUnavailable, BundleError
        As `ready_plan`, for the plan for single images.
    """

    def rates(block: int) -> tuple[float, float]:
        plan, _ = ready_plan(bundle, form, fresh=fresh, block=block)
        with TensorRTEngine(plan, precision=form.removesuffix("-trt")) as engine:
            return _images_per_second(engine)

    _, gpu = _module_and_gpu()
    measured: dict[str, dict[str, Any]] = {}
    single, _ = rates(1)
    kept, best = 1, _WORTH * single
    for size in sizes:
        try:
            singly, together = rates(size)
        except (PlanRefused, GpuMemoryShort, BundleError) as error:
            _log.warning("tensorrt: no blocks of %s: %s", size, error)
            measured[str(size)] = {"problem": str(error)}
            continue
        measured[str(size)] = {"images_per_second": round(together, 1), "one_by_one": round(singly, 1)}
        if together >= best and _WORTH * singly >= single:
            kept, best = size, together
    PlanCache().keep_block(plan_name(bundle, form, gpu), kept)
    return {"block": kept, "single": round(single, 1), "sizes": measured}


def _images_per_second(engine: Engine) -> tuple[float, float]:
    """Return how many images an engine computes in a second one by one, and in blocks; the median of alternate runs."""
    seconds: dict[int, list[float]] = {1: [], engine.block: []}
    for _ in range(_ROUNDS):
        for size, times in seconds.items():
            images, count = np.zeros((size, *INPUT_SHAPE[1:]), np.float32), 0
            started = time.perf_counter()
            while (passed := time.perf_counter() - started) < _ROUND_S:
                engine.infer(images)
                count += size
            times.append(passed / count)
    return 1 / statistics.median(seconds[1]), 1 / statistics.median(seconds[engine.block])


class TensorRTEngine(Engine):
    """Run a plan with fixed buffers, and a stream and a recorded CUDA graph for each of its one or two block sizes.

    Plans, from `ready_plan`, can run any code: never load one of unknown origin.

    Raises
    ------
    EngineUnavailable
        There is no usable GPU, a package is missing, or TensorRT cannot load the plan. GpuMemoryShort where the GPU has
        too little free memory for the plan and its contexts.
    """

    name = NAME

    def __init__(self, plan: bytes, *, precision: str = "int8") -> None:
        self.precision = precision
        trt, gpu = _module_and_gpu()
        self._trt, self._integrated = trt, gpu.integrated
        # one for each number of images, each with an execution context of its own
        with naming_shortage(NAME):
            # older than the finalizer below, so that the context of the process outlives it
            self._sessions = [CudaSession(1)]
        self._parts: list[Any] = []
        # runs once: at close, garbage collection or the end of the process
        self._finalizer = weakref.finalize(self, _shut_down, self._sessions, self._parts)
        try:
            with naming_shortage(NAME):
                with self._sessions[0].current():
                    self._load(trt, plan)
                for number, session in enumerate(self._sessions):
                    # the network must have run once before it can be recorded
                    session.run(self.enqueuing(number))
            recorded = [session.record(self.enqueuing(number)) for number, session in enumerate(self._sessions)]
            self.graph = all(recorded)
        except BaseException:
            self.close()
            raise

    def _require_memory(self, what: str, needed: int) -> None:
        require_memory(NAME, what, needed, free_memory(self._integrated))

    def _load(self, trt: Any, plan: bytes) -> None:
        self._require_memory("loading the plan", len(plan))
        # local names would keep the objects alive in a traceback, after their context
        parts = self._parts
        parts.append(make_logger(trt))
        parts.append(trt.Runtime(parts[-1]))
        parts.append(parts[-1].deserialize_cuda_engine(plan))
        if parts[-1] is None:
            raise EngineUnavailable(
                f"{NAME}: the plan cannot be loaded (-v says why); edge-spine build --force makes a new one"
            )
        for tensor in (INPUT_NAME, OUTPUT_NAME):
            if parts[-1].get_tensor_dtype(tensor) != trt.DataType.FLOAT:
                raise EngineUnavailable(f"{NAME}: the plan's tensor {tensor!r} is not float32")
        profiles = int(parts[_ENGINE].num_optimization_profiles)
        if profiles > 1:
            _, _, largest = parts[_ENGINE].get_tensor_profile_shape(INPUT_NAME, 1)
            self.block = int(largest[0])
            self._sessions.append(CudaSession(self.block))
        self._require_memory("running the plan", len(self._sessions) * _context_needs(parts[_ENGINE]))
        for number, session in enumerate(self._sessions):
            parts.append(parts[_ENGINE].create_execution_context())
            if parts[-1] is None:
                raise memory_short(NAME, "TensorRT finds too little of the GPU's memory to run the plan")
            if profiles > 1 and not (
                parts[-1].set_optimization_profile_async(number, session.stream.handle)
                and parts[-1].set_input_shape(INPUT_NAME, session.host[INPUT_NAME].shape)
            ):
                raise EngineUnavailable(f"{NAME}: the plan cannot be used; edge-spine build --force makes a new one")
            for tensor in (INPUT_NAME, OUTPUT_NAME):
                parts[-1].set_tensor_address(tensor, session.address(tensor))

    def layers(self) -> list[Any]:
        """Return what TensorRT's inspector tells of each layer; empty where it tells nothing."""
        with self._sessions[0].current():
            return _inspected(self._trt, self._parts[_ENGINE])

    def enqueuing(self, number: int) -> Callable[[int], bool]:
        """Return a function that enqueues the network of a session on a stream, and returns whether that succeeded."""
        return lambda stream: bool(self._parts[_ENGINE + 1 + number].execute_async_v3(stream))

    def _infer_block(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        number = int(len(images) > 1)
        session = self._sessions[number]
        with losing(NAME), session.current():
            session.host[INPUT_NAME][...] = images
            session.run(self.enqueuing(number))
            curves: NDArray[np.float32] = session.host[OUTPUT_NAME].copy()
            return curves

    def close(self) -> None:
        """Release the plan, its buffers and the context."""
        self._finalizer()


def _context_needs(engine: Any) -> int:
    """Return the bytes that each execution context takes of the GPU; 0 where the version does not tell."""
    # versions before 10 have the old name only, 11 has the new name only
    return int(getattr(engine, "device_memory_size_v2", None) or getattr(engine, "device_memory_size", None) or 0)


def _inspected(trt: Any, engine: Any) -> list[Any]:
    """Return the layers that can be read; 8.6 writes control characters into their names, which JSON does not allow."""
    layers: list[Any] = []
    try:
        inspector, form = engine.create_engine_inspector(), trt.LayerInformationFormat.JSON
        for number in range(engine.num_layers):
            text = ""
            try:
                # one by one, since a text that is no UTF-8 or no JSON costs only its layer
                text = inspector.get_layer_information(number, form).strip(", \n")
                layers.append(json.loads(text, strict=False))
            except ValueError as error:
                _log.debug("tensorrt: layer %d cannot be read (%s): %r", number, error, text)
    except (AttributeError, RuntimeError, TypeError) as error:
        _log.info("tensorrt: its inspector tells nothing (%s: %s)", type(error).__name__, first_line(error))
    else:
        _log.info("tensorrt: %d of %d layers can be inspected", len(layers), engine.num_layers)
        _log.debug("tensorrt: layers %s", json.dumps(layers))
    return layers


def _shut_down(sessions: list[CudaSession], parts: list[Any]) -> None:
    # other threads find the sessions open or closed, never without their plan
    with ExitStack() as locks:
        for session in sessions:
            locks.enter_context(session.lock)
        with sessions[0].current():
            # an execution context before its engine, that before its runtime
            while parts:
                parts.pop()
        for session in sessions:
            session.close()
