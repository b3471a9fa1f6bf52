"""How the side view varies among those the model has learnt from: carried by the bundle, drawn behind a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.layout import CROP_SIZE, ROWS

SCHEMA = "edge-spine/population/1"
SHARE = 0.9
UNIT = "crop pixels"
_SIDES = ("low", "high")
_KEYS = {"schema", "share", "unit", "count", "described", *_SIDES}


@dataclass(frozen=True, eq=False)
class PopulationRange:
    """Between which places 90 % of the population has the sagittal centre of each row, each row by itself.

    Attributes
    ----------
    low, high : (209,) array
        Relative to the centreline's mean; larger is more posterior. Crop pixels in a bundle, mm in a result.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def at(self, model_pixel_mm: float) -> PopulationRange:
        """Return the range in mm for a scan whose crop pixel has this side."""
        return PopulationRange(self.low * model_pixel_mm, self.high * model_pixel_mm)


def population_problem(population: object) -> str | None:
    """Say what is wrong with a range as it lies in a manifest, or None."""
    if not isinstance(population, dict) or set(population) != _KEYS:
        return f"an object with {', '.join(sorted(_KEYS))} is expected"
    for key, wanted in (("schema", SCHEMA), ("share", SHARE), ("unit", UNIT)):
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
    return None


def parsed_population(population: Mapping[str, Any]) -> PopulationRange:
    """Turn a range that has no problem into arrays."""
    return PopulationRange(*(np.array(population[side], dtype=np.float64) for side in _SIDES))


def _is_place(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and -CROP_SIZE < value < CROP_SIZE
