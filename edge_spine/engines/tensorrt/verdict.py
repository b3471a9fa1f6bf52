"""Judge a plan: whether it computes the graph that it was built from, in the precision of its name.

All references of the bundle run through the plan. Its answers are compared with those of PyTorch float32 and, with
narrower limits, with those of ONNX Runtime for the very graph that the plan was built from.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.bundle.load import Bundle
from edge_spine.engines.base import Engine
from edge_spine.engines.driver import driver_state
from edge_spine.engines.forms import INT8_TENSORRT
from edge_spine.engines.onnx import OnnxEngine
from edge_spine.engines.verification import Tolerance, Verification, compare, crop_tensor, outputs_of, read_references
from edge_spine.errors import EngineUnavailable

SCHEMA = "edge-spine/verdict/2"
GRAPH = "ONNX Runtime on the same graph"
# Sums of convolutions that differ by 1e-6, and are then rounded to another INT8 number, change the output by up to
# 0.073 mm on average, 0.98 mm at most, 0.14 mm in a row and 0.20 mm in a scan (spine 0.7.0, in ONNX Runtime).
INTEGER_AGREEMENT = Tolerance(mean_mm=0.12, max_mm=1.2, row_mm=0.2, scan_mm=0.3)
FLOAT_AGREEMENT = Tolerance(mean_mm=0.03, max_mm=0.3, row_mm=0.06, scan_mm=0.06)
# Share of the graph's deviation from float32 that a plan repeats: 0.86 to 0.99 in INT8, 0.06 at most in float16.
LEAST_SHARE, MOST_SHARE = 0.7, 1.3
# Of the convolutions that the inspector lists, this part must read INT8; with fewer convolutions it tells nothing.
LEAST_INTEGER, LEAST_LISTED = 0.5, 10


def judge(bundle: Bundle, form: str, model: bytes, engine: Engine, layers: list[Any]) -> dict[str, Any]:
    """Compare the answers of `engine`, which runs a new plan, to all references; return the verdict on the plan.

    `model` is the graph that the plan was built from, `layers` what TensorRT's inspector tells of them, if anything.

    Returns
    -------
    dict
        Plain values for JSON: ``schema``, ``passed``, ``problems`` (lines), ``pytorch`` and ``graph`` (see
        `Verification.to_dict`), ``block`` (number of images that the plan computes together) and ``in_blocks`` (as
        ``graph``, for them; None where it is 1), ``quantisation_share`` (None for float forms), ``integer_layers`` (how
        many of how many convolutions read INT8, or None), ``tactics`` (SHA-256 of layers and tactics, or None),
        ``cuda_graph`` (whether the network is replayed from a recording), ``driver`` and ``power``.

    Raises
    ------
    EngineUnavailable
        ONNX Runtime is not installed.
    """
    crops, expected = read_references(bundle)
    try:
        reference = OnnxEngine(model, precision=form, as_written=True)
    except EngineUnavailable as error:
        raise EngineUnavailable(f"tensorrt: a new plan is compared with ONNX Runtime: {error}") from None
    with reference:
        written = outputs_of(reference, crops)
    found = outputs_of(engine, crops)
    about: dict[str, Any] = {"engine": engine.name, "precision": form, "model_pixel_mm": bundle.nominal_model_pixel_mm}
    integer = form == INT8_TENSORRT
    as_graph = about | {"reference": GRAPH, "tolerance": INTEGER_AGREEMENT if integer else FLOAT_AGREEMENT}
    pytorch, graph = compare(found, expected, **about), compare(found, written, **as_graph)
    share = quantisation_share(found, written, expected) if integer else None
    listed = integer_layers(layers) if integer else None
    problems = [_strayed(result) for result in (pytorch, graph) if not result.passed]
    in_blocks = None
    if engine.block > 1:
        in_blocks = compare(_in_blocks(engine, crops), written, **as_graph)
        if not in_blocks.passed:
            problems.append(f"in blocks of {engine.block} {_strayed(in_blocks)}")
    if listed is not None:
        if listed[0] < LEAST_INTEGER * listed[1]:
            problems.append(f"only {listed[0]} of {listed[1]} convolutions read INT8")
    elif share is not None and not LEAST_SHARE <= share <= MOST_SHARE:
        problems.append(f"it repeats {share:.2f} of the INT8 graph's rounding, {LEAST_SHARE} to {MOST_SHARE} expected")
    return {
        "schema": SCHEMA,
        "passed": not problems,
        "problems": problems,
        "pytorch": pytorch.to_dict(),
        "graph": graph.to_dict(),
        "block": engine.block,
        "in_blocks": None if in_blocks is None else in_blocks.to_dict(),
        "quantisation_share": None if share is None else round(share, 4),
        "integer_layers": listed,
        "tactics": tactics_hash(layers),
        "cuda_graph": engine.graph,
        **driver_state(),
    }


def _in_blocks(engine: Engine, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run crops through the engine in whole blocks only."""
    places = np.arange(-(-len(crops) // engine.block) * engine.block) % len(crops)
    return engine.infer(np.concatenate([crop_tensor(crops[place]) for place in places]))[: len(crops)]


def quantisation_share(
    found: NDArray[np.float32], written: NDArray[np.float32], expected: NDArray[np.float32]
) -> float:
    """Return the share of a graph's deviation from float32 that answers repeat; each array is (K, 1254).

    About 1 where the graph is computed as it is written, about 0 where it is computed in float.
    """
    deviation = (written.astype(np.float64) - expected).ravel()
    own = (found.astype(np.float64) - expected).ravel()
    size = float(deviation @ deviation)
    return float(own @ deviation) / size if size > 0 else 1.0


def integer_layers(layers: list[Any]) -> tuple[int, int] | None:
    """Return how many of how many convolutions read INT8, or None where the layers do not tell.

    A layer names the type of its first input under "Format/Datatype" up to TensorRT 10, and under "Datatype" or
    "DataType" from 11 on; where it names none, the tactic's name tells ("i8i8").
    """
    told = [_reads_integers(layer) for layer in layers if isinstance(layer, dict) and _convolves(layer)]
    known = [reads for reads in told if reads is not None]
    return (sum(known), len(known)) if len(known) >= LEAST_LISTED else None


def _convolves(layer: dict[str, Any]) -> bool:
    kind = f"{layer.get('LayerType')} {layer.get('ParameterType')}".lower()
    return "conv" in kind or "fprop" in str(layer.get("TacticName"))


def _reads_integers(layer: dict[str, Any]) -> bool | None:
    tensor = next(iter(layer.get("Inputs") or ()), None)
    kinds = [str(value).lower() for key, value in (tensor or {}).items() if "type" in key.lower()]
    if kinds:
        return any("int8" in kind for kind in kinds)
    tactic = layer.get("TacticName")
    return "i8i8" in tactic if isinstance(tactic, str) and "_" in tactic else None


def tactics_hash(layers: list[Any]) -> str | None:
    """Return the SHA-256 of layers and their tactics, or None where nothing is told."""
    if not layers:
        return None
    chosen = [
        [layer.get("Name"), layer.get("TacticName"), layer.get("TacticValue")] if isinstance(layer, dict) else layer
        for layer in layers
    ]
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode("utf-8")).hexdigest()


def in_words(verdict: dict[str, Any]) -> str:
    """Return a verdict in one line."""
    if not verdict["passed"]:
        return f"did not pass: {'; '.join(verdict['problems'])}"
    share, layers = verdict["quantisation_share"], verdict["integer_layers"]
    words = ["passed"]
    if verdict["block"] > 1:
        words.append(f"single scans and blocks of {verdict['block']}")
    if share is not None:
        words.append(f"repeats {share:.2f} of the INT8 graph's rounding")
    if layers is not None:
        words.append(f"{layers[0]} of {layers[1]} convolutions read INT8")
    words.append("with a CUDA graph" if verdict["cuda_graph"] else "without a CUDA graph")
    words.append(f"tactics {(verdict['tactics'] or 'unknown')[:12]}")
    return ", ".join([*words, f"driver {verdict['driver']}", f"power {verdict['power']}"])


def _strayed(result: Verification) -> str:
    whole = result.deviations[-1]
    return (
        f"it differs from {result.reference} by {whole.mean_mm:.3f} mm in the mean, {whole.max_mm:.3f} mm at most, "
        f"{whole.row_mm:.3f} mm in the worst row and {whole.scan_mm:.3f} mm in the worst scan ({result.tolerance} "
        "accepted)"
    )
