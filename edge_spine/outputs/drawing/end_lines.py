"""Lines across the vertebrae between which an angle is taken, each tilted like its vertebra."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_spine.measure import KYPHOSIS, LORDOSIS, LevelledCurve, tilts_of
from edge_spine.reconstruct import Spine
from edge_spine.result import SpineResult
from edge_spine.vertebrae import LEVELS

# Lines that are closer, in rows of the centreline, are one.
_NEAR_ROWS = 8
_BEYOND_MM = 10.0
# Smaller curves are within the error between repeated readings (MDC95 6.2 degrees); they are not drawn.
DRAWN_FROM_DEG = 6.0
_DRAWN_CURVES = 3


@dataclass(frozen=True)
class EndLine:
    """The line through an end vertebra: its row of the centreline, its level "T1" ... "L5", and its tilt.

    The tilt is the angle from the patient's right-to-left axis, counter-clockwise as seen from the front.
    """

    row: int
    level: str
    tilt_deg: float

    def ends(
        self, spine: Spine, curve: LevelledCurve, beyond_mm: tuple[float, float] = (30.0, 12.0)
    ) -> NDArray[np.float64]:
        """Return the ends of the line on the concave and the convex side of its curve, (2, 3), mm, LPS.

        They lie `beyond_mm` outside the spine.
        """
        tilt = math.radians(self.tilt_deg)
        reach = curve.convex_sign * np.array([-1.0, 1.0]) * (spine.half_width[self.row] + np.array(beyond_mm))
        direction = np.array([math.cos(tilt), 0.0, math.sin(tilt)])
        ends: NDArray[np.float64] = spine.centreline[self.row] + reach[:, np.newaxis] * direction
        return ends


def tilts_deg(result: SpineResult) -> NDArray[np.float64]:
    """Return the tilts of the vertebrae, degrees: (17, 2), see `edge_spine.measure.tilts_of`."""
    return tilts_of(result.spine, result.levels)


def end_lines(result: SpineResult, curve: LevelledCurve) -> tuple[EndLine, EndLine]:
    """Return the upper and the lower end line of one of the result's curves; their tilts differ by its Cobb angle."""
    tilts, heights = result.derived(tilts_deg)[:, 0], result.spine.centreline[:, 2]
    upper, lower = (
        EndLine(row, level, float(tilts[np.abs(result.levels.z - heights[row]).argmin()]))
        for row, level in ((curve.upper_end, curve.upper_end_level), (curve.lower_end, curve.lower_end_level))
    )
    return upper, lower


def side_lines(result: SpineResult) -> list[NDArray[np.float64]]:
    """Return the lines across T4, T12, L1 and L5 in the side view: the ends of each, (2, 2), y and z in mm."""
    spine, lines = result.spine, []
    for level in (*KYPHOSIS, *LORDOSIS):
        index = LEVELS.index(level)
        height, tilt = result.levels.z[index], math.radians(result.derived(tilts_deg)[index, 1])
        y, half = (np.interp(-height, -spine.centreline[:, 2], v) for v in (spine.centreline[:, 1], spine.half_depth))
        reach = np.array([-1.0, 1.0]) * (half + _BEYOND_MM)
        lines.append(np.column_stack([y + reach * math.cos(tilt), height + reach * math.sin(tilt)]))
    return lines


def drawn_end_lines(result: SpineResult) -> list[tuple[LevelledCurve, list[EndLine]]]:
    """Return the curves that are drawn, largest first, each with its end lines.

    Neighbouring curves share an end vertebra, whose line is returned with the larger curve only.
    """
    drawn: list[EndLine] = []
    found = []
    curves = [curve for curve in result.measurements.scoliosis_curves if curve.cobb_deg >= DRAWN_FROM_DEG]
    for curve in curves[:_DRAWN_CURVES]:
        new = []
        for end in end_lines(result, curve):
            if all(abs(end.row - other.row) >= _NEAR_ROWS for other in drawn):
                drawn.append(end)
                new.append(end)
        found.append((curve, new))
    return found
