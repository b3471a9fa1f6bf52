"""Ask the network again about the mirrored crop: answers that differ mark a side view that is less sure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.reconstruct import Curves

SCHEMA = "edge-spine/second-opinion/1"
KIND = "mirror"
FLAG = "models-disagree"
_KEYS = {"schema", "kind", "limit_mm", "false_alarm_rate", "widening"}


@dataclass(frozen=True)
class SecondOpinion:
    """When two answers about the same side view count as different, and what follows.

    Attributes
    ----------
    limit_mm : float
        Largest mean distance between the two answers that is no disagreement.
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

    A side view is the same in both: nothing has to be mirrored back.
    """
    return float(np.abs(first.sagittal - second.sagittal).mean())


def second_opinion_problem(block: object) -> str | None:
    """Say what is wrong with a second opinion as it lies in a manifest, or None."""
    if not isinstance(block, dict) or set(block) != _KEYS:
        return f"an object with {', '.join(sorted(_KEYS))} is expected"
    for key, wanted in (("schema", SCHEMA), ("kind", KIND)):
        if block[key] != wanted:
            return f"{key!r} must be {wanted!r}"
    if not _is_between(block["limit_mm"], 0, 100) or block["limit_mm"] == 0:
        return "'limit_mm' must be a number above 0 and up to 100"
    if not _is_between(block["false_alarm_rate"], 0, 1):
        return "'false_alarm_rate' must be a number from 0 to 1"
    if not _is_between(block["widening"], 1, 10):
        return "'widening' must be a number from 1 to 10"
    return None


def parsed_second_opinion(block: Mapping[str, Any]) -> SecondOpinion:
    """Turn a second opinion that has no problem into numbers."""
    return SecondOpinion(*(float(block[key]) for key in ("limit_mm", "false_alarm_rate", "widening")))


def _is_between(value: object, low: float, high: float) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and low <= value <= high
