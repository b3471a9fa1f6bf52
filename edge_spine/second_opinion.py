"""Compare the network's outputs for a crop and its mirror image, to find uncertain side views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_spine.reconstruct import Curves

SCHEMA = "edge-spine/second-opinion/1"
KIND = "mirror"
FLAG = "models-disagree"


@dataclass(frozen=True)
class SecondOpinion:
    """Limit of the difference between two side views, and the widening of the band beyond it.

    Attributes
    ----------
    limit_mm : float
        Largest mean distance between the two side views that is accepted.
    false_alarm_rate : float
        Share of the calibration's good results beyond the limit.
    widening : float
        Factor, 1 or more, on the sagittal band of a result beyond the limit.
    """

    limit_mm: float
    false_alarm_rate: float
    widening: float


def mirrored(tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a crop (1, 3, 224, 224) with the patient's left and right exchanged."""
    return np.ascontiguousarray(tensor[..., ::-1])


def disagreement_mm(first: Curves, second: Curves) -> float:
    """Return the mean absolute distance of the sagittal curves of a crop and of its mirror image, mm.

    Mirroring left and right does not change a side view.
    """
    return float(np.abs(first.sagittal - second.sagittal).mean())
