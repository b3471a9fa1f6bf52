"""FAKE model bundle for tests of the walk: both networks ignore the image and answer what they are told."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_spine.bundle.load import manifest_bytes

CROP_PIXEL_MM = 2.2


def fake_output(lateral_px: float = 6.0) -> NDArray[np.float32]:
    """One network output (1254,): a bent spine in the middle of the crop, crop pixels / 224."""
    t = np.linspace(0, 1, 209)
    x = 112 - lateral_px * np.sin(2 * np.pi * t)
    y = 112 + 9 * np.sin(2 * np.pi * (t - 0.08))
    y += 112 - y.mean()
    half_width, half_depth = 6 + 4 * t, 5 + 3 * t
    columns = [x - half_width, x, x + half_width, y - half_depth, y, y + half_depth]
    return (np.stack(columns, axis=1) / 224).astype(np.float32).reshape(-1)


def fake_calibration(**changes: Any) -> dict[str, Any]:
    """FAKE bands as they lie in a file: half a crop pixel coronal, one and a half sagittal, for a straight spine."""
    return {
        "schema": "edge-spine/bands/1",
        "nominal": 0.9,
        "unit": "crop pixels",
        "coronal": [0.5] * 209,
        "sagittal": [1.5] * 208 + [3],
        "severity_deg": {"coronal": 30.0, "sagittal": 60.0},
        "count": 9,
        "calibrated_on": "nothing: invented",
        "method": "none",
        "weights_sha256": "a" * 64,
        "localiser_sha256": "b" * 64,
        **changes,
    }


def fake_bundle(
    folder: Path,
    output: NDArray[np.float32] | None = None,
    refinement: bytes | None = None,
    levels: bytes | None = None,
    **more: Any,
) -> Path:
    """Write the FAKE bundle; its localiser always points at the middle of a 1920 x 640 mm scan's trunk.

    What else is given is put into the manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    answer = fake_output() if output is None else output
    contents = {
        "model.fake.onnx": _engine(answer),
        "localiser.onnx": _localiser(),
        "references.npz": _references(answer),
    }
    roles = {"model.fake.onnx": "engine", "localiser.onnx": "localiser", "references.npz": "references"}
    if refinement is not None:
        contents["refinement.npz"], roles["refinement.npz"] = refinement, "refinement"
    if levels is not None:
        contents["levels.npz"], roles["levels.npz"] = levels, "levels"
    files = {
        name: {
            "sha256": hashlib.sha256(content).hexdigest(),
            "size": len(content),
            "role": roles[name],
            "precision": "float32",
        }
        for name, content in contents.items()
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    manifest = {
        "schema": "edge-spine/bundle/1",
        "name": "FAKE",
        "version": "0",
        "architecture": "a constant",
        "preprocessing": {"nominal_model_pixel_mm": CROP_PIXEL_MM},
        "layout": {"rows": 209},
        "files": files,
        "calibration": {"method": "none"},
        "accuracy": {"none": 0},
        "training": "None: a fake for tests.",
        "licence": "none",
        **more,
    }
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
    return folder


def _engine(output: NDArray[np.float32]) -> bytes:
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "answer"], ["curves"]),
    ]
    weights = {"zero": np.zeros((), np.float32), "answer": output.reshape(1, 1254)}
    return _model(nodes, weights, ("image", (1, 3, 224, 224)), ("curves", (1, 1254)))


def _localiser() -> bytes:
    """Heat maps of 72 x 28 cells of 28 mm, with one hot cell each: crop centre, top of T1, bottom of L5."""
    heat = np.zeros((1, 3, 72, 28), np.float32)
    for index, row in enumerate((21, 13, 30)):
        heat[0, index, row, 13:15] = 30
    nodes = [
        helper.make_node("Conv", ["image", "zeros"], ["nothing"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Add", ["nothing", "heat"], ["maps"]),
    ]
    weights = {"zeros": np.zeros((3, 1, 4, 4), np.float32), "heat": heat}
    return _model(nodes, weights, ("image", (1, 1, 288, 112)), ("maps", (1, 3, 72, 28)))


def _model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, NDArray[np.float32]],
    given: tuple[str, tuple[int, ...]],
    made: tuple[str, tuple[int, ...]],
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "fake",
        [helper.make_tensor_value_info(given[0], TensorProto.FLOAT, given[1])],
        [helper.make_tensor_value_info(made[0], TensorProto.FLOAT, made[1])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model.SerializeToString()


def _references(output: NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    crops = np.zeros((2, 224, 224), np.uint8)
    np.savez(stream, inputs=crops, outputs=np.stack([output, output]).astype(np.float32))
    return stream.getvalue()
