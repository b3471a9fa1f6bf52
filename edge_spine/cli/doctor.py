"""The verb ``doctor``: report installed packages, usable engines and the state of the model."""

from __future__ import annotations

import argparse
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from edge_spine.bundle import load_bundle
from edge_spine.bundle.load import Bundle
from edge_spine.cli.common import DONE, PARTLY, Verbs, complain
from edge_spine.engines import engine_problems, open_engine
from edge_spine.engines.driver import NoGpu, find_gpu
from edge_spine.engines.forms import FP16, INT8_TENSORRT
from edge_spine.errors import BundleError, EngineUnavailable
from edge_spine.version import __version__

_ONNX_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
# Packages, and the distributions that provide them.
_PACKAGES = {
    "numpy": ("numpy",),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless"),
    "pydicom": ("pydicom",),
    "onnxruntime": _ONNX_RUNTIMES,
    "openvino": ("openvino",),
    "onnx": ("onnx",),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13"),
    "pycuda": ("pycuda",),
}


def add_to(verbs: Verbs) -> None:
    """Register the verb."""
    verbs.add(
        "doctor",
        run,
        "report installed packages, usable engines and the state of the model",
        "edge-spine doctor --json",
        verbs.model,
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the findings."""
    findings = examine(arguments.model)
    print(json.dumps(findings) if arguments.json else as_text(findings))
    if findings["bundle"]["problem"]:
        complain(findings["bundle"]["problem"])
    return DONE if findings["usable"] else PARTLY


def examine(model: str | Path | None = None) -> dict[str, Any]:
    """Examine this installation.

    Parameters
    ----------
    model : str or path, optional
        As in `edge_spine.bundle.load.load_bundle`.

    Returns
    -------
    dict
        Plain values for JSON: ``edge_spine``, ``python``, ``platform``, ``packages`` (name to "version" or
        None), ``conflict`` (packages that overwrite each other, or None), ``onnxruntime_providers``, ``gpu`` (its
        ``name``, ``compute_capability`` and the ``driver``'s CUDA version, or a ``problem``), ``plans`` (``folder``,
        ``names`` or a ``problem``, and ``verdicts``, form to what its check found), ``engines`` (name to why it cannot
        run, or None where it can), ``auto`` (the engine that is chosen, or None), ``bundle`` and ``usable``.
    """
    bundle, problem = _bundle(model)
    problems = engine_problems()
    auto: str | None = None
    verdicts: dict[str, str] = {}
    if bundle is not None:
        # An installed engine can fail to load, so each is opened, except TensorRT, whose build takes minutes.
        for name in [name for name, why in problems.items() if why is None and name != "tensorrt"]:
            problems[name], _ = _opening(bundle, name)
        if problems["tensorrt"] is None:
            problems["tensorrt"], verdicts = _judged(bundle)
        auto = "tensorrt" if problems["tensorrt"] is None else _opening(bundle, "auto")[1]
    return {
        "edge_spine": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(*distributions) for name, distributions in _PACKAGES.items()},
        "conflict": _conflict(),
        "onnxruntime_providers": _providers(),
        "gpu": _gpu(),
        "plans": {**_plans(), "verdicts": verdicts},
        "engines": problems,
        "auto": auto,
        "bundle": {
            **{key: getattr(bundle, key, None) for key in ("name", "version", "sha256")},
            "files": {name: entry["sha256"] for name, entry in bundle.manifest["files"].items()} if bundle else {},
            "problem": problem,
        },
        "usable": bundle is not None and auto is not None,
    }


def as_text(findings: dict[str, Any]) -> str:
    """Return the findings of `examine` as text."""
    rows = [
        ("edge-spine", findings["edge_spine"]),
        ("python", f"{findings['python']} on {findings['platform']}"),
    ]
    rows += [(name, version or "not installed") for name, version in findings["packages"].items()]
    if findings["onnxruntime_providers"]:
        rows.append(("providers", ", ".join(findings["onnxruntime_providers"])))
    if findings["conflict"]:
        rows.append(("conflict", findings["conflict"]))
    gpu, plans = findings["gpu"], findings["plans"]
    rows.append(("gpu", gpu.get("problem") or f"{gpu['name']}, sm {gpu['compute_capability']}, CUDA {gpu['driver']}"))
    rows.append(("plans", plans.get("problem") or f"{', '.join(plans['names']) or 'none'}, in {plans['folder']}"))
    rows += [(f"plan {form}", words) for form, words in plans["verdicts"].items()]
    for name, why in findings["engines"].items():
        rows.append((f"engine {name}", "runs" if why is None else why.removeprefix(f"{name}: ")))
    rows.append(("engine auto", f"uses {findings['auto']}" if findings["auto"] else "finds no usable engine"))
    bundle = findings["bundle"]
    whole = f"{bundle['name']} {bundle['version']}, {len(bundle['files'])} files, all hashes match"
    rows.append(("model", bundle["problem"] or whole))
    rows += [("", f"{name} {digest}") for name, digest in bundle["files"].items()]
    rows.append(("verdict", "ready" if findings["usable"] else "NOT READY"))
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:{width}}{value}" for name, value in rows)


def _bundle(model: str | Path | None) -> tuple[Bundle | None, str | None]:
    try:
        return load_bundle(model), None
    except BundleError as error:
        return None, str(error)


def _opening(bundle: Bundle, engine: str) -> tuple[str | None, str | None]:
    """Return the reason why an engine does not open, or the name of the opened one."""
    try:
        with open_engine(bundle, engine) as opened:
            return None, opened.name
    except (EngineUnavailable, BundleError) as error:
        return str(error), None


def _judged(bundle: Bundle) -> tuple[str | None, dict[str, str]]:
    """Return why no plan of TensorRT may be used, or None, and the verdicts on the plans that are ready."""
    from edge_spine.engines.tensorrt.engine import kept_verdict
    from edge_spine.engines.tensorrt.verdict import in_words

    try:
        kept = {form: kept_verdict(bundle, form) for form in (INT8_TENSORRT, FP16)}
    except (EngineUnavailable, BundleError) as error:
        return str(error), {}
    words = {form: in_words(verdict) if verdict else "not built" for form, verdict in kept.items()}
    if all(verdict is not None and not verdict["passed"] for verdict in kept.values()):
        return f"tensorrt: the plan for {INT8_TENSORRT} {words[INT8_TENSORRT]}", words
    return None, words


def _conflict() -> str | None:
    """Return a message if both packages of ONNX Runtime are installed; the later one overwrites the other."""
    installed = [name for name in _ONNX_RUNTIMES if _version(name)]
    if len(installed) < 2:
        return None
    names = " and ".join(installed)
    return f"{names} are both installed and overwrite each other; uninstall both, then install the one you want"


def _gpu() -> dict[str, str]:
    try:
        gpu = find_gpu()
    except NoGpu as problem:
        return {"problem": str(problem)}
    return {"name": gpu.name, "compute_capability": gpu.compute_capability, "driver": gpu.driver}


def _plans() -> dict[str, Any]:
    from edge_spine.engines.tensorrt.plan_cache import PlanCache, default_folder

    try:
        folder = default_folder()
        names = PlanCache(folder).plans() if folder.is_dir() else []
    except EngineUnavailable as error:
        return {"problem": str(error).removeprefix("tensorrt: ")}
    return {"folder": str(folder), "names": names}


def _version(*distributions: str) -> str | None:
    found = []
    for name in distributions:
        try:
            found.append(f"{metadata.version(name)} ({name})" if name != distributions[0] else metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found) or None


def _providers() -> list[str]:
    from edge_spine.engines.quiet_import import import_onnxruntime

    try:
        return list(import_onnxruntime().get_available_providers())
    except ImportError:
        return []
