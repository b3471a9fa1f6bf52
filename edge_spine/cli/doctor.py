"""The verb ``doctor``: report installed packages, usable engines and the state of the model."""

from __future__ import annotations

import argparse
import platform
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from edge_spine.bundle import load_bundle
from edge_spine.cli.common import DONE, PARTLY, Verbs, complain, tell
from edge_spine.cli.probe import Crashed, probe
from edge_spine.engines import ENGINES
from edge_spine.engines.select import AUTO_ORDER
from edge_spine.errors import BundleError, EngineUnavailable
from edge_spine.version import __version__

_ENGINES = tuple(name for name in ENGINES if name != "auto")
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
# Extras for every machine; the others are for a GPU or for development.
_EXTRAS = ("cpu", "openvino", "codecs", "dicom", "report", "node", "batch", "ray", "dask")


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
    tell(arguments, findings, as_text(findings))
    if findings["bundle"]["problem"]:
        complain(findings["bundle"]["problem"])
    return DONE if findings["usable"] else PARTLY


def examine(model: str | Path | None = None) -> dict[str, Any]:
    """Examine this installation; `model` is as in `edge_spine.bundle.load.load_bundle`.

    Returns plain values for JSON. ``packages`` are names to versions or None, ``engines`` names to why they cannot run
    or None, and ``plans`` has the ``verdicts``, form to what its check found, and ``graph``, form to whether a CUDA
    graph is replayed; ``gpu`` and ``plans`` can be a ``problem`` instead.
    """
    bundle, problem = None, None
    try:
        bundle = load_bundle(model)
    except BundleError as error:
        problem = str(error)
    place, opening = None if model is None else str(model), bundle is not None
    with ThreadPoolExecutor() as pool:
        # An installed engine can fail to load, so each is opened, except TensorRT, whose build takes minutes.
        asked = {name: pool.submit(probe, "engine", name, place, opening and name != "tensorrt") for name in _ENGINES}
        providers, gpu = pool.submit(probe, "providers"), pool.submit(probe, "gpu")
    problems: dict[str, str | None] = {}
    crashed, verdicts, graph = set(), {}, {}
    for name, answer in asked.items():
        try:
            problems[name] = answer.result()
            if name == "tensorrt" and problems[name] is None and opening:
                problems[name], verdicts, graph = probe("plans", place)
        except Crashed as how:
            problems[name] = f"{name}: {how}"
            crashed.add(name)
    # `auto` cannot go on to the next engine after one that crashes the process
    tried = next((name for name in AUTO_ORDER if problems[name] is None or name in crashed), None)
    auto = tried.value if opening and tried is not None and tried not in crashed else None
    return {
        "edge_spine": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(*distributions) for name, distributions in _PACKAGES.items()},
        "missing_extras": missing_extras(),
        "conflict": _conflict(),
        "onnxruntime_providers": _answer(providers, lambda _: []),
        "gpu": _answer(gpu, lambda how: {"problem": f"the NVIDIA driver: {how}"}),
        "plans": {**_plans(), "verdicts": verdicts, "graph": graph},
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
    rows = [("edge-spine", findings["edge_spine"]), ("python", f"{findings['python']} on {findings['platform']}")]
    rows += [(name, version or "not installed") for name, version in findings["packages"].items()]
    extras = ",".join(findings["missing_extras"])
    rows.append(("extras", f"missing; add them all with: pip install '.[{extras}]'" if extras else "all installed"))
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
    bundle = findings["bundle"]
    running = [name for name, why in findings["engines"].items() if why is None and not bundle["problem"]]
    nothing = f"would crash with its first choice; use --engine {running[0]}" if running else "finds no usable engine"
    rows.append(("engine auto", f"uses {findings['auto']}" if findings["auto"] else nothing))
    whole = f"{bundle['name']} {bundle['version']}, {len(bundle['files'])} files, all hashes match"
    rows.append(("model", bundle["problem"] or whole))
    rows += [("", f"{name} {digest}") for name, digest in bundle["files"].items()]
    rows.append(("verdict", "ready" if findings["usable"] else "NOT READY"))
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:{width}}{value}" for name, value in rows)


def missing_extras() -> list[str]:
    """Return those extras of general use that lack at least one installed package."""
    try:
        requirements = "\n".join(metadata.requires("edge-spine") or ())
    except metadata.PackageNotFoundError:  # run from a folder, without being installed
        return []
    # A requirement with a second condition, such as a version of Python, is not needed everywhere, and is left out.
    pairs = re.findall(r"""^([\w.-]+)[^;\n]*; extra == ["']([\w-]+)["']$""", requirements, re.MULTILINE)
    missing = {extra for package, extra in pairs if _version(package) is None}
    if _version("onnxruntime-gpu"):  # the package of `cpu` would overwrite it
        missing.discard("cpu")
    return [extra for extra in _EXTRAS if extra in missing]


def _answer(asked: Future[Any], crashed: Callable[[Crashed], Any]) -> Any:
    try:
        return asked.result()
    except Crashed as how:
        return crashed(how)


def _conflict() -> str | None:
    """Return a message if both packages of ONNX Runtime are installed; the later one overwrites the other."""
    installed = [name for name in _ONNX_RUNTIMES if _version(name)]
    if len(installed) < 2:
        return None
    names = " and ".join(installed)
    return f"{names} are both installed and overwrite each other; uninstall both, then install the one you want"


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
        with suppress(metadata.PackageNotFoundError):
            found.append(metadata.version(name) + ("" if name == distributions[0] else f" ({name})"))
    return ", ".join(found) or None
