"""One vertebra, C3 to L5, as solids in its own frame, and what of it differs from one person to the next.

Frame of a vertebra: x to the patient's left, y back, z up, along the body's own axes; mm. Spreads without a source
are guesses, about half of what one would call the natural spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.training.phantoms.shape import FIRST_THORACIC, LEVELS, SpineShape
from export.training.phantoms.solids import SolidBuilder, frame_along

Array = NDArray[np.float64]

# mm, C3 to L5
_PEDICLE_WIDTH = (5, 5, 5, 5.5, 6, 8, 6.5, 5.2, 4.6, 4.6, 5, 5.3, 5.6, 6, 6.6, 7.4, 7.6, 8, 8.6, 10, 12.5, 16)
_PEDICLE_HEIGHT = (6, 6, 6, 6.5, 7, 9.5, 10.5, 11, 11.5, 11.5, 11.5, 11.5, 12, 13.5, 15, 16.5, 16, 15, 14.5, 14, 14, 14)
_T6, _T11, _L1, _L5 = (LEVELS.index(name) for name in ("T6", "T11", "L1", "L5"))
# middle of the laminae above the body's middle, body heights: falls to half a body height below it at L5
_ARCH_LEVELS = (0, FIRST_THORACIC, _T6, _T11, _L1, _L5)
_ARCH_HEIGHT = (-0.1, 0.14, 0.06, -0.12, -0.26, -0.50)
# spinous processes point down by these angles, degrees
_SPINOUS_LEVELS = (0, FIRST_THORACIC, FIRST_THORACIC + 3, FIRST_THORACIC + 8, _T11, _L1, _L5)
_SPINOUS_DEG = (20.0, 25.0, 48.0, 50.0, 18.0, 8.0, 8.0)


@dataclass(frozen=True)
class VertebraTraits:
    """What a person's vertebrae have in common; factors are 1 on average.

    Attributes
    ----------
    crisp : float
        How far endplates, rings and processes stand out from the bodies, 0 to 1 (1 as in a thin person).
    uneven : float
        How much vertebrae differ in density (standard deviation).
    shell : float
        Density of cortical walls against marrow.
    arch : float
        Density of everything behind the body against the body's.
    facets : float
        Density of facet joints, which arthrosis raises.
    disc : float
        Mineral of the discs, 0 none to 1.2.
    lamina_deg : float
        Turn of laminae and spinous processes about the lateral axis, positive moves their ends up.
    arch_height : float
        Shift of the laminae, body heights.
    pedicle_width, pedicle_height : float
        Size of the pedicles.
    process_length, process_mass : float
        Transverse and spinous processes.
    spurs : float
        Readiness to form osteophytes where a disc is worn.
    wedge_deg : float
        Standard deviation of the angle between a body's endplates.
    asymmetry : float
        Standard deviation of a side's size and density.
    """

    crisp: float
    uneven: float
    shell: float
    arch: float
    facets: float
    disc: float
    lamina_deg: float
    arch_height: float
    pedicle_width: float
    pedicle_height: float
    process_length: float
    process_mass: float
    spurs: float
    wedge_deg: float
    asymmetry: float


def draw_vertebra_traits(rng: np.random.Generator) -> VertebraTraits:
    """Draw the properties common to a person's vertebrae.

    Standard deviations are estimates, about half of the presumed variation; pedicles 7 %, equal at all levels.
    """
    return VertebraTraits(
        crisp=float(rng.uniform(0.0, 1.0)),
        uneven=float(rng.uniform(0.03, 0.10)),
        shell=_factor(rng, 0.15),
        arch=_factor(rng, 0.18),
        facets=float(rng.choice([1.0, 1.0, 1.25, 1.6])),
        disc=float(rng.uniform(0.0, 1.2)),
        lamina_deg=float(rng.normal(0, 4.5)),
        arch_height=float(rng.normal(0, 0.04)),
        pedicle_width=_factor(rng, 0.07),
        pedicle_height=_factor(rng, 0.07),
        process_length=_factor(rng, 0.10),
        process_mass=_factor(rng, 0.20),
        spurs=float(rng.uniform(0.0, 1.2)),
        wedge_deg=float(rng.uniform(0.8, 2.5)),
        asymmetry=float(rng.uniform(0.02, 0.08)),
    )


def _factor(rng: np.random.Generator, spread: float) -> float:
    return float(np.exp(np.clip(rng.normal(0, spread), -2.5 * spread, 2.5 * spread)))


@dataclass(frozen=True)
class _Place:
    """Frame and sizes of a vertebra, mm."""

    level: int
    origin: Array
    axes: Array
    width: float
    depth: float
    high: float

    @property
    def cervical(self) -> bool:
        return self.level < FIRST_THORACIC

    @property
    def lumbar(self) -> bool:
        return self.level >= _L1

    def at(self, x: float, y: float, z: float) -> Array:
        """Convert a position from the vertebra's frame to the patient's."""
        return np.asarray(self.origin + x * self.axes[0] + y * self.axes[1] + z * self.axes[2])

    @property
    def pedicle_mm(self) -> float:
        """Return half the length of the pedicles."""
        return 4.0 if self.cervical else 7.0


def add_vertebra(
    build: SolidBuilder, rng: np.random.Generator, traits: VertebraTraits, shape: SpineShape, level: int
) -> None:
    """Add one vertebra and the disc below it.

    Parameters
    ----------
    build : SolidBuilder
        Receives the solids.
    rng : numpy.random.Generator
        Generator of the variation between levels.
    traits : VertebraTraits
        Properties common to the levels.
    shape : SpineShape
        Positions, frames and sizes.
    level : int
        Index into `shape.LEVELS`, C3 to S1, which then has the form of L5.
    """
    sizes = shape.width[level], shape.depth[level], shape.height[level]
    place = _Place(min(level, _L5), shape.centre[level], shape.axes[level], *map(float, sizes))
    dense = float(np.clip(rng.normal(1.0, traits.uneven), 0.6, 1.5))
    worn = float(shape.wear[max(level - 1, 0)]), float(shape.wear[level])
    _body(build, rng, traits, place, dense, worn)
    _disc(build, rng, traits, shape, level)
    arch = dense * traits.arch * float(rng.normal(1.0, 0.06))
    # Left and right differ in size and density.
    sides = 1 + rng.normal(0, traits.asymmetry, (2, 2))
    _pedicles(build, rng, traits, place, arch, sides)
    _laminae(build, rng, traits, place, arch, sides)
    _transverse(build, rng, traits, place, arch, sides)


def _body(
    build: SolidBuilder,
    rng: np.random.Generator,
    traits: VertebraTraits,
    place: _Place,
    dense: float,
    worn: tuple[float, float],
) -> None:
    """Add marrow, a concave cortical wall, two endplates and osteophytes."""
    width, depth, high, axes = place.width, place.depth, place.high, place.axes
    crisp = 1.0 if place.cervical else traits.crisp
    # With less contrast of details, more of the density is in the bodies.
    marrow = ((0.14 if place.lumbar else 0.165) + 0.06 * (1 - crisp)) * dense / traits.shell**0.5
    wall = 0.62 * dense * traits.shell
    build.cylinder(place.origin, (width / 2, depth / 2, high / 2), wall, axes)
    build.cylinder(place.origin, (width / 2 - 0.9, depth / 2 - 0.9, high / 2), marrow - wall, axes)
    for _ in range(2):
        # Cancellous bone is inhomogeneous.
        lump = rng.uniform(-0.5, 0.5, 3) * (width * 0.7, depth * 0.6, high * 0.7)
        build.ellipsoid(place.at(*lump), rng.uniform(3.0, 7.0, 3), float(rng.normal(0, 0.10)), axes)
    waist = 0.8 if place.cervical else 1.8
    wedge = rng.normal(0, traits.wedge_deg, 2)
    for side in (-1, 1):
        build.ellipsoid(place.at(side * width / 2, 0, 0), (waist, depth * 0.45, high * 0.36), -0.22 * crisp, axes)
        wear = worn[0] if side > 0 else worn[1]
        plate = (width / 2 + 0.4, depth / 2 + 0.4, 0.8 + 1.2 * wear)
        plates = 0.28 if place.cervical else 0.17 if place.lumbar else 0.15
        sclerosis = plates * dense * traits.shell * rng.uniform(0.7, 1.3) * (0.1 + crisp + 1.2 * wear)
        tilted = _tilted(axes, side * wedge / 2 + rng.normal(0, 0.8, 2))
        build.cylinder(place.at(0, 0, side * (high / 2 - 0.6)), plate, sclerosis, tilted)
        if wear * traits.spurs > 0.12:
            for beside in (-1, 1):
                spur = rng.uniform((1.5, 4, 1.2), (5, 9, 3.0)) * wear**0.5 * traits.spurs
                beak = place.at(beside * (width / 2 + spur[0] * 0.5), rng.uniform(-0.3, 0.2) * depth, side * high / 2)
                build.ellipsoid(beak, spur, rng.uniform(0.3, 0.8), axes)


def _tilted(axes: Array, degrees: Array) -> Array:
    """Rotate a frame about its first and second axes."""
    third = axes[2] + np.radians(degrees[1]) * axes[0] + np.radians(degrees[0]) * axes[1]
    third /= np.linalg.norm(third)
    first = axes[0] - (axes[0] @ third) * third
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(third, first), third])


def _disc(build: SolidBuilder, rng: np.random.Generator, traits: VertebraTraits, shape: SpineShape, level: int) -> None:
    """Add the disc below a body, with a ring of tendon density and optional calcification."""
    below = level + 1
    thick = float(shape.pitch[level] - (shape.height[level] + shape.height[below]) / 2)
    if thick < 1.0 or traits.disc < 0.05:
        return
    centre = (shape.centre[level] + shape.centre[below]) / 2
    radii = (shape.width[level] / 2 - 0.5, shape.depth[level] / 2 - 0.5, thick / 2)
    mineral = 0.12 * traits.disc * float(np.clip(rng.normal(1, 0.15), 0.5, 1.5))
    build.cylinder(centre, radii, mineral, shape.axes[level])


def _pedicles(
    build: SolidBuilder, rng: np.random.Generator, traits: VertebraTraits, place: _Place, arch: float, sides: Array
) -> None:
    """Add the pedicles: rings along the beam, in the upper half of the body."""
    level, width, axes = place.level, place.width, place.axes
    crisp = 1.0 if place.cervical else traits.crisp
    wide = float(np.clip(_PEDICLE_WIDTH[level] * 1.15 * width / 42, 3.0, 9.5)) * traits.pedicle_width
    tall = float(np.clip(_PEDICLE_HEIGHT[level] * place.high / 22, 4.0, 15.0)) * traits.pedicle_height
    above = float(np.interp(level, _ARCH_LEVELS, (0.1, 0.24, 0.24, 0.22, 0.2, 0.06))) * place.high
    beam = np.stack([axes[0], axes[2], axes[1]])
    for k, side in enumerate((-1, 1)):
        w, t = wide * sides[k, 0] * rng.normal(1, 0.04), tall * sides[k, 0] * rng.normal(1, 0.04)
        beside = width / 2 - w / 2 - (-1.0 if place.cervical else 1.0)
        centre = place.at(side * beside, place.depth / 2 + place.pedicle_mm - 1, above + rng.normal(0, 0.3))
        ring = (0.20 + (0.40 if place.lumbar else 0.30) * crisp) * arch * sides[k, 1]
        build.cylinder(centre, (w / 2 + 0.8, t / 2 + 0.8, place.pedicle_mm), ring, beam)
        build.cylinder(centre, (w / 2 - 0.8, t / 2 - 0.8, place.pedicle_mm), 0.15 - ring, beam)


def _laminae(
    build: SolidBuilder, rng: np.random.Generator, traits: VertebraTraits, place: _Place, arch: float, sides: Array
) -> None:
    """Add laminae, articular and spinous processes: X-shaped in the lumbar spine, overlapping in the thoracic.

    They rotate together about the lateral axis through the roots of the laminae.
    """
    level, width, high = place.level, place.width, place.high
    behind = place.depth / 2 + 2 * place.pedicle_mm
    lift = (float(np.interp(level, _ARCH_LEVELS, _ARCH_HEIGHT)) + traits.arch_height + rng.normal(0, 0.02)) * high
    turn = np.radians(traits.lamina_deg + rng.normal(0, 1.5))
    axes = place.axes
    back = np.cos(turn) * axes[1] + np.sin(turn) * axes[2]
    frame = np.stack([axes[0], back, np.cross(axes[0], back)])
    hinge = place.at(0, behind - 4, lift)

    def at(x: float, y: float, z: float) -> Array:
        return np.asarray(hinge + x * frame[0] + y * frame[1] + z * frame[2])

    crisp = 1.0 if place.cervical else traits.crisp
    mass = arch * (0.52 if place.lumbar else 0.46)
    for k, side in enumerate((-1, 1)):
        size, dense = sides[k]
        joint = (0.26 + 0.22 * crisp) * traits.facets * arch * dense * rng.normal(1, 0.07)
        if place.lumbar:
            # From the pedicle down to the middle, then to the lower joint of the same side.
            _beam(build, at(side * width * 0.36, 0, high * 0.42), at(side * width * 0.03, 8, -high * 0.08),
                  (4.0, high * 0.20 * size), mass * dense)  # fmt: skip
            _beam(build, at(side * width * 0.13, 5, high * 0.05), at(side * width * 0.31 * size, 3, -high * 0.62),
                  (4.0, width * 0.095), mass * dense)  # fmt: skip
            build.ellipsoid(at(side * width * 0.31, 1, -high * 0.50), (width * 0.085, 5, high * 0.26), joint, frame)
            build.ellipsoid(at(side * width * 0.38, -2, high * 0.72), (width * 0.09, 5, high * 0.26), joint, frame)
        else:
            # Overlapping laminae hide the discs.
            tiled = 0.0 if place.cervical else 1 - crisp
            lamina = at(side * width * 0.21, 5, -high * 0.08)
            radii = width * (0.18 + 0.05 * tiled) * size, 3.8, high * (0.55 + 0.15 * tiled)
            build.ellipsoid(lamina, radii, mass * dense, frame)
            for end, reach in ((1, 0.40), (-1, 0.36)):
                radii = width * 0.10 + 1, 5.0, high * 0.26 + 1.2
                build.ellipsoid(at(side * width * reach, 1, end * high * 0.52), radii, joint * 0.85, frame)

    droop = np.radians(float(np.interp(level, _SPINOUS_LEVELS, _SPINOUS_DEG)) + rng.normal(0, 3))
    along = np.cos(droop) * frame[1] - np.sin(droop) * frame[2] + rng.normal(0, 0.05) * frame[0]
    along /= np.linalg.norm(along)
    long = (13.0 if place.lumbar else 9.0 if place.cervical else 15.0) * traits.process_length
    tall = high * (0.36 if place.lumbar else 0.22) * rng.normal(1, 0.06)
    plate = frame_along(along)
    mass = arch * traits.process_mass * (0.32 if place.lumbar else 0.28)
    middle = at(0, 8, -high * (0.2 if place.lumbar else 0.1)) + along * long
    build.ellipsoid(middle, (3.4 if place.lumbar else 2.6, tall, long), mass * rng.normal(1, 0.08), plate)
    build.ellipsoid(middle + along * long * 0.8, (3.4, tall * 0.6, 4.0), mass, plate)


def _beam(build: SolidBuilder, start: Array, end: Array, half: tuple[float, float], density: float) -> None:
    """Add an ellipsoid from `start` to `end`; `half` is its thickness along the beam of the scanner and across it."""
    middle, along = (start + end) / 2, end - start
    length = float(np.linalg.norm(along))
    along = along / length
    across = np.cross(along, [0.0, 1.0, 0.0])
    across /= np.linalg.norm(across)
    build.ellipsoid(
        middle, (half[1], half[0], length * 0.58), density, np.stack([across, np.cross(along, across), along])
    )


def _transverse(
    build: SolidBuilder, rng: np.random.Generator, traits: VertebraTraits, place: _Place, arch: float, sides: Array
) -> None:
    """Add transverse processes; those of L5 are broad wings towards the ilium."""
    level, width, high = place.level, place.width, place.high
    behind = place.depth / 2 + 2 * place.pedicle_mm
    rise = float(np.interp(level, _ARCH_LEVELS, (0.05, 0.32, 0.26, 0.05, 0.10, 0.04))) * high
    if place.lumbar:
        reach, tall, deep = (17.0, 20.0, 24.0, 20.0, 20.0)[level - _L1], (4.6, 4.8, 5.0, 5.4, 9.0)[level - _L1], 3.6
    elif place.cervical:
        reach, tall, deep = 4.0, 3.6, 3.6
    else:
        thoracic = level - FIRST_THORACIC
        reach = float(np.interp(thoracic, (0, 2, 8, 11), (18.0, 17.0, 14.5, 7.0)))
        tall, deep = float(np.interp(thoracic, (0, 11), (5.0, 4.4))), 4.2
    mass = arch * traits.process_mass * 0.25
    for k, side in enumerate((-1, 1)):
        long = reach * traits.process_length * sides[k, 0] * rng.normal(1, 0.07)
        root = place.at(side * width * 0.40, behind - 4, rise * 0.8)
        tilt = rng.normal(0, 0.05) * long
        tip = place.at(side * (width / 2 + long), behind + (0 if place.lumbar else 8), rise + tilt)
        dense = mass * sides[k, 1] * rng.normal(1, 0.08)
        _beam(build, root, tip, (deep, tall), dense)
        if level == _L5:
            # The root of the wing extends to the body.
            wing = root + 0.7 * (tip - root)
            _beam(build, place.at(side * width * 0.46, behind - 12, 0), wing, (5.0, tall * 0.9), dense * 0.8)
        elif place.lumbar:
            _beam(build, root, root + 0.6 * (tip - root), (deep, tall * 1.3), dense * 0.5)
