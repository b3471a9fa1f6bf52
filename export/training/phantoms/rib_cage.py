"""Build ribs, sternum and clavicles as solids, with their variation between people.

Standard deviations without a source are estimates, about half of the presumed natural variation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.training.phantoms.person import Person, RibTraits
from export.training.phantoms.shape import FIRST_THORACIC, SpineShape
from export.training.phantoms.solids import SolidBuilder

Array = NDArray[np.float64]

# Half width of the rib cage, depth of the chest, and descent of each rib from back to front, mm; 13 pairs.
_WIDTH = (62, 86, 102, 116, 126, 133, 138, 142, 144, 143, 137, 112, 90)
_DEPTH = (75, 105, 135, 155, 168, 178, 186, 190, 190, 185, 180, 170, 160)
_DROP = (48, 62, 82, 98, 110, 120, 126, 130, 132, 130, 100, 66, 50)
_END_DEG = (142, 138, 140, 142, 144, 146, 146, 144, 140, 132, 100, 62, 50)


def draw_rib_traits(rng: np.random.Generator) -> RibTraits:
    """Draw the properties common to a person's ribs."""
    return RibTraits(
        mineral=float(rng.uniform(0.6, 1.3)),
        joints=float(rng.uniform(0.1, 1.0)),
        neck_deg=float(rng.normal(0, 6)),
        first=float(np.clip(rng.normal(1.2, 0.25), 0.6, 1.9)),
        height=float(np.clip(rng.normal(1.3, 0.1), 1.05, 1.6)),
        cartilage=float(np.clip(rng.normal(0.15, 0.35), 0.0, 1.0)),
    )


@dataclass(frozen=True)
class _Cage:
    """Return factors on width, depth and slope of a person's rib cage."""

    broad: float
    deep: float
    fall: float


def add_rib_cage(build: SolidBuilder, rng: np.random.Generator, person: Person, shape: SpineShape) -> slice:
    """Add the rib cage.

    Parameters
    ----------
    build : SolidBuilder
        Receives the solids.
    rng : numpy.random.Generator
        Random generator.
    person, shape : Person, SpineShape
        Person, and the shape of the spine.

    Returns
    -------
    slice
        Ribs of T1 to T12 among the builder's solids; the others are those of L1, sternum, cartilage and clavicles.
    """
    s = person.scale
    cage = _Cage(
        broad=s * rng.normal(1.0, 0.045) * (0.95 if person.female else 1.0) * person.habitus**0.25,
        deep=s * rng.normal(1.0, 0.06) * person.habitus**0.3,
        fall=s * rng.normal(1.1, 0.15),
    )
    first = len(build)
    pairs = person.variant.ribs
    # A pair that is missing is drawn all the same, so that nothing else changes.
    into = [build if k < pairs else SolidBuilder() for k in range(12)]
    ends = [[_rib(into[k], rng, person, shape, cage, k, side) for side in (-1, 1)] for k in range(12)]
    ribs = slice(first, len(build))
    _front(build, rng, person, shape, cage, ends)
    for k in range(12, pairs):
        for side in (-1, 1):
            _rib(build, rng, person, shape, cage, k, side)
    return ribs


def _rib(
    build: SolidBuilder,
    rng: np.random.Generator,
    person: Person,
    shape: SpineShape,
    cage: _Cage,
    k: int,
    side: int,
) -> Array:
    """Add rib `k` (0 to 12) of one side and return its anterior end."""
    level, traits, s = FIRST_THORACIC + k, person.ribs, person.scale
    centre, width, depth = shape.centre[level], shape.width[level], shape.depth[level]
    high, tangent = shape.height[level], shape.tangent[level]
    slope = -tangent[1] / tangent[2]
    middle = centre[0] * 0.75 + float(person.axis_x(centre[2])) * 0.25
    half, chest = _WIDTH[k] * cage.broad, _DEPTH[k] * cage.deep
    hub = centre[1] + depth / 2 + 16 - chest / 2
    angle = np.radians(np.linspace(20, _END_DEG[k] + rng.normal(0, 3), 18))
    x = middle + side * half * np.sin(angle) ** 0.85
    y = hub + chest / 2 * np.cos(angle)
    # The ring tilts with its vertebra, and its anterior end is lower.
    z = centre[2] + high * 0.25 + 0.5 * slope * (y - centre[1])
    z = z - _DROP[k] * cage.fall * (0.5 - 0.5 * np.cos(angle * 1.08)) ** 1.1 + rng.normal(0, 1.5)
    z = z + 5.0 * np.sin(np.minimum(angle * 2, np.pi))

    head = centre + np.array([side * (width / 2 - 1), depth / 2 - 1, high * 0.42])
    neck_deg = traits.neck_deg + rng.normal(0, 3)
    rise = -high * 0.08 + 15 * np.tan(np.radians(neck_deg))
    neck = head + np.array([side * 15, 14, rise])
    points = np.concatenate([[head, neck], np.stack([x, y, z], axis=1)])
    if k >= 11:
        points = points[: rng.integers(10, 19) if k == 11 else rng.integers(5, 14)]
    mineral = traits.mineral * rng.normal(1, 0.08)
    if k < 10:
        # Tubercle and tip of the transverse process, and the thicker wall of the neck.
        block = 0.14 * traits.joints * mineral
        build.ellipsoid(neck + [side * 2, 3, 0], (6.5, 6, 6.0), block * (1.5 if k < 5 else 1.0))
        build.ellipsoid((head + neck) / 2, (7.5, 5, 5.0), block * 0.5)
    if k == 0:
        # The first rib is flat.
        thick, upright, mineral = 5.6 * s, 0.8, mineral * traits.first
    else:
        thick, upright = 4.6 * s, traits.height**0.5
    build.tube(points, thick * rng.normal(1.0, 0.06), 0.72 * mineral, 0.13 * mineral, 0.85, upright=upright)
    return np.asarray(points[-1])


def _front(
    build: SolidBuilder,
    rng: np.random.Generator,
    person: Person,
    shape: SpineShape,
    cage: _Cage,
    ends: list[list[Array]],
) -> None:
    """Add sternum, calcified cartilage and clavicles; `ends` are the anterior ends of the ribs."""
    s = person.scale
    upper = shape.centre[FIRST_THORACIC + 2]
    x0 = float(person.axis_x(upper[2])) * 0.5 + shape.centre[FIRST_THORACIC + 4][0] * 0.5
    y0 = upper[1] - 95 * cage.deep
    top = upper[2] - rng.uniform(-2, 14)
    build.shell((x0, y0, top - 24 * s), (29 * s, 6.5, 25 * s), 1.0, 0.5, 0.10)
    build.shell((x0, y0 - 20, top - 95 * s), (17 * s, 5.5, 52 * s), 1.0, 0.4, 0.08)
    calcium = person.ribs.cartilage
    for k in range(9):
        dense = 0.08 + 0.25 * calcium if k == 0 else 0.22 * calcium
        if dense < 0.02:
            continue
        for side in (-1, 1):
            joint = np.array([x0 + side * (24 if k == 0 else 15) * s, y0 - 2.2 * k, top - (14 + 14 * k) * s])
            t = np.linspace(0, 1, 5)[:, None]
            # The lower cartilages descend before they rise to the sternum.
            sag = np.array([0.0, 0.0, -3.0 * k]) * np.sin(np.pi * t)
            path = ends[k][side > 0] + t * (joint - ends[k][side > 0]) + sag
            build.tube(path, 5.0 * s, dense * rng.uniform(0.3, 1.5, 4), 0.3 * dense, 1.2)
    for side in (-1, 1):
        inner = np.array([x0 + side * 22 * s, y0 - 2, top - rng.uniform(0, 6)])
        outer = np.array(
            [person.axis_x(top) + side * 152 * cage.broad, y0 + 75, float(person.z(0.150)) + rng.normal(0, 9)]
        )
        t = np.linspace(0, 1, 9)[:, None]
        bow = np.array([0.0, -14.0, 0.0]) * np.sin(2 * np.pi * t)
        build.tube(inner + t * (outer - inner) + bow, 5.8 * s, 0.95, 0.2, 1.7)
        build.shell(inner, (9, 9, 9), 1.2, 0.5, 0.15)
