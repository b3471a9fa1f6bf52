"""Turn errors of angles into 90 % intervals: `python -m export.training.calibrate` adds them to a bundle.

The error of an angle is its difference from that between the endplates of the same vertebrae. The half-width of an
interval is the 90 % quantile of the absolute errors (split conformal prediction). Where there are people, they alone
give it, each weighing the same, widened for their small number as the bands are (`export.training.people_bands`);
phantoms, whose angles are read with other errors, give it where there are none.
Cobb angles have one interval for each class of measured size, since their errors grow with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.bundle.bands import ANGLES_SCHEMA, NOMINAL
from edge_spine.errors import UsageError
from export.training.people_bands import constant_share, inflation, pooled_quantile
from export.training.walk_errors import Errors

# least measured Cobb angle of each class, degrees
COBB_FROM_DEG = (0.0, 10.0, 25.0, 40.0)
LEAST_SCANS = 10
METHOD = (
    "90 % quantile of absolute errors against endplates, of phantoms or, where there are people, of these alone, each "
    "weighing the same, times t / z at 95 % with people / share^2 degrees of freedom, share being the part of the mean "
    "square error that is constant within a person; Cobb angles by class of measured size"
)

Array = NDArray[np.float64]


def angles_block(
    errors: Errors, people: Mapping[str, Errors], calibrated_on: str, weights_sha256: str
) -> dict[str, Any]:
    """Return the errors of the angles as a manifest holds them.

    Parameters
    ----------
    errors : Errors
        Of phantoms.
    people : mapping of Errors
        By person; where it is empty, the phantoms give the intervals.
    calibrated_on, weights_sha256 : str
        As in the block of the bands.

    Raises
    ------
    UsageError
        There are fewer than `LEAST_SCANS` scans.
    """
    groups = list(people.values()) or [errors]
    least = classes_of(np.concatenate([group.cobb_deg for group in groups]))
    cobb = []
    for low, high in pairwise([*least, math.inf]):
        cobb.append(half_width([g.angles_deg[(g.cobb_deg >= low) & (g.cobb_deg < high), 0] for g in groups]))
    kyphosis, lordosis = (half_width([group.angles_deg[:, column] for group in groups]) for column in (1, 2))
    return {
        "schema": ANGLES_SCHEMA,
        "nominal": NOMINAL,
        "cobb_from_deg": least,
        "cobb_deg": cobb,
        "kyphosis_deg": kyphosis,
        "lordosis_deg": lordosis,
        "count": sum(len(group.cobb_deg) for group in groups),
        "calibrated_on": calibrated_on,
        "method": METHOD,
        "weights_sha256": weights_sha256,
    }


def classes_of(cobb_deg: Array) -> list[float]:
    """Return the least angle of each class; one with fewer than `LEAST_SCANS` scans is joined to a neighbour.

    Raises
    ------
    UsageError
        There are fewer scans than that in all.
    """
    if len(cobb_deg) < LEAST_SCANS:
        raise UsageError(f"{len(cobb_deg)} scans are too few for intervals of angles, {LEAST_SCANS} are needed")
    kept: list[float] = []
    high = math.inf
    for low in reversed(COBB_FROM_DEG):
        if low == 0 or ((cobb_deg >= low) & (cobb_deg < high)).sum() >= LEAST_SCANS:
            kept.insert(0, low)
            high = low
    if len(kept) > 1 and (cobb_deg < kept[1]).sum() < LEAST_SCANS:
        del kept[1]
    return kept


def half_width(groups: Sequence[Array]) -> float:
    """Return the half-width, degrees, from each group's signed errors; groups of fewer than two are left out."""
    columns = [group[:, np.newaxis] for group in groups if len(group) > 1]
    quantile = float(pooled_quantile([np.abs(column) for column in columns])[0])
    wider = inflation(len(columns), constant_share(columns)) if len(columns) > 1 else 1.0
    return round(quantile * wider, 2)


def interval_lines(block: Mapping[str, Any], groups: Mapping[str, Errors]) -> list[str]:
    """Return a table of how often the intervals of a block hold in each group, and of their half-widths."""
    lines = [f"{'90 % intervals of angles hold':32}      Cobb  kyphosis  lordosis"]
    for name, errors in groups.items():
        of = np.searchsorted(block["cobb_from_deg"], errors.cobb_deg, side="right") - 1
        half = (np.array(block["cobb_deg"])[of], block["kyphosis_deg"], block["lordosis_deg"])
        held = [float((np.abs(errors.angles_deg[:, k]) <= half[k]).mean()) for k in range(3)]
        lines.append(f"{name:32}" + "".join(f"{share:10.1%}" for share in held))
    cobb = ", ".join(
        f"{width:.1f} from {least:g}" for least, width in zip(block["cobb_from_deg"], block["cobb_deg"], strict=True)
    )
    return [*lines, f"half-widths, degrees: Cobb {cobb}; {block['kyphosis_deg']}; {block['lordosis_deg']}"]
