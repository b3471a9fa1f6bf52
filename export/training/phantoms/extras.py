"""Add implants, jewellery, clips and calcified vessels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.training.phantoms.person import Person
from export.training.phantoms.shape import FIRST_THORACIC, LEVELS, SpineShape
from export.training.phantoms.solids import SolidBuilder, Solids, frame_along

# g/cm3 of metal, which saturates the image.
_METAL = 9.0
_SHARES = {"hip": 0.035, "necklace": 0.06, "bra": 0.08, "fixation": 0.012, "small": 0.10, "vessel": 0.10}


def carried(rng: np.random.Generator, person: Person, shape: SpineShape) -> Solids | None:
    """Draw the extras of one person; None if there are none."""
    has = {name: rng.random() < share for name, share in _SHARES.items()}
    has["bra"] &= person.female
    if not any(has.values()):
        return None
    build = SolidBuilder()
    if has["hip"]:
        for side in (-1, 1) if rng.random() < 0.3 else (int(rng.choice([-1, 1])),):
            _hip(build, person, side)
    if has["necklace"]:
        _necklace(build, rng, shape)
    if has["bra"]:
        _bra(build, rng, person, shape)
    if has["fixation"]:
        _fixation(build, rng, shape)
    if has["small"]:
        for _ in range(int(rng.integers(1, 5))):
            place = (rng.uniform(-170, 170), -120, float(person.z(rng.uniform(0.13, 0.6))))
            build.ellipsoid(place, rng.uniform(1.5, 7, 3), _METAL)
    if has["vessel"]:
        _vessel(build, rng, shape)
    return build.build()


def _hip(build: SolidBuilder, person: Person, side: int) -> None:
    s = person.scale
    head = np.array([side * 88 * s, 0.0, float(person.z(0.469))])
    neck = head + [side * 40 * s, 0, -28 * s]
    tip = neck + [side * 4, 0, -140 * s]
    build.ellipsoid(head, (16, 16, 16), _METAL)
    build.shell(head + [-side * 2, 0, 3], (27, 26, 27), 4.0, _METAL / 2, 0.0)
    t = np.linspace(0, 1, 5)[:, None]
    build.tube(head + t * (neck - head), 7.0, _METAL, _METAL, 0.0)
    build.tube(neck + t * (tip - neck), np.linspace(10, 5, 5), _METAL, _METAL, 0.0)


def _necklace(build: SolidBuilder, rng: np.random.Generator, shape: SpineShape) -> None:
    root = shape.centre[FIRST_THORACIC - 1]
    half, depth = rng.uniform(52, 70), rng.uniform(20, 110)
    angle = np.linspace(-0.2, np.pi + 0.2, int(rng.integers(30, 70)))
    for a in angle:
        place = root + [half * np.cos(a), -60, 14 - depth * np.sin(a)]
        build.ellipsoid(place, np.full(3, 1.3), _METAL)
    if rng.random() < 0.5:
        build.ellipsoid(root + [0, -80, 14 - depth - 8], (4, 2, 6), _METAL)


def _bra(build: SolidBuilder, rng: np.random.Generator, person: Person, shape: SpineShape) -> None:
    back = shape.centre[FIRST_THORACIC + int(rng.integers(5, 9))] + [rng.normal(0, 12), 70, 0]
    for row in (-7.0, 7.0):
        for side in (-4.0, 4.0):
            build.ellipsoid(back + [side, 0, row], (3.2, 1.5, 2.0), _METAL)
    if rng.random() < 0.6:
        for side in (-1, 1):
            middle = np.array([side * 82 * person.scale, -130.0, float(person.z(0.222))])
            angle = np.linspace(np.pi, 2 * np.pi, 10)[:, None]
            arc = middle + 52 * np.cos(angle) * [1.0, 0, 0] + 46 * np.sin(angle) * [0, 0, 1.0]
            build.tube(arc, 1.3, _METAL, _METAL, 0.0)


def _fixation(build: SolidBuilder, rng: np.random.Generator, shape: SpineShape) -> None:
    first = int(rng.integers(LEVELS.index("T8"), LEVELS.index("L3")))
    levels = range(first, min(first + int(rng.integers(2, 6)), LEVELS.index("L5") + 1))
    for side in (-1, 1):
        heads: list[NDArray[Any]] = []
        for level in levels:
            head = shape.centre[level] + [side * shape.width[level] * 0.42, shape.depth[level] / 2 + 30, 4.0]
            inward = np.array([-side * 0.25, -1.0, 0.0])
            inward /= np.linalg.norm(inward)
            build.cylinder(head + 20 * inward, (3.0, 3.0, 20.0), _METAL / 2, frame_along(inward))
            build.ellipsoid(head, (6, 6, 6), _METAL)
            heads.append(head)
        build.tube(np.array(heads), 2.8, _METAL, _METAL, 0.0)


def _vessel(build: SolidBuilder, rng: np.random.Generator, shape: SpineShape) -> None:
    """Add calcium in the wall of the abdominal aorta, anterior to the left half of L1 to L4."""
    for _ in range(int(rng.integers(4, 25))):
        level = rng.uniform(LEVELS.index("L1"), LEVELS.index("L4"))
        centre = [np.interp(level, np.arange(len(LEVELS)), shape.centre[:, axis]) for axis in range(3)]
        place = np.array(centre) + [rng.choice([2.0, 20.0]) + rng.normal(0, 2), -32, rng.normal(0, 8)]
        build.ellipsoid(place, (rng.uniform(0.8, 2), 3, rng.uniform(1.5, 6)), rng.uniform(0.3, 1.0))
