"""Measure how well disagreement of two networks, or of an image and its mirror, predicts a wrong result.

`python -m export.studies.second_opinion --people DIR --only NAME[,NAME] --count N` runs spine and spine-lite on the
same prepared crops of phantoms and of people's scans, each whole and mirrored, as scanned and disturbed (noise, blur,
contrast, cut ends), and prints rank correlations of their differences with the true error of spine. Differences are
mean absolute differences of the sagittal centre, or of all three sagittal columns, mm; the columns that correlate
better are kept, and both are reported. Intervals resample people, with all of their images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr
from tqdm import tqdm

from edge_spine.bundle import load_bundle
from edge_spine.engines import open_engine
from edge_spine.engines.base import Engine
from edge_spine.errors import Refusal
from edge_spine.metrics import centreline_deviation
from edge_spine.network import CROP_SIZE, ROWS
from edge_spine.preprocessing import prepare
from edge_spine.preprocessing.locator import Localiser
from edge_spine.reconstruct import curves_from_output, reconstruct
from export.options import report_file
from export.training.dataset import EVALUATION_SEED
from export.training.evaluate import scan_of
from export.training.people import make_person
from export.training.phantoms.phantom import Phantom, make_phantom

DISTURBANCES = ("as scanned", "noise", "blur", "contrast", "cut end")
ERRORS = ("sagittal_mm", "deviation3d_mm")
COLUMNS = ("centre", "all columns")
SIGNALS = ("networks", "mirror", "both")
PHANTOMS = "phantoms"
_DISTURBING_SEED = 46_000_000


@dataclass(frozen=True)
class Opinion:
    """Errors and differences of one image.

    Attributes
    ----------
    person : str
        Group for resampling: a person's name, or a phantom's seed.
    group : str
        "phantoms" or "people".
    disturbance : str
        One of `DISTURBANCES`.
    errors : dict
        True error of spine, by `ERRORS`.
    differences : dict
        Differences of ("networks", "mirror") by `COLUMNS`, mm.
    """

    person: str
    group: str
    disturbance: str
    errors: dict[str, float]
    differences: dict[str, tuple[float, float]]


def disturb(rng: np.random.Generator, pixels: NDArray[Any], bits: int, disturbance: str) -> NDArray[Any]:
    """Disturb a scan, about twice as strongly as training samples are.

    Parameters
    ----------
    pixels : (rows, columns) uint8 or uint16 array
    bits : int
        Bits of the scanner's pixel values.
    disturbance : str
        One of `DISTURBANCES`.

    Returns
    -------
    array of the same shape and type
    """
    if disturbance == "as scanned":
        return pixels
    top = 2**bits - 1
    shown = pixels.astype(np.float32) / top
    if disturbance == "noise":
        shown = shown + rng.standard_normal(shown.shape, dtype=np.float32) * np.float32(rng.uniform(0.02, 0.1))
    elif disturbance == "blur":
        shown = cv2.GaussianBlur(shown, (0, 0), rng.uniform(0.8, 2.0))
    elif disturbance == "contrast":
        shown = shown ** np.float32(np.exp(rng.choice([-1, 1]) * rng.uniform(0.2, 0.6)))
    elif disturbance == "cut end":
        # Set to background, so that the body ends there.
        cut = int(rng.uniform(0.02, 0.12) * len(shown))
        background = np.median(shown[:, :2])
        if rng.random() < 0.5:
            shown[:cut] = background
        else:
            shown[-cut:] = background
    else:
        raise ValueError(f"{disturbance!r} is none of {', '.join(DISTURBANCES)}")
    return np.round(np.clip(shown, 0, 1) * top).astype(pixels.dtype)


def mirrored_back(output: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mirror the output for a mirrored crop, (209, 6) crop pixels / 224, back to the crop."""
    turned = output.copy()
    turned[:, :3] = (CROP_SIZE - 1) / CROP_SIZE - output[:, 2::-1]
    return turned


def sagittal_difference(a: NDArray[np.float32], b: NDArray[np.float32], pixel_mm: float) -> dict[str, float]:
    """Return the mean absolute difference (mm) of the sagittal columns of two outputs (209, 6), by `COLUMNS`.

    The mean centre is subtracted, since the antero-posterior position is unknown.
    """
    sides = [answer[:, 3:] - answer[:, 4].mean() for answer in (a, b)]
    apart = np.abs(sides[0] - sides[1]) * CROP_SIZE * pixel_mm
    return {"centre": float(apart[:, 1].mean()), "all columns": float(apart.mean())}


def differences(
    large: tuple[NDArray[np.float32], NDArray[np.float32]],
    small: tuple[NDArray[np.float32], NDArray[np.float32]],
    pixel_mm: float,
) -> dict[str, tuple[float, float]]:
    """Return the differences of the networks, and of image and mirror (mean of both networks), by `COLUMNS`.

    Parameters
    ----------
    large, small : pairs of (209, 6) arrays
        Outputs of spine and of spine-lite for the crop and for its mirror image, the latter mirrored back.
    """
    networks = sagittal_difference(large[0], small[0], pixel_mm)
    mirrors = [sagittal_difference(*pair, pixel_mm) for pair in (large, small)]
    return {name: (networks[name], (mirrors[0][name] + mirrors[1][name]) / 2) for name in COLUMNS}


def both_answers(engine: Engine, tensor: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the outputs (209, 6) for a crop, and for its mirror image, mirrored back."""
    whole = engine.infer(tensor).reshape(ROWS, 6)
    turned = engine.infer(np.ascontiguousarray(tensor[..., ::-1])).reshape(ROWS, 6)
    return whole, mirrored_back(turned)


def opinions_on(
    engines: tuple[Engine, Engine], localiser: Localiser, phantom: Phantom, person: str, group: str
) -> Iterator[Opinion]:
    """Measure a scan with each disturbance; refused scans are left out."""
    for number, disturbance in enumerate(DISTURBANCES):
        rng = np.random.default_rng([_DISTURBING_SEED, phantom.seed, number])
        try:
            pixels = disturb(rng, phantom.bone, phantom.scanner.bits, disturbance)
            prepared = prepare(scan_of(phantom, pixels), localiser)
            large, small = (both_answers(engine, prepared.tensor) for engine in engines)
            curves = curves_from_output(large[0].reshape(1, -1), prepared)
            spine = reconstruct(curves)
        except Refusal:
            continue
        truth = phantom.truth(curves.z)
        errors = {
            "sagittal_mm": float(np.abs(curves.sagittal[:, 1] - truth.sagittal[:, 1]).mean()),
            "deviation3d_mm": centreline_deviation(spine, reconstruct(truth)),
        }
        yield Opinion(person, group, disturbance, errors, differences(large, small, prepared.model_pixel_mm))


def signals(opinions: list[Opinion], columns: str, scale: tuple[float, float]) -> dict[str, NDArray[np.float64]]:
    """Return the differences of images by `SIGNALS`; "both" is their sum, each divided by its `scale`."""
    pairs = np.array([opinion.differences[columns] for opinion in opinions])
    return {"networks": pairs[:, 0], "mirror": pairs[:, 1], "both": (pairs / scale).sum(axis=1)}


def resampled(people: list[str], draws: int, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """Return the images of bootstrap samples of people, each with all of its images."""
    rng = np.random.default_rng(seed)
    names, place = np.unique(people, return_inverse=True)
    images = [np.flatnonzero(place == k) for k in range(len(names))]
    for _ in range(draws):
        yield np.concatenate([images[k] for k in rng.integers(len(names), size=len(names))])


def correlation(
    signal: NDArray[np.float64], error: NDArray[np.float64], people: list[str], draws: int
) -> tuple[float, float, float]:
    """Return Spearman's rank correlation with its 95 % bootstrap interval over people."""
    found = []
    for images in resampled(people, draws):
        a, b = rankdata(signal[images]), rankdata(error[images])
        if a.std() > 0 and b.std() > 0:
            found.append(np.corrcoef(a, b)[0, 1])
    low, high = np.percentile(found, [2.5, 97.5]) if found else (np.nan, np.nan)
    return float(spearmanr(signal, error).statistic), float(low), float(high)


def measure(opinions: list[Opinion], draws: int = 500) -> dict[str, Any]:
    """Return the correlations of each group, signal, columns and error, with intervals from bootstrap draws.

    Raises
    ------
    ValueError
        There are no undisturbed phantoms.
    """
    clean = [o for o in opinions if o.group == PHANTOMS and o.disturbance == "as scanned"]
    if not clean:
        raise ValueError("no undisturbed phantom was accepted; they scale the differences, so give a larger --count")
    groups = _groups(opinions)
    report: dict[str, Any] = {"count": {name: len(g) for name, g in groups.items()}, "columns": {}}
    for columns in COLUMNS:
        pairs = np.array([opinion.differences[columns] for opinion in clean])
        scale = (float(np.median(pairs[:, 0])), float(np.median(pairs[:, 1])))
        found: dict[str, Any] = {"scale_mm": list(scale), "groups": {}}
        for name, group in groups.items():
            people = [opinion.person for opinion in group]
            values = signals(group, columns, scale)
            found["groups"][name] = {
                signal: {
                    error: list(correlation(values[signal], np.array([o.errors[error] for o in group]), people, draws))
                    for error in ERRORS
                }
                for signal in SIGNALS
            }
        report["columns"][columns] = found
    report["kept"] = max(COLUMNS, key=lambda columns: _mean_correlation(report["columns"][columns]["groups"]))
    return report


def _groups(opinions: list[Opinion]) -> dict[str, list[Opinion]]:
    """Return the cases by group: as scanned, disturbed, and all."""
    groups: dict[str, list[Opinion]] = {}
    for group in sorted({o.group for o in opinions}):
        for name, wanted in (("as scanned", (True,)), ("disturbed", (False,)), ("all", (True, False))):
            groups[f"{group}, {name}"] = [
                o for o in opinions if o.group == group and (o.disturbance == "as scanned") in wanted
            ]
    # A rank correlation requires three images.
    return {name: group for name, group in groups.items() if len(group) > 2}


def _mean_correlation(groups: dict[str, dict[str, dict[str, list[float]]]]) -> float:
    return float(np.nanmean([row["sagittal_mm"][0] for group in groups.values() for row in group.values()]))


def table(report: dict[str, Any]) -> str:
    """Return the report as Markdown, selected columns first."""
    lines = []
    for columns in sorted(COLUMNS, key=lambda name: name != report["kept"]):
        kept = " (kept)" if columns == report["kept"] else ""
        lines += [
            f"Sagittal columns: {columns}{kept}",
            "",
            "| images | difference | with sagittal error | with 3D error |",
            "|---|---|---|---|",
        ]
        for name, group in report["columns"][columns]["groups"].items():
            for signal, row in group.items():
                rho = ["{:.2f} [{:.2f}, {:.2f}]".format(*row[error]) for error in ERRORS]
                cells = [f"{name} ({report['count'][name]})", signal, *rho]
                lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines[:-1])


def scans(people: Path | None, only: list[str], count: int, each: int) -> Iterator[tuple[Phantom, str, str]]:
    """Yield phantoms of the evaluation seeds, then `each` scans of each person, with names and groups."""
    for seed in range(EVALUATION_SEED, EVALUATION_SEED + count):
        yield make_phantom(seed), f"phantom {seed}", PHANTOMS
    if people is not None:
        for number, name in enumerate(only):
            for k in range(each):
                seed = EVALUATION_SEED + number * each + k
                yield make_person(people, tuple(name.split("+")), seed), name, "people"


def main(argv: list[str] | None = None) -> int:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(prog="python -m export.studies.second_opinion", description=__doc__)
    parser.add_argument("--people", type=Path, help="folder of bone packs (default: phantoms alone)")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME[,NAME]", help="people as commas join their packs' names"
    )
    parser.add_argument("--count", type=int, default=200, help="phantoms, and scans of all people (default 200)")
    parser.add_argument("--engine", default="onnx-cpu")
    parser.add_argument("--threads", type=int, help="of each engine")
    parser.add_argument("--json", type=report_file, help="write the figures here as well")
    options = parser.parse_args(argv)
    if (options.people is None) != (not options.only):
        parser.error("--people and --only go together")
    only = [name.replace(",", "+") for name in options.only]
    each = -(-options.count // len(only)) if only else 0
    bundle = load_bundle(None)
    localiser = Localiser(bundle.read(bundle.file_with_role("localiser")))
    opinions: list[Opinion] = []
    with (
        open_engine(bundle, options.engine, threads=options.threads) as large,
        open_engine(load_bundle("lite"), options.engine, threads=options.threads) as small,
    ):
        total = options.count + each * len(only)
        for scan in tqdm(scans(options.people, only, options.count, each), total=total, unit="scan", disable=None):
            opinions += opinions_on((large, small), localiser, *scan)
    report = measure(opinions)
    print(table(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
