"""Fit the refinement of the coronal centreline on people, and put it into a bundle.

`python -m export.training.refinement --model BUNDLE --people DIR --only NAME[,NAME] ... --count N` scans N images of
each person and asks the bundle for their curves. It fits the filters of `edge_spine.refine` on these curves and on true
ones that are disturbed at random, fits the shares of half-waves on the bundle's own curves, and writes the block
"refine" into the manifest. With `--off` it takes the block away. Judge a bundle with and without it by
`python -m export.training.evaluate --people`, on people that are named neither here nor in training: a network that
does not flatten may be better off without it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge_spine.bundle.blocks import parsed_refinement
from edge_spine.bundle.load import Bundle, load_bundle
from edge_spine.engines import open_engine
from edge_spine.errors import EdgeSpineError, Refusal
from edge_spine.network import CROP_SIZE, ROWS
from edge_spine.preprocessing import prepare
from edge_spine.preprocessing.locator import Localiser
from edge_spine.reconstruct import curves_from_output
from edge_spine.refine import (
    HALF_WAVES,
    PARTS,
    SCHEMA,
    TAPS,
    along,
    half_waves,
    parts,
    scaled_profile,
    seen_px,
    sides,
    smoothed,
    splines,
)
from export.training.agreement import scan_of
from export.training.block import replace_block
from export.training.people import make_person
from export.training.phantoms.phantom import Phantom

Array = NDArray[np.float64]
Image = NDArray[np.float32]

# Chosen on three people for the network 0.3.0.
SMOOTHNESS, OUTLIER = 200.0, 0.25
# half-waves whose shift is less correlated with the network's error are left as the network has them
_LEAST_CORRELATION = 0.3
_SEED = 46_000_000
_SEEDS_PER_PERSON = 10_000
# Disturbed copies of the true curve of each image, and the two SDs, pixels, of what moves their splines.
_COPIES, _DISTURBANCE_PX = 3, (0.36, 1.2)
# Rows that are used: neighbours say the same.
_ROW_STEP = 8
# Prior weight of a filter's squared values, in rows.
_RIDGE = 30.0


@dataclass(frozen=True, eq=False)
class Case:
    """One image, with what a network made of it.

    Attributes
    ----------
    crop : (224, 224) array
        The network's input.
    centre, half_width : (209,) arrays
        Of the network, smooth, crop pixels.
    true, true_half_width : (209,) arrays
        Of the truth, crop pixels.
    """

    crop: Image
    centre: Array
    half_width: Array
    true: Array
    true_half_width: Array


def cases_of(bundle: Bundle, scans: Iterable[Phantom], engine: str = "auto", threads: int | None = None) -> list[Case]:
    """Take scans through preprocessing and network; those that are refused are left out."""
    localiser = Localiser(bundle.read(bundle.file_with_role("localiser")))
    cases = []
    with open_engine(bundle, engine, threads=threads) as network:
        for scan in scans:
            with suppress(Refusal):
                prepared = prepare(scan_of(scan), localiser)
                output = network.infer(prepared.tensor)[0]
                columns = output.reshape(ROWS, 6).astype(np.float64) * CROP_SIZE
                true_mm = scan.truth(curves_from_output(output, prepared).z).coronal
                true_px = np.stack([prepared.columns_px(line) for line in true_mm.T], axis=1)
                cases.append(
                    Case(
                        crop=prepared.tensor[0, 0].copy(),
                        centre=smoothed(columns[:, 1]),
                        half_width=smoothed(columns[:, 2] - columns[:, 0]) / 2,
                        true=true_px[:, 1],
                        true_half_width=(true_px[:, 2] - true_px[:, 0]) / 2,
                    )
                )
    return cases


def fit_filters(cases: Sequence[Case]) -> list[list[float]]:
    """Fit the filters (3, 24) of the parts of the curve, from the top down.

    Ridge regression of the distance of the true centre, in half-widths, on the difference of the scaled profiles of
    both sides; then scaled so that the answers have the right size on average, since a ridge makes them too small.
    """
    rng = np.random.default_rng(0)
    part_of = np.minimum(np.arange(ROWS) * PARTS // ROWS, PARTS - 1)[_ROW_STEP // 2 :: _ROW_STEP]
    inputs, wanted = [], []
    for case in cases:
        disturbed = [
            case.true + splines() @ rng.normal(0, rng.choice(_DISTURBANCE_PX), splines().shape[1])
            for _ in range(_COPIES)
        ]
        for start in (case.centre, *disturbed):
            left, right = sides(scaled_profile(case.crop, start, case.half_width)[0])
            inputs.append(along(right - left)[_ROW_STEP // 2 :: _ROW_STEP])
            wanted.append(((case.true - start) / case.half_width)[_ROW_STEP // 2 :: _ROW_STEP])
    x, y = np.stack(inputs), np.stack(wanted)
    filters = []
    for part in range(PARTS):
        features, distance = x[:, part_of == part].reshape(-1, TAPS), y[:, part_of == part].ravel()
        weights = np.linalg.solve(features.T @ features + _RIDGE * np.eye(TAPS), features.T @ distance)
        weights *= float(distance @ distance) / float(features @ weights @ distance)
        filters.append(weights.round(4).tolist())
    return filters


def fit_shares(
    cases: Sequence[Case], filters: list[list[float]], smoothness: float, outlier: float
) -> tuple[list[float], float, list[float]]:
    """Fit the share (16,) of each half-wave of the shift that is kept, and the line of the half-width's error.

    A share gives the correction the size of the network's error that it can tell: the regression of the error on the
    shift over their correlation. The regression alone has the least squared error, but flattens curves; where the two
    are hardly correlated, nothing is kept. The line, a share and three
    offsets, is the regression of the half-width's error on the borders' common distance.
    """
    whole = parsed_refinement(block_of(filters, smoothness, outlier, [1.0] * HALF_WAVES, 1.0, [0.0] * PARTS))
    found = np.array([seen_px(case.crop, case.centre, case.half_width, whole) for case in cases])
    shifts, wider = found[:, 0] @ half_waves(), found[:, 1]
    errors = np.stack([case.true - case.centre for case in cases]) @ half_waves()
    common = (shifts * errors).sum(axis=0)
    shift_energy, error_energy = (np.maximum((waves**2).sum(axis=0), 1e-12) for waves in (shifts, errors))
    correlation = common / np.sqrt(shift_energy * error_energy)
    size = np.where(correlation > _LEAST_CORRELATION, np.sqrt(error_energy / shift_energy), 0.0)
    half_widths = np.stack([case.half_width for case in cases])
    lacking = (np.stack([case.true_half_width for case in cases]) - half_widths) / half_widths
    inputs = np.concatenate([(wider / half_widths)[:, :, np.newaxis], np.tile(parts(), (len(cases), 1, 1))], axis=2)
    line, *_ = np.linalg.lstsq(inputs.reshape(-1, 1 + PARTS), lacking.ravel(), rcond=None)
    share, offsets = float(np.clip(line[0], 0, 1)), np.clip(line[1:], -1, 1)
    return np.clip(size, 0, 1).round(3).tolist(), round(share, 3), offsets.round(4).tolist()


def block_of(
    filters: list[list[float]],
    smoothness: float,
    outlier: float,
    shares: list[float],
    width_share: float,
    width_offsets: list[float],
) -> dict[str, Any]:
    """Return a refinement as a manifest holds it."""
    return {
        "schema": SCHEMA,
        "filters": filters,
        "smoothness": smoothness,
        "outlier": outlier,
        "shares": shares,
        "width_share": width_share,
        "width_offsets": width_offsets,
    }


def people_scans(folder: Path, only: Sequence[str], count: int) -> Iterable[Phantom]:
    """Draw `count` scans of each person, on seeds of their own."""
    for number, name in enumerate(only):
        for seed in range(_SEED + number * _SEEDS_PER_PERSON, _SEED + number * _SEEDS_PER_PERSON + count):
            yield make_person(folder, tuple(name.split(",")), seed)


def main(argv: list[str] | None = None) -> int:
    """Add or remove the refinement from the command line.

    Returns
    -------
    int
        0 when the manifest is written, 1 where the bundle or a person cannot be loaded.
    """
    parser = argparse.ArgumentParser(prog="python -m export.training.refinement", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, metavar="BUNDLE", help="bundle folder to change")
    parser.add_argument("--people", type=Path, metavar="DIR", help="folder of bone packs")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME[,NAME]", help="people to fit on")
    parser.add_argument("--count", type=int, default=40, help="images of each (default 40)")
    parser.add_argument("--smoothness", type=float, default=SMOOTHNESS, help="default %(default)g")
    parser.add_argument("--outlier", type=float, default=OUTLIER, help="half-widths (default %(default)g)")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--threads", type=int, help="of the engine")
    parser.add_argument("--off", action="store_true", help="take the refinement out of the bundle")
    options = parser.parse_args(argv)
    if not options.off and not (options.people and options.only):
        parser.error("--people and --only are needed, or --off")
    if not 1 <= options.count <= _SEEDS_PER_PERSON:
        parser.error(f"--count must be from 1 to {_SEEDS_PER_PERSON}")
    try:
        bundle = load_bundle(options.model)
        block = None
        if not options.off:
            scans = people_scans(options.people, options.only, options.count)
            total = options.count * len(options.only)
            shown = tqdm(scans, total=total, unit="scan", disable=None)
            cases = cases_of(bundle, shown, options.engine, options.threads)
            filters = fit_filters(cases)
            fitted = fit_shares(cases, filters, options.smoothness, options.outlier)
            print("shares of 0 to 15 half-waves:", *fitted[0], "; of the half-width:", fitted[1])
            block = block_of(filters, options.smoothness, options.outlier, *fitted)
        replace_block(bundle, "refine", block)
    except (EdgeSpineError, OSError) as error:
        print(f"refinement: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
