"""Measure a bundle on people that training never saw: `python -m export.training.evaluate --people DIR --only NAME`.

A person's bone comes from one or two packs in a folder that the user names (a thoracic and a lumbar one, joined by a
comma), everything else is drawn like a phantom's, each scan on a curve of its own. Scans take the runtime's whole walk
and are compared with the truth at the heights of the result. Each figure stands beside that of the baseline, which is
told the true coronal view and answers the mean sagittal curve of training subjects. Intervals over images say how
well these people were measured, those over people what other people like them would give.

A bundle may name the packs that its training saw (`training_people` in the manifest): figures on these do not count,
so that they are refused, or marked on every line with `--seen`.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from edge_spine import SpineEstimator
from edge_spine.bundle import load_bundle
from edge_spine.errors import Refusal, UsageError
from export.training.agreement import (
    CLASSES,
    Answer,
    centre_errors,
    compare,
    judge_bands,
    judge_levels,
    mean_sagittal,
    measured,
    scan_of,
)
from export.training.figures import (
    ANGLES,
    COBB_LIMIT_DEG,
    Array,
    Group,
    bootstrap,
    chosen_images,
    constant_error,
    figures,
    tangent_waves,
)
from export.training.people import PersonScan, make_person, pack_names
from export.training.processes import ordered_map

COUNT = 100
PEOPLE_SEED = 60_000_000
SEEDS_PER_PERSON = 10_000

Person = tuple[str, ...]

# label, figure, least and most that meet it
TARGETS: tuple[tuple[str, str, float, float], ...] = (
    ("Cobb MAE at most 3.5 degrees", "cobb_mae_deg", 0, 3.5),
    ("Cobb bias within 1.5 degrees", "cobb_bias_deg", -1.5, 1.5),
    ("Cobb slope at least 0.9 up to 60 degrees", "cobb_slope", 0.9, math.inf),
    ("gain of tangents at least 0.8, 0 to 5 half-waves", "gain_least", 0.8, math.inf),
    ("coronal centre at most 0.9 mm", "coronal_centre_mae_mm", 0, 0.9),
    ("coronal borders at most 1.6 mm", "coronal_borders_mae_mm", 0, 1.6),
    ("sagittal at most 0.75 of the baseline", "sagittal_ratio", 0, 0.75),
    ("3D deviation at most 4.2 mm", "deviation3d_mm", 0, 4.2),
    ("IoU at least 0.72", "iou3d", 0.72, 1),
    ("kyphosis slope at least 0.5", "kyphosis_slope", 0.5, math.inf),
    ("lordosis slope at least 0.5", "lordosis_slope", 0.5, math.inf),
    ("body centres within 4 mm", "level_mae_mm", 0, 4),
    ("97 % of vertebrae named right", "level_named", 0.97, 1),
    ("ends within 4 mm", "ends_mae_mm", 0, 4),
    ("Cobb against endplates, MAE at most 3.5 degrees", "endplate_cobb_mae_deg", 0, 3.5),
    ("Cobb against endplates, bias within 1.5 degrees", "endplate_cobb_bias_deg", -1.5, 1.5),
    *((f"90 % interval of {angle} holds 0.88 to 0.92", f"{angle}_interval", 0.88, 0.92) for angle in ANGLES),
    ("coronal bands hold 0.88 to 0.93", "coronal_coverage", 0.88, 0.93),
    ("sagittal bands hold 0.88 to 0.93", "sagittal_coverage", 0.88, 0.93),
)
WORST = "sagittal never worse than the mean curve"


@dataclass
class Measured:
    """What the walk gave for the scans of one person.

    Attributes
    ----------
    model, baseline : list of dict
        One an accepted scan, see `row_of`.
    packs : set of str
        Packs that bone came from.
    refused : int
        Scans that the walk refused.
    seconds : float
        Time in the walk, without rendering, refused scans included.
    """

    model: list[dict[str, Any]] = field(default_factory=list)
    baseline: list[dict[str, Any]] = field(default_factory=list)
    packs: set[str] = field(default_factory=set)
    refused: int = 0
    seconds: float = 0.0


def choose_people(folder: Path, only: Sequence[str]) -> list[Person]:
    """Return the people to measure: those of `--only`, or each pack of the folder by itself.

    Raises
    ------
    UsageError
        The folder has no packs, a name is none of them, or a person is named twice.
    """
    packs = pack_names(folder)
    people = [tuple(text.split(",")) for text in only] or [(name,) for name in packs]
    unknown = sorted({name for person in people for name in person} - set(packs))
    if unknown:
        raise UsageError(f"no pack {', '.join(map(repr, unknown))} in {folder}; there are {', '.join(packs)}")
    for person in people:
        if len(person) > 2 or len(set(person)) < len(person):
            raise UsageError(f"{','.join(person)}: a person is one pack, or two different ones")
    if len(set(people)) < len(people):
        raise UsageError("--only names a person twice")
    return people


def seen_people(manifest: Mapping[str, Any], people: Sequence[Person]) -> list[Person]:
    """Return those people of whom training saw a pack, as far as the manifest says."""
    seen = set(manifest.get("training_people") or ())
    return [person for person in people if seen & set(person)]


def seeds_of(person: Person, count: int) -> range:
    """Seeds of a person's scans, the same whoever else is measured, and others than other people's.

    Raises
    ------
    UsageError
        `count` is larger than a person has seeds.
    """
    if count > SEEDS_PER_PERSON:
        raise UsageError(f"--count is {count}; with --people it may be at most {SEEDS_PER_PERSON}")
    first = PEOPLE_SEED + zlib.crc32(",".join(person).encode()) % 10_000 * SEEDS_PER_PERSON
    return range(first, first + count)


def row_of(found: Answer, truth: Answer) -> dict[str, Any]:
    """One image's values for the columns of a group in `export.training.figures`, but those of bands and baseline."""
    curves, true = found.curves, truth.curves
    coronal, sagittal = curves.coronal - true.coronal, curves.sagittal - true.sagittal
    row: dict[str, Any] = compare(found, truth)
    row["coronal_centre_mae_mm"] = float(np.abs(coronal[:, 1]).mean())
    row["coronal_borders_mae_mm"] = float(np.abs(coronal[:, [0, 2]]).mean())
    row["sagittal_centre_mae_mm"] = float(np.abs(sagittal[:, 1]).mean())
    row["sagittal_error_mm"] = sagittal[:, 1]
    for prefix, angles in (("", found.measurements), ("true_", truth.measurements)):
        row[f"{prefix}cobb_deg"] = angles.max_cobb_deg
        row[f"{prefix}kyphosis_deg"] = angles.kyphosis_t4_t12_deg
        row[f"{prefix}lordosis_deg"] = angles.lordosis_l1_l5_deg
    row["waves"] = tangent_waves(curves.coronal[:, 1], curves.z)
    row["true_waves"] = tangent_waves(true.coronal[:, 1], true.z)
    return row


def measure_person(
    estimator: SpineEstimator, names: Person, scans: Iterable[PersonScan], mean_curve: Array
) -> Measured:
    """Take one person's scans through the walk.

    Raises
    ------
    ValueError
        A scan has bone of a pack that is not this person's.
    """
    found = Measured()
    for scan in scans:
        if not set(scan.packs) <= set(names):
            raise ValueError(f"seed {scan.seed}: bone of {', '.join(scan.packs)} in a scan of {','.join(names)}")
        found.packs |= set(scan.packs)
        start = time.perf_counter()
        try:
            result = estimator(scan_of(scan))
        except Refusal:
            found.refused += 1
            continue
        finally:
            found.seconds += time.perf_counter() - start
        truth = measured(scan.truth(result.curves.z), scan.levels)
        guess = replace(truth.curves, sagittal=mean_curve * scan.model_pixel_mm)
        base = row_of(measured(guess, scan.levels), truth)
        row = row_of(result, truth)
        row |= judge_levels(result, scan)
        if result.band_90 is not None:
            row |= judge_bands(result.band_90, centre_errors(result.curves, truth.curves))
        row["baseline_sagittal_mae_mm"] = base["baseline_sagittal_mae_mm"] = base["sagittal_mae_mm"]
        found.model.append(row)
        found.baseline.append(base)
    return found


def group_of(rows: Sequence[Mapping[str, Any]]) -> Group:
    """Stack the values of a person's images to columns."""
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}


def summarise(people: Mapping[str, Measured], seen: Sequence[str] = ()) -> dict[str, Any]:
    """All figures of each person, of all, and of each class of true Cobb angle, as the JSON has them.

    Raises
    ------
    UsageError
        The walk refused every scan.
    """
    taken = {name: found for name, found in people.items() if found.model}
    if not taken:
        raise UsageError("no scan could be used: all were refused")
    model = {name: group_of(found.model) for name, found in taken.items()}
    baseline = {name: group_of(found.baseline) for name, found in taken.items()}
    persons: dict[str, Any] = {}
    for name, found in people.items():
        persons[name] = {"count": len(found.model), "refused": found.refused, "packs": sorted(found.packs)}
        persons[name]["seen_in_training"] = name in seen
        if name in taken:
            persons[name] |= _part([model[name]], [baseline[name]])
            curve, _, _ = constant_error(model[name]["sagittal_error_mm"])
            persons[name]["sagittal_constant_curve_mm"] = curve.round(3).tolist()
    models, baselines = list(model.values()), list(baseline.values())
    classes: dict[str, Any] = {}
    for label, low, high in CLASSES:
        chosen = chosen_images(models, low, high)
        classes[label] = {"count": 0}
        if chosen:
            classes[label] = _part(chosen, chosen_images(baselines, low, high))
    cobb = np.concatenate([group["true_cobb_deg"] for group in models])
    tried = sum(len(found.model) + found.refused for found in people.values())
    whole = _part(models, baselines)
    report = {
        **whole,
        "refused": sum(found.refused for found in people.values()),
        "seconds_per_image": sum(found.seconds for found in people.values()) / tried,
        "seen_in_training": list(seen),
        "true_cobb_range_deg": [float(cobb.min()), float(cobb.max())],
        "cobb_line_up_to_deg": COBB_LIMIT_DEG,
        "severity": classes,
        "people": persons,
        "targets": judge_targets(whole, {name: persons[name]["sagittal_ratio"] for name in taken}),
    }
    return _plain(report)


def judge_targets(overall: Mapping[str, float], ratios: Mapping[str, float]) -> list[dict[str, Any]]:
    """Compare figures with the targets; `ratios` are the sagittal ratios of each person. What is undefined is missed.

    Returns
    -------
    list of dict
        `target`, `value` and `met`, in the order of `TARGETS`, and last `WORST` with the person's name.
    """
    judged: list[dict[str, Any]] = []
    for label, figure, least, most in TARGETS:
        value = overall.get(figure, math.nan)
        judged.append({"target": label, "value": value, "met": least <= value <= most})
    worst = max(ratios, key=lambda name: ratios[name])
    judged.append({"target": WORST, "value": ratios[worst], "met": ratios[worst] <= 1, "person": worst})
    return judged


def evaluate_people(
    folder: Path,
    people: Sequence[Person],
    count: int,
    *,
    model: str | None = None,
    engine: str = "auto",
    workers: int = 1,
    allow_seen: bool = False,
) -> dict[str, Any]:
    """Evaluate a bundle on `count` scans of each person, rendered in `workers` processes.

    Raises
    ------
    UsageError
        Training saw a person and `allow_seen` is not set, or the walk refused every scan.
    """
    bundle = load_bundle(model)
    seen = [",".join(person) for person in seen_people(bundle.manifest, people)]
    if seen and not allow_seen:
        raise UsageError(
            f"{'; '.join(seen)} was in training: no figure on people that training saw counts (--seen marks them)"
        )
    seeds = {person: seeds_of(person, count) for person in people}

    mean_curve = mean_sagittal()
    found: dict[str, Measured] = {}
    with (
        ordered_map(workers, chunk=4) as mapped,
        SpineEstimator(engine=engine, model=model) as estimator,
        tqdm(total=count * len(people), unit="scan", disable=None) as bar,
    ):
        for person in people:
            scans = mapped(partial(make_person, folder, person), seeds[person])
            found[",".join(person)] = measure_person(estimator, person, _counted(scans, bar), mean_curve)
        named = dict(estimator.model)
    training = bundle.manifest.get("training_people")
    return {**summarise(found, seen), "model": named, "training_people": training}


def _counted(scans: Iterable[PersonScan], bar: Any) -> Iterable[PersonScan]:
    for scan in scans:
        yield scan
        bar.update()


def _part(model: Sequence[Group], baseline: Sequence[Group]) -> dict[str, Any]:
    several = len(model) > 1
    return {
        "count": sum(len(group["true_cobb_deg"]) for group in model),
        **figures(model),
        "interval_95_images": bootstrap(model, over_people=False),
        "interval_95_people": bootstrap(model, over_people=True) if several else None,
        "baseline": figures(baseline),
    }


def _plain(value: Any) -> Any:
    """Replace numbers that are not finite by None, which JSON writes as null."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
