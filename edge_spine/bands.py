"""How far a centre may lie from where it was found: 90 % bands, calibrated on phantoms, carried by the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_spine.layout import CROP_SIZE, ROWS

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


def _is_number(value: object, below: float) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and 0 < value < below
