"""The two lines of a Cobb angle: across the end vertebrae, perpendicular to the spine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_spine.measure import LevelledCurve

TANGENT_ROWS = 8


@dataclass(frozen=True)
class EndLine:
    """The line through an end vertebra.

    Attributes
    ----------
    row : int
        Index into the centreline.
    level : str
        "T1" ... "L5".
    tilt_deg : float
        From the patient's right-to-left axis, counter-clockwise as seen from the front.
    """

    row: int
    level: str
    tilt_deg: float

    @property
    def direction(self) -> NDArray[np.float64]:
        """Unit vector along the line: x (to the patient's left) and z (to the head)."""
        return np.array([math.cos(math.radians(self.tilt_deg)), math.sin(math.radians(self.tilt_deg))])


def end_lines(centre: NDArray[np.float64], curve: LevelledCurve) -> tuple[EndLine, EndLine]:
    """Return the upper and the lower end line, whose tilts differ by the curve's Cobb angle.

    Parameters
    ----------
    centre : (N, 3) array
        The centreline that the curve was measured on, mm, LPS.
    curve : LevelledCurve
        One lateral curve of it.
    """
    tilts = []
    for row in (curve.upper_end, curve.lower_end):
        near = centre[max(0, row - TANGENT_ROWS) : row + TANGENT_ROWS + 1]
        tilts.append(-math.degrees(math.atan(np.polyfit(near[:, 2], near[:, 0], 1)[0])))
    # The tangent near an end is a local estimate; the measured angle is what the lines have to show.
    difference = math.copysign(curve.cobb_deg, tilts[1] - tilts[0])
    middle = (tilts[0] + tilts[1]) / 2
    return (
        EndLine(curve.upper_end, curve.upper_end_level, middle - difference / 2),
        EndLine(curve.lower_end, curve.lower_end_level, middle + difference / 2),
    )
