"""Names of the vertebrae T1 to L5, and where they lie along a spine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVELS: tuple[str, ...] = tuple(f"T{n}" for n in range(1, 13)) + tuple(f"L{n}" for n in range(1, 6))

# Centre to centre, T1-T2 ... L4-L5: mean of 17 adults in supine CT.
CENTRE_PITCH_MM = np.array(
    [20.4, 20.8, 21.1, 21.7, 22.0, 22.9, 23.6, 24.1, 25.7, 27.7, 30.1, 31.9, 34.5, 35.7, 36.7, 36.1]
)
# Half the height (posterior) of the bodies of T1 and L5: Panjabi et al. 1991 and 1992.
_HALF_T1_MM, _HALF_L5_MM = 14.1 / 2, 22.9 / 2
_CENTRE_MM = _HALF_T1_MM + np.concatenate([[0.0], np.cumsum(CENTRE_PITCH_MM)])
# share of the arc from the top of T1 to the bottom of L5 at which the centres of an average spine lie
AVERAGE_SHARES = _CENTRE_MM / (_CENTRE_MM[-1] + _HALF_L5_MM)


@dataclass(frozen=True, eq=False)
class Levels:
    """Heights of the vertebrae of one spine, mm, in the frame of its curves: z decreases from T1 to L5.

    Attributes
    ----------
    z : (17,) array
        Body centres of `LEVELS`.
    top, bottom : float
        Top of T1 and bottom of L5.
    z_error : (17,) array, optional
        Expected absolute error of each of `z`, mm; None where the heights are those of average proportions.
    uncertain : bool
        Whether the count may be off by one: every name would then be that of the neighbour.
    """

    z: NDArray[np.float64]
    top: float
    bottom: float
    z_error: NDArray[np.float64] | None = None
    uncertain: bool = False

    def __post_init__(self) -> None:
        heights = self.stations
        if heights.shape != (len(LEVELS) + 2,) or not (np.diff(heights) < 0).all():
            raise ValueError("17 body centres are expected, each lower than the one before, between top and bottom")

    @property
    def stations(self) -> NDArray[np.float64]:
        """Return the heights of the top of T1, of the 17 centres, and of the bottom of L5, (19,)."""
        return np.concatenate([[self.top], self.z, [self.bottom]])

    def edges(self, level: str) -> tuple[float, float]:
        """Return the heights (upper, lower) half way to the next centres; top of T1 and bottom of L5 at the ends.

        Raise ValueError where the level is none of `LEVELS`.
        """
        if level not in LEVELS:
            raise ValueError(f"unknown vertebral level {level!r}; expected one of {LEVELS[0]} ... {LEVELS[-1]}")
        index, between = LEVELS.index(level), (self.z[1:] + self.z[:-1]) / 2
        edges = np.concatenate([[self.top], between, [self.bottom]])
        return float(edges[index]), float(edges[index + 1])

    def names_at(self, z: ArrayLike) -> tuple[str, ...]:
        """Name the vertebra at each of some heights, mm; in a disc and beyond the ends the nearest one."""
        between = (self.z[1:] + self.z[:-1]) / 2
        indices = np.searchsorted(-between, -np.atleast_1d(np.asarray(z, dtype=np.float64)), side="right")
        return tuple(LEVELS[index] for index in indices.tolist())


def average_levels(z: NDArray[np.float64], arc_share: NDArray[np.float64]) -> Levels:
    """Place the vertebrae of average proportions on a centreline from the top of T1 to the bottom of L5.

    `z` (N,) are the heights of its points, mm, decreasing; `arc_share` (N,) is the share of the arc length above each.
    """
    return Levels(np.interp(AVERAGE_SHARES, arc_share, z), float(z[0]), float(z[-1]))
