"""Train the regressor on cached samples: `python -m export.training.train --cache DIR --out DIR --minutes 90`.

The loss is L1 on coordinates, as published, and on tangents (`export.training.loss`). From scratch on a CPU, what
makes it affordable is bfloat16, smaller images first, and a last layer that learns the main shapes of the curves (a
principal-component basis, folded into the published linear layer when a checkpoint is written). `--start` goes on
from trained weights instead, with large images and a lower rate. Time is the budget: the learning rate falls to zero
when `--minutes` are used up. Every few minutes the state is written, and the same command goes on from it.

Errors are reported on every `--validation` folder. The last one named decides: put the people there that no training
sample was made from. The averaged weights are kept where their loss on it is the lowest so far, and training ends
early when it has not been for a while, whatever the training loss does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from edge_spine.network import CROP_SIZE
from export.package import find_card
from export.training.head import SHAPES, write_weights
from export.training.loss import CORONAL_TANGENT, SAGITTAL_TANGENT, SPANS
from export.training.precision import precision_of
from export.training.run import AVERAGING, FROM_SCRATCH, FROM_WEIGHTS, LITE, Plan, Run
from export.training.samples import TEACHER_SHARE, HeldOut, Samples, answers_of, held_out, prefetch
from export.training.validation import errors


def train(run: Run, validation: dict[str, HeldOut], every: float, workers: int = 0) -> None:
    """Train until the time budget is used up or nothing gets better.

    `validation` holds held-out crops by name; the last decides what is best. Writes to the run's folder: the state
    every `every` seconds, `weights.safetensors` (the best averaged weights, or the last without `validation`), one
    line a checkpoint in `log.jsonl`, and `run.json`, the record of the run.
    """
    log = run.out / "log.jsonl"
    bar = tqdm(total=round(run.budget), initial=round(run.elapsed), unit="s", disable=None)
    last = saved = time.monotonic()
    losses: list[float] = []
    going = True
    for images, targets, size in prefetch(run.samples, run.stage, workers):
        losses.append(run.train_step(images, targets))
        now = time.monotonic()
        run.elapsed += now - last
        bar.update(min(round(now - last, 2), bar.total - bar.n))
        last = now
        done = run.progress >= 1.0
        if done or now - saved > every:
            entry = {"step": run.step, "elapsed_s": round(run.elapsed), "images": run.images, "size": size}
            entry |= {"samples": len(run.samples), "loss_px": round(float(np.mean(losses)), 4)}
            # a network in training at a small size is not yet one for large images
            if done or size == CROP_SIZE:
                going = _check(run, validation, entry)
            run.save()
            with log.open("a", encoding="utf-8") as lines:
                print(json.dumps(entry), file=lines)
            losses.clear()
            saved = last = time.monotonic()
        if done or not going:
            break
    bar.close()
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    (run.out / "run.json").write_text(json.dumps({**record(run), "log": entries}, indent=1), encoding="utf-8")


def _check(run: Run, validation: dict[str, HeldOut], entry: dict[str, Any]) -> bool:
    """Measure the averaged network, keep its weights if they are the best, and say whether to go on."""
    if not validation:
        write_weights(run.average, run.out / "weights.safetensors")
        return True
    entry["held_out"] = {name: errors(run.average, held, run.device) for name, held in validation.items()}
    return run.judge(entry["held_out"][list(validation)[-1]]["loss_px"])


def record(run: Run) -> dict[str, Any]:
    """Return the settings and the hardware of a run."""
    gpu = torch.cuda.get_device_name() if run.device == "cuda" else None
    samples = run.samples
    return {
        "loss": f"L1 on coordinates, and {CORONAL_TANGENT} (coronal) and {SAGITTAL_TANGENT} (sagittal) px a degree on "
        f"tangents over {' and '.join(map(str, SPANS))} rows",
        "optimiser": f"AdamW, weight decay 0.02, cosine over the time budget, {precision_of(run.device)}",
        "averaging": AVERAGING,
        "principal_shapes": SHAPES,
        **asdict(run.plan),
        "sources": [folder.name for folder in samples.folders],
        "source_sizes": samples.sizes(),
        "source_shares": None if samples.shares is None else [round(float(share), 4) for share in samples.shares],
        "teacher_share": TEACHER_SHARE if samples.teacher else None,
        "minutes": run.budget / 60,
        "hardware": gpu or f"{torch.get_num_threads()} threads, {platform.machine()}",
        "torch": torch.__version__,
        "best_left_out_loss_px": None if run.best == float("inf") else round(run.best, 4),
    }


def named(folders: list[Path]) -> dict[str, HeldOut]:
    """Load up to 200 undistorted crops of each folder, by the folder's name, or its path where names are alike."""
    alike = len({folder.name for folder in folders}) < len(folders)
    return {str(folder) if alike else folder.name: held_out(folder, 200) for folder in folders}


def plan_of(options: argparse.Namespace) -> Plan:
    """Return the plan that the options ask for."""
    plan = LITE if options.lite else FROM_SCRATCH if options.start is None else FROM_WEIGHTS
    return replace(
        plan,
        peak_rate=options.rate or plan.peak_rate,
        freeze=options.freeze,
        freeze_norms=options.freeze_norm,
        dropout=options.dropout,
        stages=tuple((end, size, options.batch or batch) for end, size, batch in plan.stages),
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m export.training.train", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--cache", type=Path, nargs="+", metavar="DIR", help="shards to learn from; new ones are taken as they appear"
    )
    source.add_argument(
        "--pairs",
        type=Path,
        metavar="DIR",
        help="real pairs, as export.training.alignment.align writes them: learns from DIR/train, reports the error on "
        "DIR/validation, and never reads DIR/test",
    )
    parser.add_argument(
        "--share", type=float, nargs="+", metavar="S", help="share of the images from each --cache (default: by size)"
    )
    parser.add_argument(
        "--validation",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="shards to report errors on while training; the last, people left out of training, decides what is kept",
    )
    parser.add_argument("--out", type=Path, required=True, help="state, weights.safetensors and log.jsonl go here")
    parser.add_argument("--start", type=Path, help="weights to go on from (default: from scratch)")
    parser.add_argument(
        "--trunk", type=Path, metavar="FILE", help="torchvision's ResNet50, such as ImageNet's, to begin the trunk with"
    )
    parser.add_argument(
        "--lite", action="store_true", help="train spine-lite; --start are the large network's weights, or lite's"
    )
    parser.add_argument(
        "--teacher",
        type=Path,
        metavar="BUNDLE",
        help="model whose answers make up most of the targets (default: the truth alone)",
    )
    parser.add_argument("--minutes", type=float, default=90, help="time budget over all resumes (default 90)")
    parser.add_argument("--every", type=float, default=300, help="seconds between checkpoints (default 300)")
    parser.add_argument("--batch", type=int, metavar="N", help="images a step (default: the plan's)")
    parser.add_argument("--rate", type=float, help="peak learning rate (default: the plan's)")
    parser.add_argument(
        "--freeze", type=int, metavar="N", help="keep the stem and the first N stages as --start has them"
    )
    parser.add_argument(
        "--freeze-norm", action="store_true", help="keep the running statistics of every batch norm; also faster"
    )
    parser.add_argument(
        "--dropout", type=float, default=0.0, metavar="P", help="of the last layer's features (default 0)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="processes that draw images, where a GPU is faster than one thread can draw (default: one thread)",
    )
    options = parser.parse_args(argv)
    if options.pairs is not None:
        if options.validation:
            parser.error("--pairs brings its own validation split; leave --validation out")
        options.cache, options.validation = [options.pairs / "train"], [options.pairs / "validation"]
        for split in (*options.cache, *options.validation):
            if not any(split.glob("shard_*.npz")):
                raise SystemExit(f"no shards in {split}: python -m export.training.alignment.align makes them")
    if options.trunk is not None and (options.start is not None or options.lite):
        parser.error("--trunk begins the published network; leave --start and --lite out")
    if options.workers and (options.teacher is not None or len(plan_of(options).stages) > 1):
        parser.error("--workers draw images of one size without a teacher: leave --teacher out, and give --start")
    if not 0 <= options.dropout < 1:
        parser.error("--dropout is a share, from 0 to below 1")
    return options


def main(argv: list[str] | None = None) -> int:
    """Train from the command line."""
    options = parse(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    # one size of images for long: the fastest convolutions are worth a search
    torch.backends.cudnn.benchmark = True
    options.out.mkdir(parents=True, exist_ok=True)
    teacher = None if options.teacher is None else answers_of(options.teacher)
    # not a fixed seed: a resumed run must not draw the same samples again
    samples = Samples(options.cache, seed=time.time_ns(), teacher=teacher, shares=options.share)
    run = Run(samples, options.out, options.minutes, options.device, plan_of(options), options.start, options.trunk)
    train(run, named(options.validation), options.every, options.workers)
    if options.pairs is not None:
        card = pairs_card(options.pairs, len(samples), options.start, options.trunk)
        (options.out / "weights.card.json").write_text(json.dumps(card, indent=1), encoding="utf-8")
    return 0


def pairs_card(pairs: Path, count: int, start: Path | None, trunk: Path | None = None) -> dict[str, Any]:
    """Return the card of weights that learnt from real pairs: what they have learnt from, and what is not known."""
    text = (
        f"{count} pairs of a DXA scan and curves of the same person's MRI (the training part of {pairs.name}, aligned "
        "by export.training.alignment); its validation part decided what was kept, its test part was not opened."
    )
    people: list[str] = []
    if start is None:
        text += " The weights began at random." if trunk is None else f" The trunk began as {trunk.name}."
    else:
        before = find_card(start)
        digest = hashlib.sha256(start.read_bytes()).hexdigest()
        text += f" The weights began as {start.name} (SHA-256 {digest[:16]}). That had learnt from: {before.training}"
        people = list(before.training_people)
    return {
        "name": "weights",
        "version": "0",
        "training": text,
        "licence": "Unknown: set by those of the pairs and of the weights that training began with",
        "training_people": people,
    }


if __name__ == "__main__":
    raise SystemExit(main())
