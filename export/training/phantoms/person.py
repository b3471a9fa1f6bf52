"""Random properties of a person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.training.phantoms.vertebra import VertebraTraits

Array = NDArray[np.float64]

REFERENCE_EXTENT_MM = 1832.0


@dataclass(frozen=True)
class RibTraits:
    """Properties common to a person's ribs; factors are 1 on average.

    Attributes
    ----------
    mineral : float
        Density of the ribs.
    joints : float
        Density of necks and of tubercles, where ribs meet transverse processes, 0 to 1.
    neck_deg : float
        Rotation of the necks in the frontal plane, positive raises their outer ends.
    first : float
        Density of the ring of the first ribs.
    height : float
        Ratio of height to thickness of a rib's cross-section.
    cartilage : float
        Calcification of the rib cartilage, 0 to 1, starting with the first rib.
    """

    mineral: float
    joints: float
    neck_deg: float
    first: float
    height: float
    cartilage: float


@dataclass(frozen=True)
class Variant:
    """Departures from the usual anatomy; the names of the vertebrae are always counted from T1.

    Attributes
    ----------
    ribs : int
        Pairs of ribs: 11 (none at T12), 12, or 13 (short ones at L1).
    last : str
        "usual"; "sacralised", where broad wings join L5 to the sacrum and the disc between them is thin; "lumbarised",
        where S1 has the form of a lumbar vertebra and a disc below it.
    """

    ribs: int = 12
    last: str = "usual"


@dataclass(frozen=True)
class Person:
    """Properties of a person used for bones and soft tissue.

    Attributes
    ----------
    extent_mm : float
        Crown to toe tip.
    crown_z : float
        Height of the crown above the middle of T1-L5, mm.
    habitus : float
        Girth, 1 for an average adult.
    bone : float
        Factor on bone density.
    female : bool
        Wider pelvis, narrower shoulders.
    lean_deg : float
        Tilt of the trunk's axis, degrees, positive moves the head to the patient's left.
    arm_out : (right, left)
        Abduction of each arm relative to the usual one.
    vertebrae : VertebraTraits
        Properties common to the vertebrae.
    ribs : RibTraits
        Properties common to the ribs.
    variant : Variant
        Number of ribs, and the last lumbar vertebra.
    """

    extent_mm: float
    crown_z: float
    habitus: float
    bone: float
    female: bool
    lean_deg: float
    arm_out: tuple[float, float]
    vertebrae: VertebraTraits
    ribs: RibTraits
    variant: Variant = Variant()

    @property
    def scale(self) -> float:
        """Size relative to the reference adult."""
        return self.extent_mm / REFERENCE_EXTENT_MM

    def z(self, fraction: float | Array) -> Any:
        """Return the height (mm) of a fraction of the extent below the crown."""
        return self.crown_z - np.asarray(fraction) * self.extent_mm

    def axis_x(self, z: float | Array) -> Any:
        """Return x of the leaning body's midline at height `z`, mm."""
        return np.asarray(z) * np.tan(np.radians(self.lean_deg))
