"""End lines of Cobb angles: across the end vertebrae, perpendicular to the spine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_spine.measure import LevelledCurve
from edge_spine.reconstruct import Spine
from edge_spine.result import SpineResult

TANGENT_ROWS = 8
# Smaller curves are within the error between repeated readings (MDC95 6.2 degrees); they are not drawn.
DRAWN_FROM_DEG = 6.0
_DRAWN_CURVES = 3


@dataclass(frozen=True)
class EndLine:
    """The line through an end vertebra.

    Attributes
    ----------
    row : int
        Row of the centreline.
    level : str
        "T1" ... "L5".
    tilt_deg : float
        Angle from the patient's right-to-left axis, counter-clockwise as seen from the front.
    """

    row: int
    level: str
    tilt_deg: float

    def ends(
        self, spine: Spine, curve: LevelledCurve, beyond_mm: tuple[float, float] = (30.0, 12.0)
    ) -> NDArray[np.float64]:
        """Return the ends of the line on the curve's concave and convex side.

        Parameters
        ----------
        spine : Spine
            The spine that the curve was measured on.
        curve : LevelledCurve
            The lateral curve of this end.
        beyond_mm : (float, float)
            How far the ends lie outside the spine.

        Returns
        -------
        (2, 3) array
            mm, LPS.
        """
        tilt = math.radians(self.tilt_deg)
        reach = curve.convex_sign * np.array([-1.0, 1.0]) * (spine.half_width[self.row] + np.array(beyond_mm))
        direction = np.array([math.cos(tilt), 0.0, math.sin(tilt)])
        ends: NDArray[np.float64] = spine.centreline[self.row] + reach[:, np.newaxis] * direction
        return ends


def end_lines(centre: NDArray[np.float64], curve: LevelledCurve) -> tuple[EndLine, EndLine]:
    """Return the upper and the lower end line, whose tilts differ by the curve's Cobb angle.

    Parameters
    ----------
    centre : (N, 3) array
        The centreline that the curve was measured on, mm, LPS.
    curve : LevelledCurve
        A lateral curve of this centreline.
    """
    tilts = []
    for row in (curve.upper_end, curve.lower_end):
        near = centre[max(0, row - TANGENT_ROWS) : row + TANGENT_ROWS + 1]
        tilts.append(-math.degrees(math.atan(np.polyfit(near[:, 2], near[:, 0], 1)[0])))
    # Tangents near the ends are local estimates; the lines are turned to show the measured angle.
    difference = math.copysign(curve.cobb_deg, tilts[1] - tilts[0])
    middle = (tilts[0] + tilts[1]) / 2
    return (
        EndLine(curve.upper_end, curve.upper_end_level, middle - difference / 2),
        EndLine(curve.lower_end, curve.lower_end_level, middle + difference / 2),
    )


def drawn_end_lines(result: SpineResult) -> list[tuple[LevelledCurve, list[EndLine]]]:
    """Return the curves that are drawn, largest first, each with its end lines.

    Neighbouring curves share an end vertebra, whose line is returned with the larger curve only.
    """
    drawn: list[EndLine] = []
    found = []
    curves = [curve for curve in result.measurements.scoliosis_curves if curve.cobb_deg >= DRAWN_FROM_DEG]
    for curve in curves[:_DRAWN_CURVES]:
        new = []
        for end in end_lines(result.spine.centreline, curve):
            if all(abs(end.row - other.row) >= TANGENT_ROWS for other in drawn):
                drawn.append(end)
                new.append(end)
        found.append((curve, new))
    return found
