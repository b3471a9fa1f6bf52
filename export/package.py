"""Build a bundle: quantise, compare, then write the folder atomically."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from edge_spine.bundle import load_bundle
from edge_spine.bundle.load import CARD, MANIFEST, SCHEMA, Bundle, manifest_bytes
from edge_spine.engines.forms import FP16, INT8_TENSORRT, narrowed
from edge_spine.engines.tensorrt.symmetric import symmetric_graph
from edge_spine.engines.verification import Verification
from edge_spine.errors import UsageError
from edge_spine.files import beside, write_files
from edge_spine.network import (
    CANONICAL_ROWS,
    CROP_SIZE,
    CURVE_ROWS,
    INPUT_NAME,
    INPUT_SHAPE,
    OUTPUT_NAME,
    OUTPUT_SHAPE,
    ROWS,
)
from edge_spine.preprocessing.intensity import HIGHEST_PERCENTILE, LOWEST_PERCENTILE, SIGMOID_SHIFT
from export.card import file_entry, render
from export.checkpoint import Source
from export.forms import gated_forms
from export.gate import pass_gate, reference_outputs
from export.lite import Network
from export.onnx_graph import OPSET, export_graph
from export.quantize import Recipe, quantise
from export.ranges import check_ranges

_log = logging.getLogger("export")
MODEL_FILE = "model.int8.onnx"
FLOAT_FILE = "model.fp16.onnx"
LOCALISER_FILE = "localiser.onnx"
REFINEMENT_FILE = "refinement.npz"
LEVELS_FILE = "levels.npz"
REFERENCES_FILE = "references.npz"
PRECISION = "int8"
# One model pixel is the body's extent / 832; this is a person of 1.83 m.
NOMINAL_MODEL_PIXEL_MM = 2.2
PREPROCESSING = {
    "canonical_rows": CANONICAL_ROWS,
    "crop_px": CROP_SIZE,
    "channels": "three equal",
    "range": [0, 1],
    "clamp_percentiles_of_body": [LOWEST_PERCENTILE, HIGHEST_PERCENTILE],
    "sigmoid_shift": SIGMOID_SHIFT,
    "nominal_model_pixel_mm": NOMINAL_MODEL_PIXEL_MM,
}
LAYOUT = {
    "rows": ROWS,
    "first_row_px": float(CURVE_ROWS[0]),
    "columns": [
        "coronal left",
        "coronal centre",
        "coronal right",
        "sagittal anterior",
        "sagittal centre",
        "sagittal posterior",
    ],
    "unit": "crop pixels / 224",
}


@dataclass(frozen=True)
class Card:
    """Description of a model by its authors.

    Attributes
    ----------
    name, version : str
        Of the model.
    training : str
        One paragraph about the training data.
    licence : str
        Of the weights.
    evaluation : Mapping
        Figures against ground truth, with what they were measured on; may be empty.
    training_people : tuple of str
        Names of the packs of bone that training saw.
    """

    name: str
    version: str
    training: str
    licence: str
    evaluation: Mapping[str, Any]
    training_people: tuple[str, ...] = ()


def read_card(path: str | os.PathLike[str]) -> Card:
    """Read a card: an object with "name", "version", "training", "licence" and perhaps two more.

    "evaluation" and "training_people" may be left out.

    Raises
    ------
    UsageError
        A field is missing, empty or unknown.
    """
    path = Path(path)
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path.name}: {error.strerror or 'cannot be read'}") from None
    except ValueError:
        raise UsageError(f"{path.name}: not readable as JSON") from None
    texts = ("name", "version", "training", "licence")
    if not isinstance(fields, dict) or not set(texts) <= set(fields) <= {*texts, "evaluation", "training_people"}:
        raise UsageError(
            f"{path.name}: an object with {', '.join(texts)}, perhaps evaluation and training_people, is expected"
        )
    for key in texts:
        if not isinstance(fields[key], str) or not fields[key].strip():
            raise UsageError(f"{path.name}: {key!r} must be a text")
    evaluation = fields.get("evaluation", {})
    if not isinstance(evaluation, dict):
        raise UsageError(f"{path.name}: 'evaluation' must be an object")
    people = fields.get("training_people", [])
    if not isinstance(people, list) or not all(isinstance(name, str) for name in people):
        raise UsageError(f"{path.name}: 'training_people' must be a list of names")
    return Card(**{key: fields[key] for key in texts}, evaluation=evaluation, training_people=tuple(people))


def find_card(checkpoint: Path) -> Card:
    """Read the card beside a checkpoint (`NAME.card.json`), or say that nothing is known about these weights.

    Raises
    ------
    UsageError
        The card there is damaged.
    """
    path = checkpoint.with_name(f"{checkpoint.stem}.card.json")
    if path.is_file():
        return read_card(path)
    unknown = "Unknown: no card was given with these weights."
    return Card(name=checkpoint.stem, version="0", training=unknown, licence="Unknown", evaluation={})


def build_bundle(
    regressor: Network,
    folder: str | os.PathLike[str],
    *,
    card: Card,
    source: Source,
    calibration_crops: NDArray[np.uint8],
    reference_crops: NDArray[np.uint8],
    crops_from: str,
    recipe: Recipe | None = None,
    localiser: bytes | None = None,
    refinement: bytes | None = None,
    levels: bytes | None = None,
    with_float: bool = True,
) -> tuple[Bundle, list[Verification]]:
    """Quantise a network and write its bundle, without bands: `export.training.calibrate` adds those of this engine.

    Parameters
    ----------
    regressor : SpineRegressor or SpineLite
        float32 weights.
    folder : path
        The bundle. A bundle that lies there is replaced; anything else there is left and refused.
    card, source : Card, Source
        What the manifest says about the model and its weights.
    calibration_crops, reference_crops : ndarray
        uint8 (N, 224, 224) and (K, 224, 224); no crop may be in both.
    crops_from : str
        What the crops are, for the manifest.
    recipe : Recipe, optional
        How to quantise; the default recipe where it is not given.
    localiser : bytes, optional
        The localiser's ONNX file.
    refinement : bytes, optional
        Weights of the coronal refinement, see `edge_spine.refine.read_refinement`.
    levels : bytes, optional
        Weights of the network that finds the vertebrae, see `edge_spine.locate.read_level_network`.
    with_float : bool
        Whether the bundle gets a float16 file, twice the size of the INT8 one, for the forms fp16 and fp32.

    Returns
    -------
    bundle : Bundle
        The written bundle, loaded and checked.
    verifications : list of Verification
        Agreement of every form with PyTorch float32, which the manifest holds too.

    Raises
    ------
    GraphError, GateError
        The exported network or one of its forms strays too far; nothing is written.
    UsageError
        The crops or the folder cannot be used.
    """
    target = Path(folder)
    recipe = recipe or Recipe()
    _check_crops(calibration_crops, reference_crops)
    _check_target(target)
    _log.info("writing the network as ONNX")
    graph = export_graph(regressor)
    _log.info("quantising on %d crops", len(calibration_crops))
    quantised = quantise(graph, calibration_crops, recipe).SerializeToString(deterministic=True)
    half = narrowed(graph.SerializeToString()) if with_float else None
    _log.info("comparing every form with PyTorch on %d crops", len(reference_crops))
    expected = reference_outputs(regressor, reference_crops)
    verification = pass_gate(
        quantised,
        reference_crops,
        expected,
        precision=PRECISION,
        model_pixel_mm=NOMINAL_MODEL_PIXEL_MM,
    )
    forms, others = gated_forms(quantised, half, reference_crops, expected, NOMINAL_MODEL_PIXEL_MM)
    if recipe.method == "percentile":
        _log.info("checking the quantisers' ranges")
        for model in (quantised, symmetric_graph(quantised, forms[INT8_TENSORRT]["exact"])):
            check_ranges(model, reference_crops, recipe.percentile)
    _log.info("writing %s", target)
    contents: dict[str, tuple[bytes, str, str]] = {
        MODEL_FILE: (quantised, "engine", PRECISION),
        REFERENCES_FILE: (_archive(reference_crops, expected), "references", "float32"),
    }
    if half is not None:
        contents[FLOAT_FILE] = (half, "float", FP16)
    if localiser is not None:
        contents[LOCALISER_FILE] = (localiser, "localiser", "float32")
    if levels is not None:
        contents[LEVELS_FILE] = (levels, "levels", "float32")
    if refinement is not None:
        contents[REFINEMENT_FILE] = (refinement, "refinement", "float32")
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "name": card.name,
        "version": card.version,
        "architecture": regressor.architecture,
        "preprocessing": PREPROCESSING,
        "layout": LAYOUT,
        "graph": {
            "opset": OPSET,
            "input": {"name": INPUT_NAME, "shape": list(INPUT_SHAPE)},
            "output": {"name": OUTPUT_NAME, "shape": list(OUTPUT_SHAPE)},
        },
        "calibration": {**asdict(recipe), "crops": len(calibration_crops), "crops_from": crops_from},
        "accuracy": {"reference": "PyTorch float32", **verification.to_dict()},
        "forms": forms,
        "evaluation": card.evaluation,
        "training": card.training,
        "training_people": list(card.training_people),
        "licence": card.licence,
        "checkpoint": asdict(source),
        "made_with": {
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }
    contents[CARD] = (render(manifest, {}).encode("utf-8"), "card", "text")
    manifest["files"] = {name: file_entry(*content) for name, content in contents.items()}
    _write(target, {name: content for name, (content, _, _) in contents.items()}, manifest_bytes(manifest))
    return load_bundle(target), [verification, *others]


def _check_crops(calibration: NDArray[np.uint8], references: NDArray[np.uint8]) -> None:
    for name, crops in (("calibration", calibration), ("reference", references)):
        if crops.dtype != np.uint8 or crops.ndim != 3 or crops.shape[1:] != INPUT_SHAPE[2:] or not len(crops):
            raise UsageError(f"{name} crops are {crops.dtype} {crops.shape}, uint8 (N, 224, 224) expected")
    seen = {crop.tobytes() for crop in calibration}
    shared = sum(crop.tobytes() in seen for crop in references)
    if shared:
        raise UsageError(f"{shared} reference crops are in the calibration set too; they would prove nothing")


def _check_target(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file; a folder for the bundle is expected")
    if target.is_dir() and any(target.iterdir()) and not (target / MANIFEST).is_file():
        raise UsageError(f"{target} holds other things than a bundle; give a new folder")


def _archive(inputs: NDArray[np.uint8], outputs: NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, inputs=inputs, outputs=outputs)
    return stream.getvalue()


def _write(target: Path, contents: Mapping[str, bytes], manifest: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with beside(target) as folder:
        write_files(folder, {**contents, MANIFEST: manifest})
        load_bundle(folder)
