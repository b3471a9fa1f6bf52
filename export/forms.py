"""Every form of a network beside its INT8 file: made, compared with PyTorch float32, and gated.

TensorRT's INT8 form follows from the INT8 file. Where it misses its tolerance, the pairs that cost most are left out,
one after another, until it passes with room to spare: `choose_exact`; `python -m export.studies.sensitivity` prints
the table.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from edge_spine.engines.forms import FP16, FP32, INT8_TENSORRT, widened
from edge_spine.engines.tensorrt.symmetric import quantised_readers, symmetric_graph
from edge_spine.engines.verification import Verification, compare, crop_tensor
from edge_spine.network import INPUT_NAME, OUTPUT_NAME
from export.gate import check

# a form is good enough when it needs no more than this share of its tolerance
ROOM = 0.85
MOST_EXACT = 12
_ERRORS_ONLY = 3

Crops = NDArray[np.uint8]
Outputs = NDArray[np.float32]


def half_graph(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float32 graph with weights and arithmetic in float16, its two ends still in float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    copied = onnx.ModelProto()
    copied.CopyFrom(graph)
    with warnings.catch_warnings():
        # it warns of every weight below float16's smallest number, which becomes that number
        warnings.simplefilter("ignore")
        half = convert_float_to_float16(copied, keep_io_types=True)
    # the casts at the two ends were appended behind everything
    OnnxModel(half).topological_sort()
    onnx.checker.check_model(half)
    return half


def answers(model: bytes, crops: Crops) -> Outputs:
    """Run a graph in ONNX Runtime as it is written, without any rewriting of it: what TensorRT's form computes.

    Parameters
    ----------
    model : bytes
        ONNX file.
    crops : ndarray
        uint8 (K, 224, 224).

    Returns
    -------
    ndarray
        float32 (K, 1254).
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _ERRORS_ONLY
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([OUTPUT_NAME], {INPUT_NAME: crop_tensor(crop)})[0] for crop in crops])


def sensitivity(
    model: bytes, crops: Crops, judge: Callable[[Outputs], Verification], said: Callable[[str], None] = print
) -> list[tuple[str, Verification]]:
    """Measure TensorRT's INT8 form with one reader after another left in higher precision.

    Parameters
    ----------
    model : bytes
        The INT8 file.
    crops : ndarray
        uint8 (K, 224, 224).
    judge : callable
        Compares outputs for `crops` with the reference.
    said : callable
        Takes a line of text for each reader.

    Returns
    -------
    list of (name, Verification)
        What helps most comes first.
    """
    rows = []
    for name in quantised_readers(symmetric_graph(model)):
        rows.append((name, judge(answers(symmetric_graph(model, [name]), crops))))
        whole = rows[-1][1].deviations[-1]
        said(f"{name}: mean {whole.mean_mm:.3f} mm, p99 {whole.p99_mm:.3f} mm")
    return sorted(rows, key=lambda row: row[1].strain)


def choose_exact(
    model: bytes, crops: Crops, judge: Callable[[Outputs], Verification], said: Callable[[str], None] = print
) -> tuple[list[str], Verification]:
    """Find the readers that must not be quantised for TensorRT's INT8 form to pass with room to spare.

    Returns
    -------
    exact : list of str
        None where the form passes as it is; else those that help most, as few as are needed.
    verification : Verification
        Of the form with them.

    Raises
    ------
    GateError
        Not even `MOST_EXACT` of them are enough.
    """
    exact: list[str] = []
    found = judge(answers(symmetric_graph(model), crops))
    if found.strain > ROOM:
        for name, _ in sensitivity(model, crops, judge, said)[:MOST_EXACT]:
            exact.append(name)
            found = judge(answers(symmetric_graph(model, exact), crops))
            if found.strain <= ROOM:
                break
    check(found)
    return sorted(exact), found


def gated_forms(
    model: bytes, half: bytes | None, crops: Crops, expected: Outputs, model_pixel_mm: float
) -> tuple[dict[str, dict[str, Any]], list[Verification]]:
    """Derive and gate every form but the INT8 file itself, which `export.gate.pass_gate` judges.

    Parameters
    ----------
    model : bytes
        The INT8 file.
    half : bytes, optional
        The float16 file.
    crops, expected : ndarray
        uint8 (K, 224, 224) and float32 (K, 1254), the references.
    model_pixel_mm : float
        Nominal size of a crop pixel.

    Returns
    -------
    forms : dict
        For the manifest: where each form comes from, and its agreement with PyTorch float32.
    verifications : list of Verification

    Raises
    ------
    GateError
        A form misses its tolerance.
    """

    def judge(precision: str) -> Callable[[Outputs], Verification]:
        return lambda found: compare(
            found, expected, engine="onnx graph", precision=precision, model_pixel_mm=model_pixel_mm
        )

    exact, verification = choose_exact(model, crops, judge(INT8_TENSORRT), lambda line: None)
    forms: dict[str, dict[str, Any]] = {INT8_TENSORRT: {"derived": True, "exact": exact}}
    verifications = [verification]
    if half is not None:
        for form, graph in ((FP16, half), (FP32, widened(half))):
            verifications.append(check(judge(form)(answers(graph, crops))))
            forms[form] = {"derived": form == FP32}
    for verification in verifications:
        forms[verification.precision]["accuracy"] = verification.to_dict()
    return forms, verifications


def summary(verifications: Sequence[Verification]) -> str:
    """Lay the gate's figures out, a line a form."""
    head = f"{'form':10}{'mean mm':>9}{'p99 mm':>9}{'Cobb deg':>10}{'3D mm':>9}{'IoU':>9}  accepted"
    lines = [head]
    for found in verifications:
        whole, shape = found.deviations[-1], found.shape
        figures = f"{found.precision:10}{whole.mean_mm:9.4f}{whole.p99_mm:9.4f}"
        figures += f"{shape.cobb_deg:10.4f}{shape.deviation3d_mm:9.4f}{shape.iou3d:9.4f}" if shape else f"{'':28}"
        lines.append(f"{figures}  {found.tolerance}: {'passed' if found.passed else 'MISSED'}")
    return "\n".join(lines)
