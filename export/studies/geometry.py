"""Measure how often a wrong pixel spacing is noticed: `python -m export.studies.geometry --count 400 --people PACKS`.

Phantoms, and people if there are packs of bone, are scanned and read with spacings that are right, too large or too
small in both directions alike (scale) or in one (aspect). A case is caught where the runtime flags or refuses it. Every
scan is tried as it is and cut to the body with a margin on each side, so that the shape of its image tells nothing.
`--fit` prints the constants of `edge_spine.preprocessing.geometry` instead, from other subjects.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_spine import read_scan
from edge_spine.bundle import load_bundle
from edge_spine.errors import Refusal, UsageError
from edge_spine.preprocessing import prepare
from edge_spine.preprocessing.body import find_body
from edge_spine.preprocessing.geometry import body_lengths, check_geometry
from edge_spine.preprocessing.locator import Localiser
from edge_spine.processors import usable_cores
from edge_spine.scan import Scan
from export.options import report_file
from export.training.dataset import Maker, makers_of
from export.training.processes import ordered_map

FIT_SEED, SEED = 60_000_000, 61_000_000
# factors on row and column spacing
CASES = {
    "right": (1.0, 1.0),
    "scale x 1.15": (1.15, 1.15),
    "scale x 0.85": (0.85, 0.85),
    "columns x 1.1": (1.0, 1.1),
    "columns x 0.9": (1.0, 0.9),
    "rows x 1.1": (1.1, 1.0),
    "rows x 0.9": (0.9, 1.0),
}
# the shape of the image tells of the scale alone
FRAMES = {"whole image": tuple(CASES), "cut to the body": ("right", "scale x 1.15", "scale x 0.85")}
# spread of each length among adults of one size that phantoms lack, natural logarithm
WIDENING = (0.02, 0.03, 0.01, 0.01)
_MARGIN_PX = 60


@dataclass(frozen=True)
class Answer:
    """What the runtime says to one case: "" where it says nothing, else its first flag or the code of its refusal."""

    group: str
    frame: str
    case: str
    said: str


def cut_to_body(scan: Scan, rng: np.random.Generator) -> Scan:
    """Cut an image to the body, with random margins."""
    mask = find_body(scan.pixels).mask
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    margin = rng.integers(4, _MARGIN_PX, 4)
    part = (
        slice(max(0, rows[0] - margin[0]), rows[-1] + margin[1]),
        slice(max(0, columns[0] - margin[2]), columns[-1] + margin[3]),
    )
    return Scan(np.ascontiguousarray(scan.pixels[part]), scan.pixel_spacing_mm, scan.source, None)


def answers(group: str, scan: Scan, localiser: Localiser, rng: np.random.Generator) -> Iterator[Answer]:
    """Try every case on a scan."""
    for frame, shown in zip(FRAMES, (scan, cut_to_body(scan, rng)), strict=True):
        for case in FRAMES[frame]:
            on_rows, on_columns = CASES[case]
            row_mm, column_mm = scan.pixel_spacing_mm
            changed = Scan(shown.pixels, (row_mm * on_rows, column_mm * on_columns), scan.source, None)
            try:
                said = next(iter(check_geometry(changed, prepare(changed, localiser))), "")
            except Refusal as refusal:
                said = refusal.code
            yield Answer(group, frame, case, said)


_localiser: Localiser


def _open() -> None:
    global _localiser
    cv2.setNumThreads(1)
    bundle = load_bundle(None)
    _localiser = Localiser(bundle.read(bundle.file_with_role("localiser")))


def _scan(make: Maker, seed: int) -> Scan:
    made = make(seed)
    return Scan(made.bone.astype(np.float32), made.framing.pixel_mm, str(seed), None)


def _tried(task: tuple[str, Maker, int]) -> list[Answer]:
    group, make, seed = task
    return list(answers(group, _scan(make, seed), _localiser, np.random.default_rng(seed)))


def _measured(task: tuple[str, Maker, int]) -> NDArray[np.float64]:
    scan = _scan(*task[1:])
    try:
        return body_lengths(prepare(scan, _localiser))
    except Refusal:
        return np.full(len(WIDENING), np.nan)


def fit(lengths_mm: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means and covariance of the logarithms of (N, 4) lengths, widened; rows with nan are left out."""
    logs = np.log(lengths_mm[np.isfinite(lengths_mm).all(axis=1)])
    return logs.mean(axis=0), np.cov(logs.T) + np.diag(np.square(WIDENING))


def table(found: list[Answer]) -> str:
    """Return the shares of cases with a flag or a refusal as Markdown."""
    columns = list(dict.fromkeys((answer.group, answer.frame) for answer in found))
    lines = ["| spacing | " + " | ".join(f"{group}, {frame}" for group, frame in columns) + " |"]
    lines.append("|" + "---|" * (len(columns) + 1))
    for case in CASES:
        cells = []
        for column in columns:
            said = Counter(a.said for a in found if (a.group, a.frame) == column and a.case == case)
            if not said:
                cells.append("-")
                continue
            total, silent = said.total(), said.pop("", 0)
            kinds = f" ({', '.join(f'{kind} {count}' for kind, count in said.most_common())})" if said else ""
            cells.append(f"{100 * (1 - silent / total):.1f} % of {total}{kinds}")
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure how often wrong spacings are caught, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m export.studies.geometry", description=__doc__)
    parser.add_argument("--count", type=int, default=400, help="phantoms, and as many people (default %(default)s)")
    parser.add_argument("--people", type=Path, metavar="DIR", help="folder with packs of bone")
    parser.add_argument("--scan", type=Path, metavar="FILE", help="a real scan, tried in the same way")
    parser.add_argument("--fit", action="store_true", help="print the constants of the runtime instead")
    parser.add_argument("--workers", type=int, default=usable_cores())
    parser.add_argument("--json", type=report_file, metavar="FILE", help="write every answer here too")
    options = parser.parse_args(argv)
    try:
        makers = makers_of(options.people)
    except UsageError as error:
        parser.error(str(error))
    first = FIT_SEED if options.fit else SEED
    tasks = [(group, make, first + k) for k in range(options.count) for group, make in makers.items()]
    with ordered_map(options.workers, _open, chunk=4) as mapped:
        if options.fit:
            means, covariance = fit(np.array(list(mapped(_measured, tasks))))
            print(f"MEANS = np.array({np.round(means, 4).tolist()})")
            print(f"COVARIANCE = np.array({np.round(covariance, 7).tolist()})")
            return 0
        found: list[Answer] = [answer for part in mapped(_tried, tasks) for answer in part]
    if options.scan is not None:
        _open()
        scan = read_scan(options.scan)
        rng = np.random.default_rng(SEED)
        for _ in range(20):
            found += answers("real scan", scan, _localiser, rng)
    print(table(sorted(found, key=lambda answer: [*makers, "real scan"].index(answer.group))))
    if options.json:
        rows: list[Any] = [vars(answer) for answer in found]
        options.json.write_text(json.dumps(rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
