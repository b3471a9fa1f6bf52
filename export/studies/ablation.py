"""Compare ResNet50 with and without the bottleneck transformer, trained with the same budget.

`python -m export.studies.ablation --cache DIR --validation DIR --out DIR --images 50000` trains both on as many
images of the same phantoms and prints one table, as the paper's ablation does. The paper starts from ImageNet's
weights; `--trunk WEIGHTS` starts both from the ResNet50 trunk of trained weights, and only the transformer and the
last layer are new.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_spine.network import CROP_SIZE
from export.checkpoint import load_regressor
from export.training.evaluate import interval
from export.training.run import FROM_SCRATCH, FROM_WEIGHTS, Run
from export.training.samples import HeldOut, Samples, held_out
from export.training.train import train
from export.training.validation import predict

VARIANTS = {"ResNet50": False, "ResNet50 + transformer": True}


def compare(
    cache: Path,
    validation: HeldOut,
    out: Path,
    images: int,
    device: str,
    trunk: Path | None = None,
) -> dict[str, Any]:
    """Train both networks and measure them on held-out crops; return an entry for each of `VARIANTS`."""
    report = {}
    for name, transformer in VARIANTS.items():
        folder = out / name.replace(" ", "").replace("+", "_").lower()
        folder.mkdir(parents=True, exist_ok=True)
        plan = replace(FROM_WEIGHTS if trunk else FROM_SCRATCH, transformer=transformer, images=images, patience=images)
        run = Run(Samples(cache, seed=0), folder, 0, device, plan)
        if trunk and run.step == 0:
            taught = load_regressor(trunk)[0].model.state_dict()
            for model in (run.model, run.average):
                model.model.load_state_dict(taught)
        train(run, {"validation": validation}, every=120)
        report[name] = measure(run, validation)
    return report


def measure(run: Run, validation: HeldOut) -> dict[str, Any]:
    """Return errors (crop pixels, with 95 % intervals over phantoms), size and time of a trained network."""
    crops, targets = validation
    error = np.abs(predict(run.average, crops, run.device) - targets) * CROP_SIZE
    coronal, sagittal = error[:, :, :3].mean(axis=(1, 2)), error[:, :, 3:].mean(axis=(1, 2))
    model = run.average.eval()
    image = torch.zeros(1, 3, CROP_SIZE, CROP_SIZE, device=run.device)
    times = []
    with torch.no_grad():
        for _ in range(12):
            start = time.perf_counter()
            model(image).cpu()
            times.append(time.perf_counter() - start)
    return {
        "million_parameters": sum(p.numel() for p in model.parameters()) / 1e6,
        "images_seen": run.images,
        "training_minutes": run.elapsed / 60,
        "coronal_px": float(coronal.mean()),
        "coronal_interval_95": interval(coronal),
        "sagittal_px": float(sagittal.mean()),
        "sagittal_interval_95": interval(sagittal),
        "eager_float32_ms": 1000 * float(np.median(times[2:])),
    }


def table(report: dict[str, Any]) -> str:
    """Return the comparison as Markdown."""
    lines = ["| network | parameters | images seen | coronal error, px | sagittal error, px | float32, ms |"]
    lines.append("|---|---|---|---|---|---|")
    for name, row in report.items():
        errors = [
            "{:.2f} [{:.2f}, {:.2f}]".format(row[f"{view}_px"], *row[f"{view}_interval_95"])
            for view in ("coronal", "sagittal")
        ]
        cells = [f"{row['million_parameters']:.1f} M", f"{row['images_seen']:,}", *errors]
        lines.append("| " + " | ".join([name, *cells, f"{row['eager_float32_ms']:.0f}"]) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Compare from the command line."""
    parser = argparse.ArgumentParser(prog="python -m export.studies.ablation", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="shards to learn from")
    parser.add_argument("--validation", type=Path, required=True, help="shards to measure on")
    parser.add_argument("--out", type=Path, required=True, help="a folder for each network, and ablation.json")
    parser.add_argument("--trunk", type=Path, help="weights whose trunk both start from (default: from scratch)")
    parser.add_argument("--images", type=int, default=50_000, help="budget of each network (default 50,000)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    options = parser.parse_args(argv)
    validation = held_out(options.validation, 250)
    report = compare(options.cache, validation, options.out, options.images, options.device, options.trunk)
    print(table(report))
    (options.out / "ablation.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
