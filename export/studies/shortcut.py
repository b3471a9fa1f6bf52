"""Test whether the generator leaks the sagittal shape, by predicting it from phantoms with a masked spine.

A phantom's sagittal curve should be visible only in its spine (foreshortened vertebrae, overlapping endplates) and,
physically, in its ribs, and not in other regularities of the generator. A network with trained initial weights is
therefore trained on crops in which a band of 115 mm around the spine is blanked:
`python -m export.studies.shortcut --cache DIR --validation DIR --start WEIGHTS --out DIR` prints its sagittal error,
that of the trained network on whole images, and that of the mean curve.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_spine.network import CROP_SIZE
from export.checkpoint import load_regressor
from export.training.dataset import MARGIN
from export.training.evaluate import interval
from export.training.run import FROM_WEIGHTS, Run
from export.training.samples import Samples, held_out
from export.training.train import train
from export.training.validation import predict

# Half width of the blanked band, crop pixels: beyond the transverse processes, and constant, so that it carries no
# information.
HALF_BAND = 26


def hide_spine(crop: NDArray[np.uint8], curves: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Set a band around the coronal centre of a wide crop to the crop's median.

    Parameters
    ----------
    crop : (272, 272) uint8 array
    curves : (272, 6) float32 array
        As in `dataset.Sample`.
    """
    columns = np.arange(crop.shape[1])[None, :] - MARGIN
    hidden = np.abs(columns - curves[:, 1:2]) <= HALF_BAND
    return np.where(hidden, np.uint8(np.median(crop)), crop)


def compare(cache: Path, validation: Path, start: Path, out: Path, images: int, device: str) -> dict[str, Any]:
    """Train on masked crops; return sagittal errors (crop pixels): masked, whole, and of the mean curve."""
    whole = held_out(validation, 250)
    masked = held_out(validation, 250, hide_spine)
    samples = Samples(cache, seed=0, change=hide_spine)
    run = Run(samples, out, 0, device, replace(FROM_WEIGHTS, images=images, patience=images), start)
    train(run, {"masked": masked}, every=120)
    trained, _ = load_regressor(start)
    trained = trained.to(device, memory_format=torch.channels_last)
    mean = np.concatenate([samples.batch(500, 32)[1] for _ in range(2)]).mean(axis=0).reshape(1, 209, 6)
    answers = {
        "spine masked": predict(run.average, masked[0], device),
        "whole image": predict(trained, whole[0], device, bfloat16=False),
        "mean curve": np.broadcast_to(mean, whole[1].shape),
    }
    report: dict[str, Any] = {"images": images, "phantoms": len(whole[1])}
    for name, answer in answers.items():
        error = np.abs(answer - whole[1])[:, :, 3:].mean(axis=(1, 2)) * CROP_SIZE
        report[name] = {"sagittal_px": float(error.mean()), "interval_95": interval(error)}
    return report


def table(report: dict[str, Any]) -> str:
    """Return the comparison as Markdown."""
    lines = ["| sagittal curves from | mean error, crop pixels [95 %] |", "|---|---|"]
    for name in ("whole image", "spine masked", "mean curve"):
        row = report[name]
        lines.append("| {} | {:.2f} [{:.2f}, {:.2f}] |".format(name, row["sagittal_px"], *row["interval_95"]))
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Compare from the command line."""
    parser = argparse.ArgumentParser(prog="python -m export.studies.shortcut", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="shards to learn from")
    parser.add_argument("--validation", type=Path, required=True, help="shards to measure on")
    parser.add_argument("--start", type=Path, required=True, help="the trained weights")
    parser.add_argument("--out", type=Path, required=True, help="the masked run, and shortcut.json")
    parser.add_argument("--images", type=int, default=20_000, help="images to learn from (default 20,000)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    report = compare(options.cache, options.validation, options.start, options.out, options.images, options.device)
    print(table(report))
    (options.out / "shortcut.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
