"""Rank mixtures of training data by a ridge regression on frozen features, tested on left-out people.

`python -m export.studies.mixtures --phantoms DIR --people DIR --mesh myosim,xcat50 --weights
export/weights/spine.safetensors --out DIR` prints a Markdown table. Every mixture has the same budget of images. In
turn each person, a set of bone packs, is left out with all samples that share a pack with it; a mixture is drawn from
the rest and fitted, its penalty chosen by leaving out people of the training side. Errors are those of the coronal
and of the sagittal centre at nominal pixel size. A person's constant error is the part of each row's error that all
of its images share. Intervals are over packs: packs are drawn with replacement, and a person weighs the product of
its packs' counts, since people that share a pack are not independent (Owen, The pigeonhole bootstrap, 2007).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from export.checkpoint import load_regressor
from export.options import report_file
from export.regressor import SpineRegressor
from export.studies.frozen import Frozen, kernel_of, load_frozen
from export.studies.ridge import Fold, Ridge, Rows, fit_ridge

NOMINAL_PIXEL_MM = 2.15
MIXTURES: dict[str, dict[str, float]] = {
    "phantoms": {"phantom": 1.0},
    "phantoms, mesh": {"phantom": 0.5, "mesh": 0.5},
    "phantoms, CT": {"phantom": 0.5, "ct": 0.5},
    "phantoms, mesh, CT": {"phantom": 0.5, "mesh": 0.25, "ct": 0.25},
    "mesh, CT": {"mesh": 0.5, "ct": 0.5},
}
FIRST = next(iter(MIXTURES))
MEAN, NETWORK = "mean curve", "trained network"
# Phantoms that no mixture is trained on.
HELD_OUT_SHARE, MOST_HELD_OUT = 0.2, 100
SHAPES = 32
INNER_PEOPLE, PHANTOM_FOLDS = 8, 5
_VIEWS = {"coronal": slice(0, 3), "sagittal": slice(3, 6)}

Person = frozenset[str]
Packs = Sequence[Person]
# Coronal and sagittal centre errors of images, mm: (images, 209, 2).
Errors = NDArray[np.float64]


def kinds_of(packs: Packs, mesh: frozenset[str]) -> NDArray[np.str_]:
    """Return the kind of each sample: "phantom", "mesh" if all of its packs are meshes, otherwise "ct"."""
    return np.array(["phantom" if not names else "mesh" if names <= mesh else "ct" for names in packs])


def exclude(packs: Packs, person: Person) -> Rows:
    """Return the samples that share no pack with a person, in order."""
    return np.array([k for k, names in enumerate(packs) if not names & person], dtype=np.int64)


def mixture(
    rng: np.random.Generator,
    rows: Rows,
    packs: Packs,
    kinds: NDArray[np.str_],
    shares: dict[str, float],
    budget: int,
) -> Rows | None:
    """Draw `budget` of the samples `rows` without repetition, equally from each person of a kind.

    Parameters
    ----------
    rows : (r,) int array
        Samples that may be drawn.
    packs, kinds : of all samples
    shares : dict
        Fraction of the budget of each kind; each phantom is one person.

    Returns
    -------
    (budget,) int array, ascending, or None
        None if a kind has too few samples.
    """
    ends = np.round(np.cumsum(list(shares.values())) * budget).astype(int)
    wanted = np.diff(ends, prepend=0)
    drawn: list[int] = []
    for kind, count in zip(shares, wanted, strict=True):
        queues: dict[Any, list[int]] = {}
        for row in rng.permutation(rows[kinds[rows] == kind]):
            queues.setdefault(packs[row] or int(row), []).append(int(row))
        if sum(map(len, queues.values())) < count:
            return None
        # The first of each person, then the second of each, up to the budget.
        turns = [(turn, row) for queue in queues.values() for turn, row in enumerate(queue)]
        turns.sort(key=lambda pair: pair[0])
        drawn += [row for _, row in turns[:count]]
    return np.sort(np.array(drawn, dtype=np.int64))


def inner_folds(rng: np.random.Generator, packs: Packs) -> list[Fold]:
    """Return folds that leave out people of a training set, or parts of the set if too little would remain.

    Parameters
    ----------
    packs : of the training set's samples

    Returns
    -------
    list of Fold
        Each tests one person and removes all samples that share a pack with it; at most 8 people.
    """
    # Sorted for reproducible draws in every process.
    people = sorted({names for names in packs if names}, key=sorted)
    folds = []
    for k in rng.permutation(len(people))[:INNER_PEOPLE]:
        removed = np.setdiff1d(np.arange(len(packs)), exclude(packs, people[k]))
        judged = np.array([row for row in removed if packs[row] == people[k]], dtype=np.int64)
        if len(removed) <= 0.8 * len(packs):
            folds.append(Fold(removed, judged))
    if not folds:
        order = rng.permutation(len(packs))
        parts = [np.sort(order[k::PHANTOM_FOLDS]) for k in range(PHANTOM_FOLDS)]
        folds = [Fold(part, part) for part in parts if len(part)]
    return folds


def over_views(rows: Rows, views: int, count: int) -> Rows:
    """Return the rows of all views of samples, with `count` rows per view."""
    return np.concatenate([rows + count * view for view in range(views)])


class Mixer:
    """Ridge fits on rows of one kernel.

    Parameters
    ----------
    data : Frozen
        All samples.
    kernel : (views * N, views * N) array
        From `frozen.kernel_of`, the views one after another.
    """

    def __init__(self, data: Frozen, kernel: NDArray[np.float32]) -> None:
        self.views, self.count = data.targets.shape[:2]
        self.packs = data.packs
        self.targets = data.targets.reshape(-1, *data.targets.shape[2:])
        self.kernel = kernel
        self._fits: dict[bytes, tuple[list[Ridge], list[NDArray[np.float64]], list[NDArray[np.float64]]]] = {}

    def errors(self, train: Rows, test: Rows, seed: int) -> tuple[Errors, Errors, list[float]]:
        """Fit samples `train`; return errors of the fit and of the mean curve on samples `test`, and the penalties."""
        rows = over_views(train, self.views, self.count)
        key = train.tobytes()
        if key not in self._fits:
            folds = [
                Fold(over_views(f.removed, self.views, len(train)), f.judged)
                for f in inner_folds(np.random.default_rng(seed), [self.packs[row] for row in train])
            ]
            means, shapes, weights = [], [], []
            for columns in _VIEWS.values():
                block = self.targets[rows][:, :, columns].reshape(len(rows), -1).astype(np.float64)
                means.append(block.mean(axis=0))
                shapes.append(principal_shapes(block - means[-1]))
                weights.append((block - means[-1]) @ shapes[-1].T)
            # Phantoms alone are the same set for every left-out person.
            self._fits = {key: (fit_ridge(self.kernel[np.ix_(rows, rows)], weights, folds), means, shapes)}
        fits, means, shapes = self._fits[key]
        cross = self.kernel[np.ix_(test, rows)]
        answers = [m + f.predict(cross) @ s for f, m, s in zip(fits, means, shapes, strict=True)]
        truth = self.targets[test][:, :, [1, 4]]
        said = np.stack([a.reshape(len(test), -1, 3)[:, :, 1] for a in answers], axis=2)
        mean = np.stack([m.reshape(-1, 3)[:, 1] for m in means], axis=1)
        return (said - truth) * NOMINAL_PIXEL_MM, (mean - truth) * NOMINAL_PIXEL_MM, [f.penalty for f in fits]


def principal_shapes(deviations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return at most 32 orthonormal principal shapes of deviations (n, columns) from their mean."""
    shapes: NDArray[np.float64] = np.linalg.svd(deviations, full_matrices=False)[2][:SHAPES]
    return shapes


def figures(errors: Errors) -> dict[str, float]:
    """Return the mean absolute error of one person's images (n, 209, 2), its constant part, and the rest."""
    constant = errors.mean(axis=0)
    found = {}
    for column, view in enumerate(_VIEWS):
        found[f"{view}_mm"] = float(np.abs(errors[:, :, column]).mean())
        found[f"{view}_constant_mm"] = float(np.abs(constant[:, column]).mean())
        found[f"{view}_rest_mm"] = float(np.abs(errors - constant)[:, :, column].mean())
    return found


def interval_over_packs(values: NDArray[np.float64], people: Sequence[Person]) -> tuple[float, float]:
    """Return the 95 % pigeonhole bootstrap interval over packs of the mean of people's values."""
    rng = np.random.default_rng(0)
    names = sorted(set().union(*people))
    member = np.array([[name in person for name in names] for person in people])
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=2000)
    weights = np.where(member[None], counts[:, None, :], 1).prod(axis=2)
    weights = weights[weights.sum(axis=1) > 0]
    means = (weights * values).sum(axis=1) / weights.sum(axis=1)
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


def compare(
    data: Frozen, kinds: NDArray[np.str_], kernel: NDArray[np.float32], budgets: Sequence[int], draws: int, kept: Rows
) -> dict[str, Any]:
    """Test each mixture on each left-out person.

    Parameters
    ----------
    kinds : (N,) array
        From `kinds_of`.
    kept : int array
        Phantoms that no mixture is trained on, tested in addition.

    Returns
    -------
    dict
        ``people`` (name: images) and ``rows``: one for each answer and budget, with `figures` of each person.
    """
    people = sorted({names for names in data.packs if names}, key=sorted)
    names = ["+".join(sorted(person)) for person in people]
    tests = [np.array([k for k, pack in enumerate(data.packs) if pack == person]) for person in people]
    mixer = Mixer(data, kernel)
    rows: list[dict[str, Any]] = []
    own = (data.answers - data.targets[0])[:, :, [1, 4]].astype(np.float64) * NOMINAL_PIXEL_MM
    rows.append(_row(NETWORK, None, [figures(own[t]) for t in tests], people, figures(own[kept])))
    bar = tqdm(total=len(budgets) * len(MIXTURES) * draws * len(people), unit="fit", disable=None)
    for budget in budgets:
        means: list[dict[str, float]] = []
        for name, shares in MIXTURES.items():
            found: list[list[dict[str, float]]] = [[] for _ in people]
            mean_found: list[list[dict[str, float]]] = [[] for _ in people]
            phantoms: list[dict[str, float]] = []
            mean_phantoms: list[dict[str, float]] = []
            penalties: list[list[float]] = []
            for draw in range(draws):
                for k, person in enumerate(people):
                    allowed = np.setdiff1d(exclude(data.packs, person), kept)
                    rng = np.random.default_rng(draw)
                    train = mixture(rng, allowed, data.packs, kinds, shares, budget)
                    bar.update()
                    if train is None:
                        continue
                    error, mean, penalty = mixer.errors(train, np.concatenate([tests[k], kept]), draw)
                    split = len(tests[k])
                    found[k].append(figures(error[:split]))
                    mean_found[k].append(figures(mean[:split]))
                    phantoms.append(figures(error[split:]))
                    mean_phantoms.append(figures(mean[split:]))
                    penalties.append(penalty)
            if not all(found):
                short = sum(not one for one in found)
                rows.append({"mixture": name, "budget": budget, "too_few_images_for_people": short})
                continue
            row = _row(name, budget, [_mean(one) for one in found], people, _mean(phantoms))
            row["penalties"] = np.median(penalties, axis=0).tolist()
            if name == FIRST:
                means = [_mean(one) for one in mean_found]
                rows.append(_row(MEAN, budget, means, people, _mean(mean_phantoms)))
            rows.append(row)
    bar.close()
    _add_differences(rows, people)
    return {"people": {name: len(test) for name, test in zip(names, tests, strict=True)}, "rows": rows}


def _mean(found: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([one[key] for one in found])) for key in found[0]}


def _row(
    name: str, budget: int | None, found: list[dict[str, float]], people: list[Person], phantoms: dict[str, float]
) -> dict[str, Any]:
    columns = {key: np.array([one[key] for one in found]) for key in found[0]}
    return {
        "mixture": name,
        "budget": budget,
        "mean": {key: float(values.mean()) for key, values in columns.items()},
        "interval_95": {key: list(interval_over_packs(values, people)) for key, values in columns.items()},
        "people": {key: values.tolist() for key, values in columns.items()},
        "held_out_phantoms": phantoms,
    }


def _add_differences(rows: list[dict[str, Any]], people: list[Person]) -> None:
    """Add to each mixture the difference of its sagittal error to that of phantoms alone, person by person."""
    alone = {row["budget"]: row for row in rows if row["mixture"] == FIRST and "mean" in row}
    for row in rows:
        if row["mixture"] != FIRST and row["budget"] in alone and "mean" in row:
            first = alone[row["budget"]]["people"]["sagittal_mm"]
            change = np.array(row["people"]["sagittal_mm"]) - np.array(first)
            row["sagittal_change_mm"] = {
                "mean": float(change.mean()),
                "interval_95": list(interval_over_packs(change, people)),
            }


def table(report: dict[str, Any]) -> str:
    """Return the comparison as Markdown."""
    people, images = len(report["people"]), sum(report["people"].values())
    lines = [
        f"{people} people left out in turn, {images} images; mean absolute error of the centre, mm [95 % over packs]",
        "",
        "| answers from | images | coronal | sagittal | against phantoms alone | constant | rest "
        "| phantoms: coronal, sagittal |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        budget = row["budget"] or "-"
        if "mean" not in row:
            lines.append(f"| {row['mixture']} | {budget} | too few images | | | | | |")
            continue
        views = ["{:.2f} [{:.2f}, {:.2f}]".format(row["mean"][k], *row["interval_95"][k]) for k in _COLUMNS[:2]]
        change = row.get("sagittal_change_mm")
        shown = "-" if change is None else "{:+.2f} [{:+.2f}, {:+.2f}]".format(change["mean"], *change["interval_95"])
        parts = [f"{row['mean'][key]:.2f}" for key in _COLUMNS[2:]]
        phantom = ", ".join(f"{row['held_out_phantoms'][key]:.2f}" for key in _COLUMNS[:2])
        lines.append("| " + " | ".join([row["mixture"], str(budget), *views, shown, *parts, phantom]) + " |")
    return "\n".join(lines)


_COLUMNS = ("coronal_mm", "sagittal_mm", "sagittal_constant_mm", "sagittal_rest_mm")


def names_list(text: str) -> frozenset[str]:
    """Split names at commas."""
    return frozenset(name for name in text.split(",") if name)


def main(argv: list[str] | None = None) -> int:
    """Compare from the command line."""
    parser = argparse.ArgumentParser(prog="python -m export.studies.mixtures", description=__doc__)
    parser.add_argument("--phantoms", type=Path, required=True, help="folder of shards of phantoms")
    parser.add_argument("--people", type=Path, required=True, help="folder of shards with `packs`")
    parser.add_argument(
        "--mesh", type=names_list, required=True, help="packs that are meshes, NAME,NAME; others are CT"
    )
    parser.add_argument("--weights", type=Path, required=True, help="the trained network")
    parser.add_argument("--out", type=Path, required=True, help="features are kept here")
    parser.add_argument("--images", type=int, default=2000, help="most samples of a folder (default 2000)")
    parser.add_argument("--budgets", type=int, nargs="+", default=[400, 1200])
    parser.add_argument("--draws", type=int, default=2, help="sets drawn for each mixture (default 2)")
    parser.add_argument("--grid", type=int, nargs=2, default=(7, 3), help="rows and columns of features")
    parser.add_argument("--views", type=int, choices=(1, 2), default=1, help="2 adds an augmented view of each sample")
    parser.add_argument("--json", type=report_file, help="write the figures here as well")
    options = parser.parse_args(argv)
    model, _ = load_regressor(options.weights)
    if not isinstance(model, SpineRegressor):
        parser.error("--weights: the published network is expected, this is spine-lite")
    key = hashlib.sha256(options.weights.read_bytes()).hexdigest()
    model = model.eval().to(memory_format=torch.channels_last)
    folders = [options.phantoms, options.people]
    data = load_frozen(folders, model, key, options.out, tuple(options.grid), options.views, options.images)
    kinds = kinds_of(data.packs, options.mesh)
    phantoms = np.flatnonzero(kinds == "phantom")
    kept = phantoms[-min(MOST_HELD_OUT, max(1, int(HELD_OUT_SHARE * len(phantoms)))) :]
    reference = np.tile((kinds == "phantom") & ~np.isin(np.arange(len(kinds)), kept), options.views)
    kernel = kernel_of(data.features.reshape(-1, data.features.shape[-1]), reference)
    report = compare(data, kinds, kernel, options.budgets, options.draws, kept)
    print(table(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
