"""How the side view varies among those the model has learnt from: carried by the bundle, drawn behind a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_spine.layout import CROP_SIZE, ROWS
from edge_spine.measure import Measurements

SCHEMA = "edge-spine/population/2"
# as before bundles had limits of angles
OLD_SCHEMA = "edge-spine/population/1"
SHARE = 0.9
# the angles' limits lie at the first and the 99th percentile
ANGLE_SHARE = 0.98
ANGLES = ("kyphosis_deg", "lordosis_deg")
ANGLES_OF = ("true curves", "answers")
UNIT = "crop pixels"
FLAG = "side-view-atypical"
_SIDES = ("low", "high")
_OLD_KEYS = {"schema", "share", "unit", "count", "described", *_SIDES}
_KEYS = {*_OLD_KEYS, *ANGLES, "angles_of"}

Limits: TypeAlias = tuple[float, float]


@dataclass(frozen=True, eq=False)
class PopulationRange:
    """Between which places 90 % of the population has the sagittal centre of each row, each row by itself.

    Attributes
    ----------
    low, high : (209,) array
        Relative to the centreline's mean; larger is more posterior. Crop pixels in a bundle, mm in a result.
    kyphosis_deg, lordosis_deg : (float, float), optional
        Central 98 % of the population's angles; None where the bundle does not say.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    kyphosis_deg: Limits | None = None
    lordosis_deg: Limits | None = None

    def at(self, model_pixel_mm: float) -> PopulationRange:
        """Return the range in mm for a scan whose crop pixel has this side."""
        return replace(self, low=self.low * model_pixel_mm, high=self.high * model_pixel_mm)

    def is_atypical(self, measurements: Measurements) -> bool:
        """Return whether the kyphosis or the lordosis lies outside the limits; False without limits."""
        for limits, angle in (
            (self.kyphosis_deg, measurements.kyphosis_t4_t12_deg),
            (self.lordosis_deg, measurements.lordosis_l1_l5_deg),
        ):
            if limits is not None and not limits[0] <= angle <= limits[1]:
                return True
        return False


def population_problem(population: object) -> str | None:
    """Say what is wrong with a range as it lies in a manifest, or None."""
    if not isinstance(population, dict):
        return "an object is expected"
    if population.get("schema") not in (SCHEMA, OLD_SCHEMA):
        return f"'schema' must be {SCHEMA!r} or {OLD_SCHEMA!r}"
    keys = _KEYS if population["schema"] == SCHEMA else _OLD_KEYS
    if set(population) != keys:
        return f"an object with {', '.join(sorted(keys))} is expected"
    for key, wanted in (("share", SHARE), ("unit", UNIT)):
        if population[key] != wanted:
            return f"{key!r} must be {wanted!r}"
    for side in _SIDES:
        rows = population[side]
        if not isinstance(rows, list) or len(rows) != ROWS or not all(map(_is_place, rows)):
            return f"{side!r} must be {ROWS} numbers between -{CROP_SIZE} and {CROP_SIZE}"
    if not all(low < high for low, high in zip(population["low"], population["high"], strict=True)):
        return "'low' must be below 'high' in every row"
    if isinstance(population["count"], bool) or not isinstance(population["count"], int) or population["count"] <= 0:
        return "'count' must be a positive number of subjects"
    if not isinstance(population["described"], str) or not population["described"].strip():
        return "'described' must be a text"
    for name in ANGLES if population["schema"] == SCHEMA else ():
        limits = population[name]
        if not isinstance(limits, list) or len(limits) != 2 or not all(map(_is_angle, limits)):
            return f"{name!r} must be two angles between -180 and 180"
        if limits[0] >= limits[1]:
            return f"{name!r} must begin with the lower limit"
    if "angles_of" in population and population["angles_of"] not in ANGLES_OF:
        return f"'angles_of' must be {' or '.join(map(repr, ANGLES_OF))}"
    return None


def parsed_population(population: Mapping[str, Any]) -> PopulationRange:
    """Turn a range that has no problem into arrays."""
    low, high = (np.array(population[side], dtype=np.float64) for side in _SIDES)
    kyphosis, lordosis = (_limits(population[name]) if name in population else None for name in ANGLES)
    return PopulationRange(low, high, kyphosis, lordosis)


def _is_place(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and -CROP_SIZE < value < CROP_SIZE


def _is_angle(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and -180 < value < 180


def _limits(values: Sequence[float]) -> Limits:
    low, high = values
    return float(low), float(high)
