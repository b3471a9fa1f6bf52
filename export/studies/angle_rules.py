"""How well do rules for angles agree with endplates? `python -m export.studies.angle_rules --count 250`.

Subjects are drawn, with exact centrelines, levels and tilts of their vertebral bodies. Each rule's Cobb angle, kyphosis
T4 to T12 and lordosis L1 to L5 are compared with those between the tilts of the bodies: the chords to the neighbouring
body centres (`edge_spine.measure`), and the tangents of the smooth centreline at the body centres.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from edge_spine.measure import KYPHOSIS, LORDOSIS, cobb_deg, vertebra_tilts
from edge_spine.reconstruct import reconstruct
from edge_spine.smooth_fit import fit
from edge_spine.vertebrae import LEVELS
from export.training.dataset import EVALUATION_SEED
from export.training.phantoms.phantom import Subject, make_subject

RULES = ("chords", "tangents")
ANGLES = ("Cobb", "kyphosis", "lordosis")

Array = NDArray[np.float64]


def angles(tilts_deg: Array) -> list[float]:
    """Return Cobb angle, kyphosis and lordosis of the tilts (17, 2) of vertebrae, degrees."""
    sagittal = dict(zip(LEVELS, tilts_deg[:, 1].tolist(), strict=True))
    return [
        cobb_deg(tilts_deg[:, 0]),
        sagittal[KYPHOSIS[0]] - sagittal[KYPHOSIS[1]],
        sagittal[LORDOSIS[1]] - sagittal[LORDOSIS[0]],
    ]


def errors(subject: Subject) -> Array:
    """Return the errors of each rule, (2, 3) degrees."""
    line = reconstruct(subject.truth(subject.trunk_heights_mm)).centreline
    down = line[0, 2] - line[:, 2]
    fitted, slope = fit(down, line[:, :2])
    stations = line[0, 2] - subject.levels.stations
    tangents = np.degrees(np.arctan([np.interp(stations[1:-1], down, column) for column in slope.T])).T
    found = [angles(vertebra_tilts(stations, down, fitted)), angles(tangents)]
    return np.array(found) - angles(subject.tilts_deg)


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m export.studies.angle_rules", description=__doc__)
    parser.add_argument("--count", type=int, default=250, help="subjects (default %(default)s)")
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED)
    options = parser.parse_args(argv)
    if options.count < 1:
        parser.error("--count must be at least 1")
    wrong = np.stack([errors(make_subject(options.seed + k)) for k in range(options.count)])
    print(f"{'degrees':10}" + "".join(f"{angle + ' bias':>16}{'MAE':>8}" for angle in ANGLES))
    for number, rule in enumerate(RULES):
        columns = zip(wrong[:, number].mean(axis=0), np.abs(wrong[:, number]).mean(axis=0), strict=True)
        print(f"{rule:10}" + "".join(f"{bias:16.2f}{size:8.2f}" for bias, size in columns))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
