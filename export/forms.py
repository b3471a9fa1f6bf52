"""Derive the other forms of a network, and compare each with PyTorch float32.

TensorRT's INT8 form is derived from the INT8 file. If it misses its tolerance, the layers with the largest error are
kept in higher precision, one after another, until it passes with margin (`choose_exact`);
`python -m export.studies.sensitivity` prints the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.engines.forms import FP16, FP32, INT8_TENSORRT, widened
from edge_spine.engines.onnx import OnnxEngine
from edge_spine.engines.tensorrt.symmetric import quantised_readers, symmetric_graph
from edge_spine.engines.verification import Verification, compare, outputs_of
from export.gate import check

# A form passes with margin below this fraction of its tolerance.
ROOM = 0.85
MOST_EXACT = 12
# crops on which readers are ranked; whether the form passes is judged on all
RANKED_ON = 6

Crops = NDArray[np.uint8]
Outputs = NDArray[np.float32]


def answers(model: bytes, crops: Crops) -> Outputs:
    """Run a graph in ONNX Runtime without graph optimisation, to compute the output of TensorRT's form.

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
    with OnnxEngine(model, as_written=True) as engine:
        return outputs_of(engine, crops)


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
        Compares outputs for the first crops with their reference outputs.
    said : callable
        Called with a line of text for each reader.

    Returns
    -------
    list of (name, Verification)
        Largest improvement first.
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
    """Choose the readers to keep in higher precision so that TensorRT's INT8 form passes with margin.

    Returns
    -------
    exact : list of str
        The fewest readers with the largest improvement; empty if the form passes unchanged.
    verification : Verification
        Verification of the form with these readers.

    Raises
    ------
    GateError
        `MOST_EXACT` readers are not enough.
    """
    exact: list[str] = []
    found = judge(answers(symmetric_graph(model), crops))
    if found.strain > ROOM:
        for name, _ in sensitivity(model, crops[:RANKED_ON], judge, said)[:MOST_EXACT]:
            exact.append(name)
            found = judge(answers(symmetric_graph(model, exact), crops))
            if found.strain <= ROOM:
                break
    check(found)
    return sorted(exact), found


def gated_forms(
    model: bytes, half: bytes | None, crops: Crops, expected: Outputs, model_pixel_mm: float
) -> tuple[dict[str, dict[str, Any]], list[Verification]]:
    """Derive and verify each form except the INT8 file, see `export.gate.pass_gate`.

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
        For the manifest: origin of each form, and its agreement with PyTorch float32.
    verifications : list of Verification

    Raises
    ------
    GateError
        A form misses its tolerance.
    """

    def judge(precision: str) -> Callable[[Outputs], Verification]:
        return lambda found: compare(
            found, expected[: len(found)], engine="onnx graph", precision=precision, model_pixel_mm=model_pixel_mm
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
    """Return the verifications as a table, one line per form."""
    names = ("mean", "p99", "largest", "row", "scan")
    head = f"{'form':10}" + "".join(f"{name + ' mm':>11}" for name in names)
    lines = [f"{head}{'Cobb deg':>10}{'3D mm':>9}{'IoU':>9}  accepted"]
    for found in verifications:
        whole, shape = found.deviations[-1], found.shape
        figures = (whole.mean_mm, whole.p99_mm, whole.max_mm, whole.row_mm, whole.scan_mm)
        line = f"{found.precision:10}" + "".join(f"{figure:11.4f}" for figure in figures)
        line += f"{shape.cobb_deg:10.4f}{shape.deviation3d_mm:9.4f}{shape.iou3d:9.4f}" if shape else f"{'':28}"
        lines.append(f"{line}  {found.tolerance}: {'passed' if found.passed else 'MISSED'}")
    return "\n".join(lines)
