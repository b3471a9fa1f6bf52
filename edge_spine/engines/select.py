"""Choose the inference engine. What was asked for by name is never replaced in silence."""

from __future__ import annotations

import logging

from edge_spine.bundle import Bundle
from edge_spine.engines.base import Engine
from edge_spine.errors import EngineUnavailable, UsageError

ENGINES = ("auto", "onnx-cpu", "onnx-cuda", "tensorrt")
_AUTO_ORDER = ("onnx-cuda", "onnx-cpu")
_log = logging.getLogger(__name__)


def open_engine(bundle: Bundle, engine: str = "auto", *, threads: int | None = None) -> Engine:
    """Load a bundle's network into an engine.

    Parameters
    ----------
    bundle : Bundle
        From `load_bundle`; the network is read through it, so its hash is checked again.
    engine : str
        One of `ENGINES`. "auto" takes the best that runs here: a GPU through ONNX Runtime, else
        the processor. Any other is taken or refused.
    threads : int, optional
        Threads inside an operator on the processor.

    Returns
    -------
    Engine
        Close it, or use it as a context manager.

    Raises
    ------
    EngineUnavailable
        The engine cannot run here; the message says what is missing.
    BundleError
        The network is damaged.
    UsageError
        There is no engine of this name.
    """
    if engine not in ENGINES:
        raise UsageError(f"engine {engine!r} is none of {', '.join(ENGINES)}")
    if engine != "auto":
        return _open(bundle, engine, threads)
    problems = engine_problems()
    for name in _AUTO_ORDER:
        if problems[name] is None:
            try:
                return _open(bundle, name, threads)
            except EngineUnavailable as error:
                _log.warning("%s", error)
    raise EngineUnavailable(f"no engine can run here; {problems['onnx-cpu']}")


def engine_problems() -> dict[str, str | None]:
    """Return for each engine except "auto" why it cannot run here, or None where it can."""
    from edge_spine.engines.onnx import PROVIDERS, provider_problem

    problems = {name: provider_problem(name) for name in PROVIDERS}
    return {**problems, "tensorrt": _NO_TENSORRT}


_NO_TENSORRT = "tensorrt: this version of edge-spine has no TensorRT engine yet; use auto, onnx-cuda or onnx-cpu"


def _open(bundle: Bundle, name: str, threads: int | None) -> Engine:
    if name == "tensorrt":
        raise EngineUnavailable(_NO_TENSORRT)
    from edge_spine.engines.onnx import OnnxEngine

    file = bundle.file_with_role("engine")
    return OnnxEngine(bundle.read(file), provider=name, precision=bundle.precision(file), threads=threads)
