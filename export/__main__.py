"""Convert weights to a model bundle: ``python -m export CHECKPOINT --out BUNDLE``."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.bundle import load_bundle
from edge_spine.errors import EdgeSpineError, UsageError
from edge_spine.locate import read_level_network
from edge_spine.refine import read_refinement
from export.exit_status import refused

if TYPE_CHECKING:
    from export.checkpoint import Source
    from export.lite import Network
    from export.quantize import Recipe

Crops = NDArray[np.uint8]
_log = logging.getLogger("export")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 0, 1 where the bundle is refused (the gate, damaged weights), 2 on wrong usage."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="export: %(message)s")
    _log.setLevel(logging.INFO)
    try:
        _export(options)
    except EdgeSpineError as error:
        return refused("export", error)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Quantise a network to INT8, compare it with PyTorch float32, and write a model bundle. "
        "Its 90 % bands belong to one engine: a fresh bundle has none, and one that is replaced loses them, until "
        "`python -m export.training.calibrate --model BUNDLE` adds them.",
        epilog="example: python -m export export/weights/spine-lite.safetensors --out cache/bundle; "
        "the checkpoint of the published code: python -m export released.pt --layout released --out my_bundle",
    )
    parser.add_argument("checkpoint", type=Path, help="safetensors or PyTorch file with the weights")
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="folder to write or replace")
    parser.add_argument(
        "--card", type=Path, help="JSON: name, version, training, licence (default: NAME.card.json beside NAME.*)"
    )
    parser.add_argument(
        "--layout",
        choices=("auto", "released", "own"),
        default="auto",
        help="what the checkpoint must be: the published code's PyTorch file, our safetensors, or either (auto)",
    )
    parser.add_argument(
        "--sagittal",
        choices=("posterior", "anterior"),
        help="where larger values of the sagittal columns lie, which a released checkpoint does not tell "
        "(default: posterior)",
    )
    parser.add_argument(
        "--pairs", type=Path, metavar="DIR", help="aligned real pairs, whose validation part decides that direction"
    )
    parser.add_argument(
        "--localiser", type=Path, help="ONNX file of the spine localiser, to go with it (default: the bundled model's)"
    )
    parser.add_argument(
        "--levels",
        type=Path,
        metavar="NPZ",
        help="weights of the network that finds the vertebrae, to go with it (default: the bundled model's)",
    )
    refinement = parser.add_mutually_exclusive_group()
    refinement.add_argument(
        "--refinement",
        type=Path,
        metavar="NPZ",
        help="weights of the coronal refinement, to go with it (default: the bundled model's)",
    )
    refinement.add_argument("--no-refinement", action="store_true", help="leave the coronal curves as the network's")
    parser.add_argument(
        "--forms",
        choices=("all", "int8"),
        default="all",
        help="all adds a float16 file, for fp16 and fp32, twice the size of the INT8 one; TensorRT's INT8 form is "
        "derived from the INT8 file and needs none (default: all)",
    )
    parser.add_argument("--method", choices=("minmax", "percentile", "entropy"), help="calibration method")
    parser.add_argument("--percentile", type=float, help="share of values a range must hold, in percent")
    parser.add_argument("--float-parts", metavar="LIST", help="parts kept in float32, comma separated")
    parser.add_argument(
        "--calibration-crops",
        type=Path,
        metavar="NPZ",
        help="archive with 'crops', uint8 (N, 224, 224), in place of phantoms; the last are the references",
    )
    parser.add_argument("--calibration-count", type=int, default=64, help="phantoms to calibrate with")
    parser.add_argument("--calibration-seed", type=int, help="first phantom's seed")
    parser.add_argument("--reference-count", type=int, default=32, help="crops to compare on")
    parser.add_argument("--reference-seed", type=int, help="first phantom's seed")
    parser.add_argument("--no-bias-correction", action="store_true", help="keep the biases as trained")
    return parser


def _export(options: argparse.Namespace) -> None:
    # PyTorch takes seconds to import; report wrong usage before.
    from export.checkpoint import load_regressor
    from export.forms import summary
    from export.package import build_bundle, find_card, read_card

    card = find_card(options.checkpoint) if options.card is None else read_card(options.card)
    recipe = _recipe(options)
    localiser = _companion("localiser", options.localiser)
    refinement = None if options.no_refinement else _companion("refinement", options.refinement)
    if refinement is not None:
        read_refinement(refinement)
    levels = _companion("levels", options.levels)
    read_level_network(levels)
    _log.info("reading %s", options.checkpoint.name)
    regressor, source = load_regressor(options.checkpoint, options.layout)
    print(f"{source.file}: {source.found}", flush=True)
    regressor, source = _with_direction(regressor, source, options)
    calibration, references, crops_from = _crops(options)
    bundle, verifications = build_bundle(
        regressor,
        options.out,
        card=card,
        source=source,
        calibration_crops=calibration,
        reference_crops=references,
        crops_from=crops_from,
        recipe=recipe,
        localiser=localiser,
        refinement=refinement,
        levels=levels,
        with_float=options.forms == "all",
    )
    print(summary(verifications))
    size = sum(entry["size"] for entry in bundle.manifest["files"].values())
    print(f"{options.out}: {bundle.name} {bundle.version}, {size / 1e6:.1f} MB")


def _with_direction(regressor: Network, source: Source, options: argparse.Namespace) -> tuple[Network, Source]:
    """Turn the sagittal columns to posterior, and say in the source who stated or decided their direction."""
    from export.sagittal import UNKNOWN, decide, turned

    direction, reason = options.sagittal, "as stated"
    if options.pairs is not None:
        direction, reason = decide(regressor, options.pairs), f"as pairs of {options.pairs.name} decide"
        if options.sagittal not in (None, direction):
            raise UsageError(f"--sagittal says {options.sagittal}, the pairs of {options.pairs.name} say {direction}")
    if direction is None:
        if not source.found.startswith("released"):
            return regressor, source
        print(f"{source.file}: {UNKNOWN}", file=sys.stderr)
        direction, reason = "posterior", "as assumed"
    source = replace(source, found=f"{source.found}; larger sagittal values are more {direction}, {reason}")
    return (turned(regressor) if direction == "anterior" else regressor), source


def _recipe(options: argparse.Namespace) -> Recipe:
    from export.quantize import Recipe

    chosen: dict[str, Any] = {"bias_correction": not options.no_bias_correction}
    chosen |= {name: value for name in ("method", "percentile") if (value := getattr(options, name)) is not None}
    if options.float_parts is not None:
        chosen["float_parts"] = tuple(part for part in options.float_parts.split(",") if part)
    try:
        return Recipe(**chosen)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _companion(role: str, path: Path | None) -> bytes:
    """Return the file that goes with the network in a role, by default that of the packaged model."""
    if path is None:
        bundled = load_bundle()
        return bundled.read(bundled.file_with_role(role))
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path.name}: {error.strerror or 'cannot be read'}") from None


def _crops(options: argparse.Namespace) -> tuple[Crops, Crops, str]:
    counts = options.calibration_count, options.reference_count
    if min(counts) < 1:
        raise UsageError("--calibration-count and --reference-count must be at least 1")
    if options.calibration_crops is not None:
        crops = _crop_archive(options.calibration_crops)
        if len(crops) <= options.reference_count:
            raise UsageError(
                f"{options.calibration_crops.name}: {len(crops)} crops, more than the "
                f"{options.reference_count} references are needed"
            )
        split = len(crops) - options.reference_count
        return crops[:split], crops[split:], f"crops given as {options.calibration_crops.name}"
    from export.training.dataset import CALIBRATION_SEED, REFERENCE_SEED, calibration_crops

    first = CALIBRATION_SEED if options.calibration_seed is None else options.calibration_seed
    other = REFERENCE_SEED if options.reference_seed is None else options.reference_seed
    if first < other + options.reference_count and other < first + options.calibration_count:
        raise UsageError(f"calibration and references would share phantoms: they start at {first} and {other}")
    _log.info("rendering %d phantoms to calibrate with, %d to compare on", *counts)
    return (
        calibration_crops(options.calibration_count, first),
        calibration_crops(options.reference_count, other),
        f"phantoms, seeds from {first}; references from {other}",
    )


def _crop_archive(path: Path) -> Crops:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            crops: Crops = arrays["crops"]
            return crops
    except Exception:  # A damaged archive raises many types in zipfile and NumPy.
        raise UsageError(f"{path.name}: not an archive with an array 'crops'") from None


if __name__ == "__main__":
    sys.exit(main())
