"""All calibration that a bundle carries: 90 % bands of the centres, and the population's range of the side view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_spine.measure import Measurements
from edge_spine.network import CROP_SIZE, ROWS

SCHEMA = "edge-spine/bands/2"
# as before bands said what the side view is worth
OLD_SCHEMA = "edge-spine/bands/1"
NOMINAL = 0.9
UNIT = "crop pixels"
VIEWS = ("coronal", "sagittal")
Angle = TypeVar("Angle", float, NDArray[np.float64])
_TEXT_KEYS = ("calibrated_on", "method", "weights_sha256", "localiser_sha256")
_KEYS = {"schema", "nominal", "unit", "count", "severity_deg", *VIEWS, *_TEXT_KEYS}
_OPTIONAL_KEYS = {"sagittal_gain"}

POPULATION_SCHEMA = "edge-spine/population/2"
# as before bundles had limits of angles
OLD_POPULATION_SCHEMA = "edge-spine/population/1"
SHARE = 0.9
# the angles' limits lie at the first and the 99th percentile
ANGLE_SHARE = 0.98
ANGLES = ("kyphosis_deg", "lordosis_deg")
ANGLES_OF = ("true curves", "answers")
ATYPICAL_SIDE_VIEW = "side-view-atypical"
_SIDES = ("low", "high")
_OLD_POPULATION_KEYS = {"schema", "share", "unit", "count", "described", *_SIDES}
_POPULATION_KEYS = {*_OLD_POPULATION_KEYS, *ANGLES, "angles_of"}
Limits: TypeAlias = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Bands:
    """Half-widths of the 90 % band of each row's centre, for one scan.

    Each row by itself: in 90 % of scans like those of the calibration a row's true centre lies within its band.
    The whole curve lies within all of its bands less often.

    Attributes
    ----------
    coronal, sagittal : (209,) array
        mm, to either side of the centre.
    sagittal_gain : float, optional
        Share of the mean curve's sagittal error that the model saves on people whom it was not made from; negative
        where the mean curve is better. None where the bundle does not say.
    """

    coronal: NDArray[np.float64]
    sagittal: NDArray[np.float64]
    sagittal_gain: float | None = None


@dataclass(frozen=True, eq=False)
class BandCalibration:
    """What a bundle knows about its own errors.

    Attributes
    ----------
    coronal, sagittal : (209,) array
        Half-width of each row's band for a straight spine, crop pixels.
    coronal_severity_deg, sagittal_severity_deg : float
        Largest Cobb angle at which a band is twice as wide, degrees.
    sagittal_gain : float, optional
        As in `Bands`.
    """

    coronal: NDArray[np.float64]
    sagittal: NDArray[np.float64]
    coronal_severity_deg: float
    sagittal_severity_deg: float
    sagittal_gain: float | None = None

    def at(self, model_pixel_mm: float, max_cobb_deg: float) -> Bands:
        """Return the bands of a scan.

        Parameters
        ----------
        model_pixel_mm : float
            Side of its crop pixel.
        max_cobb_deg : float
            Largest Cobb angle that was measured in it.
        """
        return Bands(
            coronal=self.coronal * (model_pixel_mm * widening(max_cobb_deg, self.coronal_severity_deg)),
            sagittal=self.sagittal * (model_pixel_mm * widening(max_cobb_deg, self.sagittal_severity_deg)),
            sagittal_gain=self.sagittal_gain,
        )


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


def widening(max_cobb_deg: Angle, severity_deg: float) -> Angle:
    """Factor on the band of a straight spine: errors grow about with the square of the largest Cobb angle."""
    return 1.0 + (max_cobb_deg / severity_deg) ** 2


def bands_problem(bands: object) -> str | None:
    """Say what is wrong with bands as they lie in a file or a manifest, or None."""
    if not isinstance(bands, dict):
        return "an object is expected"
    optional = _OPTIONAL_KEYS if bands.get("schema") == SCHEMA else set()
    if set(bands) - optional != _KEYS:
        return f"an object with {', '.join(sorted(_KEYS))} is expected"
    if bands["schema"] not in (SCHEMA, OLD_SCHEMA):
        return f"'schema' must be {SCHEMA!r} or {OLD_SCHEMA!r}"
    for key, wanted in (("nominal", NOMINAL), ("unit", UNIT)):
        if bands[key] != wanted:
            return f"{key!r} must be {wanted!r}"
    for view in VIEWS:
        rows = bands[view]
        # a comparison holds for no NaN, and for integers that are too large to be a float
        if not isinstance(rows, list) or len(rows) != ROWS or not all(_is_number(row, CROP_SIZE) for row in rows):
            return f"{view!r} must be {ROWS} numbers above 0 and below {CROP_SIZE}"
    severity = bands["severity_deg"]
    if not isinstance(severity, dict) or set(severity) != set(VIEWS):
        return "'severity_deg' must be an object with coronal and sagittal"
    if not all(_is_number(value, 1e6) for value in severity.values()):
        return "'severity_deg' must be positive numbers"
    if isinstance(bands["count"], bool) or not isinstance(bands["count"], int) or bands["count"] <= 0:
        return "'count' must be a positive number of phantoms"
    for key in _TEXT_KEYS:
        if not isinstance(bands[key], str) or not bands[key].strip():
            return f"{key!r} must be a text"
    gain = bands.get("sagittal_gain", 0.0)
    if isinstance(gain, bool) or not isinstance(gain, (int, float)) or not -10 < gain < 1:
        return "'sagittal_gain' must be a number between -10 and 1"
    return None


def parsed_bands(bands: Mapping[str, Any]) -> BandCalibration:
    """Turn bands that have no problem into arrays."""
    return BandCalibration(
        coronal=np.array(bands["coronal"], dtype=np.float64),
        sagittal=np.array(bands["sagittal"], dtype=np.float64),
        coronal_severity_deg=float(bands["severity_deg"]["coronal"]),
        sagittal_severity_deg=float(bands["severity_deg"]["sagittal"]),
        sagittal_gain=float(bands["sagittal_gain"]) if "sagittal_gain" in bands else None,
    )


def population_problem(population: object) -> str | None:
    """Say what is wrong with a range as it lies in a manifest, or None."""
    if not isinstance(population, dict):
        return "an object is expected"
    if population.get("schema") not in (POPULATION_SCHEMA, OLD_POPULATION_SCHEMA):
        return f"'schema' must be {POPULATION_SCHEMA!r} or {OLD_POPULATION_SCHEMA!r}"
    keys = _POPULATION_KEYS if population["schema"] == POPULATION_SCHEMA else _OLD_POPULATION_KEYS
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
    for name in ANGLES if population["schema"] == POPULATION_SCHEMA else ():
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


def _is_number(value: object, below: float) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and 0 < value < below


def _is_place(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and -CROP_SIZE < value < CROP_SIZE


def _is_angle(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and -180 < value < 180


def _limits(values: Sequence[float]) -> Limits:
    low, high = values
    return float(low), float(high)
