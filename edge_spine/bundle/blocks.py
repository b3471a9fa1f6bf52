"""Check and parse the optional blocks of a manifest: bands, errors of the angles, and population."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edge_spine.bundle import bands
from edge_spine.bundle.bands import ANGLES, VIEWS, BandCalibration, PopulationRange
from edge_spine.bundle.rules import TEXT, Rule, Rules, between, count, exactly, several, versioned_problem
from edge_spine.measure import AngleErrors
from edge_spine.network import CROP_SIZE, ROWS

_SEVERITY = between(0, 1e6)
_BANDS: Rules = {
    "nominal": exactly(bands.NOMINAL),
    "unit": exactly(bands.UNIT),
    **dict.fromkeys(VIEWS, several(ROWS, between(0, CROP_SIZE))),
    "severity_deg": Rule(
        lambda value: (
            isinstance(value, dict) and set(value) == set(VIEWS) and all(map(_SEVERITY.holds, value.values()))
        ),
        "an object with positive numbers for coronal and sagittal",
    ),
    "count": count("phantoms"),
    **dict.fromkeys(("calibrated_on", "method", "weights_sha256", "localiser_sha256"), TEXT),
}
_POPULATION: Rules = {
    "share": exactly(bands.SHARE),
    "unit": exactly(bands.UNIT),
    **dict.fromkeys(("low", "high"), several(ROWS, between(-CROP_SIZE, CROP_SIZE))),
    "count": count("subjects"),
    "described": TEXT,
}
_LIMITS = Rule(
    lambda value: several(2, between(-180, 180)).holds(value) and value[0] < value[1],
    "two angles between -180 and 180, the lower one first",
)
_DEGREES = between(0, 180)
_ANGLE_ERRORS: Rules = {
    "nominal": exactly(bands.NOMINAL),
    "cobb_from_deg": Rule(
        lambda value: (
            isinstance(value, list)
            and bool(value)
            and value[0] == 0
            and all(map(_DEGREES.holds, value[1:]))
            and value == sorted(set(value))
        ),
        "increasing angles, the first 0",
    ),
    "cobb_deg": Rule(
        lambda value: isinstance(value, list) and bool(value) and all(map(_DEGREES.holds, value)),
        "positive angles",
    ),
    **dict.fromkeys(("kyphosis_deg", "lordosis_deg"), _DEGREES),
    "count": count("scans"),
    **dict.fromkeys(("calibrated_on", "method", "weights_sha256"), TEXT),
}
_GAIN = between(-10, 1)._replace(optional=True)
_ANGLES = {**dict.fromkeys(ANGLES, _LIMITS), "angles_of": exactly(*bands.ANGLES_OF)}

# the rules of each block by the schemas that are accepted
BLOCKS: Mapping[str, Mapping[str, Rules]] = {
    "bands": {bands.SCHEMA: {**_BANDS, "sagittal_gain": _GAIN}, bands.OLD_SCHEMA: _BANDS},
    "angles": {bands.ANGLES_SCHEMA: _ANGLE_ERRORS},
    "population": {bands.POPULATION_SCHEMA: {**_POPULATION, **_ANGLES}, bands.OLD_POPULATION_SCHEMA: _POPULATION},
}


def block_problem(key: str, block: object) -> str | None:
    """Return what is wrong with the block of a manifest that has this key, or None."""
    if (problem := versioned_problem(block, BLOCKS[key])) or not isinstance(block, dict):
        return problem
    if key == "population" and any(low >= high for low, high in zip(block["low"], block["high"], strict=True)):
        return "'low' must be below 'high' in every row"
    if key == "angles" and len(block["cobb_from_deg"]) != len(block["cobb_deg"]):
        return "'cobb_from_deg' and 'cobb_deg' must have the same length"
    return None


def parsed_angles(block: Mapping[str, Any]) -> AngleErrors:
    """Return checked errors of the angles."""
    return AngleErrors(
        cobb_from_deg=tuple(map(float, block["cobb_from_deg"])),
        cobb_deg=tuple(map(float, block["cobb_deg"])),
        kyphosis_deg=float(block["kyphosis_deg"]),
        lordosis_deg=float(block["lordosis_deg"]),
    )


def parsed_bands(block: Mapping[str, Any]) -> BandCalibration:
    """Return checked bands as arrays."""
    return BandCalibration(
        coronal=np.array(block["coronal"], dtype=np.float64),
        sagittal=np.array(block["sagittal"], dtype=np.float64),
        coronal_severity_deg=float(block["severity_deg"]["coronal"]),
        sagittal_severity_deg=float(block["severity_deg"]["sagittal"]),
        sagittal_gain=float(block["sagittal_gain"]) if "sagittal_gain" in block else None,
    )


def parsed_population(block: Mapping[str, Any]) -> PopulationRange:
    """Return a checked population as arrays, crop pixels."""
    low, high = (np.array(block[side], dtype=np.float64) for side in ("low", "high"))
    limits = {name: (float(block[name][0]), float(block[name][1])) for name in ANGLES if name in block}
    return PopulationRange(low, high, **limits)
