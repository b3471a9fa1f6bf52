"""Estimate vertebral levels along a T1-L5 centreline from average proportions.

A DXA curve carries no vertebral labels. Assuming that it runs from the upper endplate of T1 (fraction 0) to
the lower endplate of L5 (fraction 1), a fraction of its arc length names the level that an average spine has
there. The pitches are of a supine population, as the scans are. One vertebra too many or too few shifts
every level.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Literal

import numpy as np

Part = Literal["top", "centre", "bottom"]

LEVELS: tuple[str, ...] = tuple(f"T{n}" for n in range(1, 13)) + tuple(f"L{n}" for n in range(1, 6))

# Centre to centre, T1-T2 ... L4-L5: mean of 17 adults in supine CT.
CENTRE_PITCH_MM = np.array(
    [20.4, 20.8, 21.1, 21.7, 22.0, 22.9, 23.6, 24.1, 25.7, 27.7, 30.1, 31.9, 34.5, 35.7, 36.7, 36.1]
)
# Vertebral body height (posterior), T1 ... L5: Panjabi et al. 1991 and 1992.
_BODY_HEIGHT_MM = np.array(
    [14.1, 15.6, 15.7, 16.2, 16.2, 17.4, 18.2, 18.7, 19.3, 20.2, 21.3, 22.7, 23.8, 24.3, 23.8, 24.1, 22.9]
)


_CENTRE_MM = _BODY_HEIGHT_MM[0] / 2 + np.concatenate([[0.0], np.cumsum(CENTRE_PITCH_MM)])
_LENGTH_MM = _CENTRE_MM[-1] + _BODY_HEIGHT_MM[-1] / 2
_FRACTIONS = {
    "top": (_CENTRE_MM - _BODY_HEIGHT_MM / 2) / _LENGTH_MM,
    "centre": _CENTRE_MM / _LENGTH_MM,
    "bottom": (_CENTRE_MM + _BODY_HEIGHT_MM / 2) / _LENGTH_MM,
}
# a point in a disc gets the level of the nearer body, so that ranges meet at mid-disc
_MID_DISCS = ((_FRACTIONS["bottom"][:-1] + _FRACTIONS["top"][1:]) / 2).tolist()


def _index(level: str) -> int:
    if level not in LEVELS:
        raise ValueError(f"unknown vertebral level {level!r}; expected one of {LEVELS[0]} ... {LEVELS[-1]}")
    return LEVELS.index(level)


def level_at(fraction: float) -> str:
    """Name the vertebral level at a fraction of the arc length.

    Parameters
    ----------
    fraction : float
        Arc length from the top of T1, divided by that from the top of T1 to the bottom of L5; 0 to 1.

    Returns
    -------
    str
        "T1" ... "L5". In a disc, the nearer of its two vertebrae.

    Raises
    ------
    ValueError
        If the fraction is not between 0 and 1.
    """
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"fraction of arc length is {fraction}; expected 0 (top of T1) to 1 (bottom of L5)")
    return LEVELS[bisect_right(_MID_DISCS, fraction)]


def level_range(level: str) -> tuple[float, float]:
    """Return the fractions of the arc length between which `level_at` returns a level.

    Parameters
    ----------
    level : str
        "T1" ... "L5".

    Returns
    -------
    tuple of float
        Start and end, from mid-disc to mid-disc (the ends of the curve for T1 and L5).

    Raises
    ------
    ValueError
        If the level is not one of `LEVELS`.
    """
    index, boundaries = _index(level), [0.0, *_MID_DISCS, 1.0]
    return boundaries[index], boundaries[index + 1]


def fraction_of(level: str, part: Part = "centre") -> float:
    """Return the fraction of the arc length at which a part of a vertebral body lies.

    Parameters
    ----------
    level : str
        "T1" ... "L5".
    part : {"top", "centre", "bottom"}
        Upper endplate, body centre or lower endplate.

    Returns
    -------
    float
        0 for the top of T1 to 1 for the bottom of L5.

    Raises
    ------
    ValueError
        If the level or the part is unknown.
    """
    index = _index(level)
    if part not in _FRACTIONS:
        raise ValueError(f"unknown part {part!r} of a vertebra; expected 'top', 'centre' or 'bottom'")
    return float(_FRACTIONS[part][index])
