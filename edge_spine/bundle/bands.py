"""Calibration in a bundle: 90 % bands of the centres, and the range of the side view in a population."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_spine.measure import Measurements

SCHEMA = "edge-spine/bands/2"
# without "sagittal_gain"
OLD_SCHEMA = "edge-spine/bands/1"
NOMINAL = 0.9
UNIT = "crop pixels"
VIEWS = ("coronal", "sagittal")
Angle = TypeVar("Angle", float, NDArray[np.float64])

ANGLES_SCHEMA = "edge-spine/angles/1"
POPULATION_SCHEMA = "edge-spine/population/2"
# without limits of angles
OLD_POPULATION_SCHEMA = "edge-spine/population/1"
SHARE = 0.9
# the angles' limits lie at the first and the 99th percentile
ANGLE_SHARE = 0.98
ANGLES = ("kyphosis_deg", "lordosis_deg")
ANGLES_OF = ("true curves", "answers")
ATYPICAL_SIDE_VIEW = "side-view-atypical"
Limits: TypeAlias = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Bands:
    """Half-widths of the 90 % band of each row's centre, for one scan.

    In 90 % of scans like those of the calibration, the true centre of a row lies within the band of this row. The whole
    curve lies within its bands less often.

    Attributes
    ----------
    coronal, sagittal : (209,) array
        mm, to either side of the centre.
    sagittal_gain : float, optional
        Share of the mean curve's sagittal error that the model avoids on people outside its training set; negative
        where the mean curve is better. None where the bundle has no value.
    """

    coronal: NDArray[np.float64]
    sagittal: NDArray[np.float64]
    sagittal_gain: float | None = None


@dataclass(frozen=True, eq=False)
class BandCalibration:
    """Errors of a model on its calibration set.

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
        """Return the bands of a scan with this side of a crop pixel and this largest Cobb angle."""
        return Bands(
            coronal=self.coronal * (model_pixel_mm * widening(max_cobb_deg, self.coronal_severity_deg)),
            sagittal=self.sagittal * (model_pixel_mm * widening(max_cobb_deg, self.sagittal_severity_deg)),
            sagittal_gain=self.sagittal_gain,
        )


@dataclass(frozen=True, eq=False)
class PopulationRange:
    """Central 90 % of a population's sagittal centres, row by row.

    Attributes
    ----------
    low, high : (209,) array
        Relative to the centreline's mean; larger is more posterior. Crop pixels in a bundle, mm in a result.
    kyphosis_deg, lordosis_deg : (float, float), optional
        Central 98 % of the population's angles; None where the bundle has none.
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
        angles = (measurements.kyphosis_t4_t12_deg, measurements.lordosis_l1_l5_deg)
        judged = zip((self.kyphosis_deg, self.lordosis_deg), angles, strict=True)
        return any(limits is not None and not limits[0] <= angle <= limits[1] for limits, angle in judged)


def widening(max_cobb_deg: Angle, severity_deg: float) -> Angle:
    """Return the factor on the band of a straight spine: errors grow about with the square of the Cobb angle."""
    return 1.0 + (max_cobb_deg / severity_deg) ** 2
