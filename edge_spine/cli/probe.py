"""Try optional packages in a separate process, so that a crash ends only that process.

The process runs this file: it reads one question as JSON from stdin and writes the answer as JSON to stdout.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_PATIENCE_S = 300.0


class Crashed(Exception):
    """The process ended without an answer; the text says how."""


def probe(question: str, *arguments: object) -> Any:
    """Return what one of `QUESTIONS` returns in a process of its own; the arguments are values of JSON.

    Raise `Crashed` where the process crashed, or did not answer in time.
    """
    # the child searches the same folders, and modules that are blocked here are blocked there
    hidden = [name for name, module in sys.modules.items() if module is None]
    asked = json.dumps([[str(Path(folder).absolute()) for folder in sys.path], hidden, question, arguments])
    try:
        ended = subprocess.run(
            [sys.executable, "-I", __file__],
            input=asked.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Crashed(f"no answer within {_PATIENCE_S:g} s") from None
    except OSError as error:
        raise Crashed(f"its process does not start ({type(error).__name__})") from None
    with suppress(ValueError):
        return json.loads(ended.stdout)
    how = f"status {ended.returncode}"
    if ended.returncode < 0:
        with suppress(ValueError):
            how = signal.Signals(-ended.returncode).name
    raise Crashed(f"it crashes its process ({how})")


def engine(name: str, model: str | None, opening: bool) -> str | None:
    """Return why an engine cannot run here, or None where it can.

    With `opening`, the model is opened in it as well, since an installed engine can fail to load.
    """
    from edge_spine.bundle import load_bundle
    from edge_spine.engines import open_engine
    from edge_spine.engines.base import EngineName
    from edge_spine.engines.select import engine_problem
    from edge_spine.errors import BundleError, EngineUnavailable

    problem = engine_problem(EngineName(name))
    if problem is None and opening:
        try:
            open_engine(load_bundle(model), name).close()
        except (EngineUnavailable, BundleError) as error:
            problem = str(error)
    return problem


def providers() -> list[str]:
    """Return the execution providers of ONNX Runtime, none where it is not installed."""
    from edge_spine.engines.quiet_import import import_onnxruntime

    try:
        return list(import_onnxruntime().get_available_providers())
    except ImportError:
        return []


def gpu() -> dict[str, str]:
    """Return name, compute capability and driver of the first GPU, or a problem."""
    from edge_spine.engines.driver import NoGpu, find_gpu

    try:
        found = find_gpu()
    except NoGpu as problem:
        return {"problem": str(problem)}
    return {"name": found.name, "compute_capability": found.compute_capability, "driver": found.driver}


def plans(model: str | None) -> tuple[str | None, dict[str, str], dict[str, bool]]:
    """Return why no plan of TensorRT may be used, or None, and of those that are ready the verdicts and CUDA graphs."""
    from edge_spine.bundle import load_bundle
    from edge_spine.engines.forms import FP16, INT8_TENSORRT
    from edge_spine.engines.tensorrt.engine import kept_verdict
    from edge_spine.engines.tensorrt.verdict import in_words
    from edge_spine.errors import BundleError, EngineUnavailable

    try:
        bundle = load_bundle(model)
        kept = {form: kept_verdict(bundle, form) for form in (INT8_TENSORRT, FP16)}
    except (EngineUnavailable, BundleError) as error:
        return str(error), {}, {}
    words = {form: in_words(verdict) if verdict else "not built" for form, verdict in kept.items()}
    if all(verdict is not None and not verdict["passed"] for verdict in kept.values()):
        return f"tensorrt: the plan for {INT8_TENSORRT} {words[INT8_TENSORRT]}", words, {}
    return None, words, {form: verdict["cuda_graph"] for form, verdict in kept.items() if verdict}


def time_scans(engine: str, model: str, threads: int | None, runs: int) -> dict[str, Any]:
    """Time an engine; see `edge_spine.cli.measuring.time_scans`."""
    from edge_spine.cli import measuring

    return measuring.time_scans(engine, model, threads, runs)


QUESTIONS = {asked.__name__: asked for asked in (engine, providers, gpu, plans, time_scans)}


def main() -> None:
    """Read one question from stdin and write its answer to stdout, both as JSON."""
    # stdout carries the answer alone, not what libraries print
    answers, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    folders, hidden, question, arguments = json.load(sys.stdin)
    sys.path[:] = folders
    sys.modules.update(dict.fromkeys(hidden))
    answer = json.dumps(QUESTIONS[question](*arguments))
    with os.fdopen(answers, "w", encoding="utf-8") as stream:
        stream.write(answer)
    # some libraries crash while the interpreter shuts down
    os._exit(0)


if __name__ == "__main__":
    main()
