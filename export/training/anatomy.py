"""A skeleton as solids: vertebrae on the axis of a `SpineShape`, and every other bone that a whole-body scan shows.

Sizes are those of an adult whose crown-to-toe extent is 1832 mm, scaled to the person's own. Levels along the body
are given as fractions of the extent from the crown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from export.training.shape import FIRST_THORACIC, LEVELS, SpineShape
from export.training.solids import SolidBuilder, Solids, frame_along

Array = NDArray[np.float64]

REFERENCE_EXTENT_MM = 1832.0
# half width of the rib cage, depth of the chest, and how far each rib falls from back to front, mm
_CAGE_WIDTH = (54, 83, 102, 116, 126, 133, 138, 142, 144, 143, 137, 112)
_CAGE_DEPTH = (75, 105, 135, 155, 168, 178, 186, 190, 190, 185, 180, 170)
_RIB_DROP = (40, 62, 82, 98, 110, 120, 126, 130, 132, 130, 100, 66)
_RIB_END_DEG = (118, 130, 138, 142, 144, 146, 146, 144, 140, 132, 100, 62)
_PEDICLE_WIDTH = (5, 5, 5, 5.5, 6, 8, 6.5, 5.2, 4.6, 4.6, 5, 5.3, 5.6, 6, 6.6, 7.4, 7.6, 8, 8.6, 10, 12.5, 16)
_PEDICLE_HEIGHT = (
    6,
    6,
    6,
    6.5,
    7,
    9.5,
    10.5,
    11,
    11.5,
    11.5,
    11.5,
    11.5,
    12,
    13.5,
    15,
    16.5,
    16,
    15,
    14.5,
    14,
    14,
    14,
)


@dataclass(frozen=True)
class Person:
    """What is drawn once for a person and used by bones and soft tissue alike.

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
        Spread of each arm, 1 as usual.
    facets : float
        Factor on the density of facet joints, which arthrosis raises.
    uneven : float
        How much vertebrae differ in density.
    crisp : float
        How far endplates, rings and processes stand out from the bodies, 1 as on a thin person's fine image.
    joints : float
        Mass of bone where ribs meet transverse processes, 0 to 1.
    """

    extent_mm: float
    crown_z: float
    habitus: float
    bone: float
    female: bool
    lean_deg: float
    arm_out: tuple[float, float]
    facets: float
    uneven: float
    crisp: float
    joints: float

    @property
    def scale(self) -> float:
        """Size relative to the reference adult."""
        return self.extent_mm / REFERENCE_EXTENT_MM

    def z(self, fraction: float | Array) -> Any:
        """Height (mm) of a fraction of the extent below the crown."""
        return self.crown_z - np.asarray(fraction) * self.extent_mm

    def axis_x(self, z: float | Array) -> Any:
        """Place of the leaning body's midline at height `z`, mm."""
        return np.asarray(z) * np.tan(np.radians(self.lean_deg))


def draw_person(rng: np.random.Generator) -> Person:
    """Draw the person."""
    female = bool(rng.random() < 0.52)
    extent = float(np.clip(rng.normal(1690 if female else 1815, 72), 1480, 2040))
    return Person(
        extent_mm=extent,
        crown_z=extent * float(rng.normal(0.2845, 0.005)),
        habitus=float(np.clip(np.exp(rng.normal(0.04, 0.19)), 0.72, 1.8)),
        bone=float(np.clip(rng.normal(0.95 if female else 1.03, 0.17), 0.5, 1.55)),
        female=female,
        lean_deg=float(rng.normal(0, 1.3)),
        arm_out=(_arm(rng), _arm(rng)),
        facets=float(rng.choice([1.0, 1.0, 1.3, 1.7])),
        uneven=float(rng.uniform(0.03, 0.14)),
        crisp=float(rng.uniform(0.0, 1.0)),
        joints=float(rng.uniform(0, 1)),
    )


def _arm(rng: np.random.Generator) -> float:
    return float(np.clip(rng.normal(1.0, 0.07), 0.84, 1.2))


def skeleton(rng: np.random.Generator, person: Person, shape: SpineShape) -> Solids:
    """Build every bone of one person."""
    build = SolidBuilder()
    for level in range(LEVELS.index("L5") + 1):
        _vertebra(build, rng, person, shape, level)
    _sacrum(build, rng, shape)
    _rib_cage(build, rng, person, shape)
    _shoulders_and_arms(build, rng, person, shape)
    _pelvis(build, rng, person, shape)
    _legs(build, rng, person)
    _head(build, rng, person, shape)
    solids = build.build()
    np.multiply(solids.density, person.bone, out=solids.density)
    return solids


def _vertebra(build: SolidBuilder, rng: np.random.Generator, person: Person, shape: SpineShape, level: int) -> None:
    axes = shape.axes[level]
    origin = shape.centre[level]

    def at(x: float, y: float, z: float) -> Array:
        return origin + x * axes[0] + y * axes[1] + z * axes[2]

    width, depth, high = shape.width[level], shape.depth[level], shape.height[level]
    cervical, lumbar = level < FIRST_THORACIC, level >= LEVELS.index("L1")
    uneven = rng.normal(1.0, 0.08, 8) * float(np.clip(rng.normal(1.0, person.uneven), 0.6, 1.5))

    # the less a spine's details stand out, the more of its density is in the bodies
    crisp = person.crisp if not cervical else 1.0
    marrow = 0.16 + 0.07 * (1 - crisp)
    # body: marrow, a waisted cortical wall, and two endplates
    build.cylinder(origin, (width / 2, depth / 2, high / 2), 0.66 * uneven[0], axes)
    build.cylinder(origin, (width / 2 - 0.9, depth / 2 - 0.9, high / 2), (marrow - 0.66) * uneven[0], axes)
    for _ in range(5):
        # cancellous bone is not even
        lump = rng.uniform(-0.5, 0.5, 3) * (width * 0.7, depth * 0.6, high * 0.7)
        build.ellipsoid(at(*lump), rng.uniform(2.5, 6.5, 3), float(rng.normal(0, 0.11)), axes)
    waist = 1.8 if not cervical else 0.8
    for side in (-1, 1):
        build.ellipsoid(at(side * width / 2, 0, 0), (waist, depth * 0.45, high * 0.36), -0.22 * crisp, axes)
        worn = float(shape.wear[level if side < 0 else max(level - 1, 0)])
        plate = (width / 2 + 0.4, depth / 2 + 0.4, 0.8 + 1.2 * worn)
        sclerosis = 0.34 * uneven[1 + (side > 0)] * rng.uniform(0.7, 1.3) * (crisp + 1.2 * worn)
        build.cylinder(at(0, 0, side * (high / 2 - 0.6)), plate, sclerosis, _tilted(axes, rng.normal(0, 2.0, 2)))
        if worn > 0.2:
            for beside in (-1, 1):
                spur = rng.uniform((2, 4, 1.2), (6, 9, 3.0)) * worn**0.5
                place = at(beside * (width / 2 + spur[0] * 0.5), rng.uniform(-0.3, 0.2) * depth, side * high / 2)
                build.ellipsoid(place, spur, rng.uniform(0.4, 0.9), axes)

    # pedicles: rings seen end on
    wide, tall = _PEDICLE_WIDTH[level] * width / 42, _PEDICLE_HEIGHT[level] * high / 22
    wide = float(np.clip(wide * 1.15, 3.0, 9.5)) * uneven[3]
    tall = float(np.clip(tall, 4.0, 15.0)) * uneven[4]
    beside = width / 2 - wide / 2 - (1.0 if not cervical else -1.0)
    length = 7.0 if not cervical else 4.0
    beam = np.stack([axes[0], axes[2], axes[1]])
    for side in (-1, 1):
        centre = at(side * beside, depth / 2 + length - 1, high * 0.17)
        ring = 0.25 + 0.5 * crisp
        build.cylinder(centre, (wide / 2 + 0.8, tall / 2 + 0.8, length), ring, beam)
        build.cylinder(centre, (wide / 2 - 0.8, tall / 2 - 0.8, length), 0.17 - ring, beam)

    # arch behind the canal
    behind = depth / 2 + 2 * length
    for side in (-1, 1):
        # where they overlap like tiles, they hide the discs
        tiled = 1 - crisp if not lumbar else 0.0
        lamina = at(side * width * 0.2, behind + 2, -high * (0.16 + 0.2 * tiled))
        build.ellipsoid(lamina, (width * (0.18 + 0.05 * tiled), 4.5, high * (0.5 + 0.15 * tiled)), 0.6, axes)
        for end, reach in ((1, 0.42), (-1, 0.40)):
            facet = at(side * width * reach * (0.9 if not lumbar else 0.85), behind - 2, end * high * 0.5)
            build.ellipsoid(
                facet,
                (width * 0.10 + 1, 5.5, high * 0.28 + 1.5),
                (0.3 + 0.3 * crisp) * person.facets * uneven[5 + (end > 0)],
                axes,
            )
        root = at(side * width * 0.42, behind - 3, high * 0.12)
        far = 0.5 * width + (20 if lumbar else 3 if cervical else 17 - 0.6 * max(level - 8, 0))
        tip = at(side * far, behind + (0 if lumbar else 8), high * (0.12 if lumbar else 0.25))
        for k, radius in ((0.15, 4.6), (0.5, 3.8), (0.85, 3.4)):
            across = frame_along((tip - root) / np.linalg.norm(tip - root))
            half = np.linalg.norm(tip - root) * 0.24
            strength = 0.2 if lumbar else 0.34 + 0.25 * person.joints
            build.ellipsoid(root + k * (tip - root), (radius, radius, half), strength, across)

    # spinous process: a plate that points back and, in the chest, steeply down
    droop = 8.0 if lumbar else 20.0 if cervical else float(np.interp(level, [5, 8, 13, 16], [25, 48, 50, 15]))
    droop = np.radians(droop + rng.normal(0, 5))
    along = np.cos(droop) * axes[1] - np.sin(droop) * axes[2] + rng.normal(0, 0.05) * axes[0]
    along /= np.linalg.norm(along)
    long = 13.0 if lumbar else 9.0 if cervical else 15.0
    high_half = high * (0.42 if lumbar else 0.22)
    middle = at(0, behind + 4, -high * 0.2) + along * long
    build.ellipsoid(middle, (2.6, high_half, long), 0.42 * uneven[7], frame_along(along))
    build.ellipsoid(middle + along * long * 0.8, (3.6, high_half * 0.6, 4.0), 0.4, frame_along(along))


def _tilted(axes: Array, degrees: Array) -> Array:
    """Turn a frame about its first and its second axis: endplates are not quite parallel."""
    third = axes[2] + np.radians(degrees[1]) * axes[0] + np.radians(degrees[0]) * axes[1]
    third /= np.linalg.norm(third)
    first = axes[0] - (axes[0] @ third) * third
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(third, first), third])


def _sacrum(build: SolidBuilder, rng: np.random.Generator, shape: SpineShape) -> None:
    for k in range(5):
        level = LEVELS.index("S1") + k
        axes = frame_along(-shape.tangent[level])
        centre, wide = shape.centre[level], shape.width[level]
        build.shell(centre, (wide / 2, shape.depth[level] / 2, shape.height[level] * 0.55), 1.2, 0.45, 0.14, axes)
        for side in (-1, 1):
            wing = np.array([side * (wide * 0.62), 4.0, 0.0])
            build.ellipsoid(centre + wing, (wide * 0.32, 12.0 - 1.5 * k, shape.height[level] * 0.5), 0.15, axes)
            hole = np.array([side * wide * 0.42, 6.0, -shape.height[level] * 0.45])
            build.ellipsoid(centre + hole, (4.2, 9.0, 4.2), -0.18, axes)
        crest = centre + np.array([rng.normal(0, 1), shape.depth[level] / 2 + 8, 0.0])
        build.ellipsoid(crest, (3.0, 6.0, shape.height[level] * 0.45), 0.3, axes)


def _rib_cage(build: SolidBuilder, rng: np.random.Generator, person: Person, shape: SpineShape) -> None:
    s = person.scale
    broad = s * rng.normal(1.0, 0.045) * (0.95 if person.female else 1.0) * person.habitus**0.25
    deep = s * rng.normal(1.0, 0.06) * person.habitus**0.3
    fall = s * rng.normal(1.1, 0.15)
    strength = rng.uniform(0.45, 1.1)
    middle = 0.0
    for k in range(12):
        level = FIRST_THORACIC + k
        centre, width, depth = shape.centre[level], shape.width[level], shape.depth[level]
        tangent = shape.tangent[level]
        slope = -tangent[1] / tangent[2]
        middle = centre[0] * 0.75 + float(person.axis_x(centre[2])) * 0.25
        half, chest = _CAGE_WIDTH[k] * broad, _CAGE_DEPTH[k] * deep
        hub = centre[1] + depth / 2 + 16 - chest / 2
        for side in (-1, 1):
            angle = np.radians(np.linspace(20, _RIB_END_DEG[k] + rng.normal(0, 3), 18))
            x = middle + side * half * np.sin(angle) ** 0.85
            y = hub + chest / 2 * np.cos(angle)
            # the ring hangs from its vertebra: it leans with it, and its front is lower than its back
            z = centre[2] + shape.height[level] * 0.25 + 0.5 * slope * (y - centre[1])
            z = z - _RIB_DROP[k] * fall * (0.5 - 0.5 * np.cos(angle * 1.08)) ** 1.1 + rng.normal(0, 1.5)
            z = z + 5.0 * np.sin(np.minimum(angle * 2, np.pi))
            head = centre + np.array([side * (width / 2 - 1), depth / 2 - 1, shape.height[level] * 0.42])
            neck = centre + np.array([side * (width / 2 + 14), depth / 2 + 13, shape.height[level] * 0.34])
            points = np.concatenate([[head, neck], np.stack([x, y, z], axis=1)])
            if k == 11:
                points = points[: rng.integers(10, 19)]
            build.ellipsoid(neck + [side * 2, 3, 0], (7, 6, 6.5), 0.3 * person.joints)
            thick = rng.normal(1.0, 0.06) * (4.6 if k else 5.6) * s
            build.tube(points, thick, 0.72 * strength * rng.normal(1, 0.08), 0.13 * strength, 0.85)
    upper = shape.centre[FIRST_THORACIC + 2]
    x0 = float(person.axis_x(upper[2])) * 0.5 + shape.centre[FIRST_THORACIC + 4][0] * 0.5
    y0 = upper[1] - 95 * deep
    top = upper[2] - rng.uniform(-2, 14)
    build.shell((x0, y0, top - 24 * s), (29 * s, 6.5, 25 * s), 1.0, 0.5, 0.10)
    build.shell((x0, y0 - 20, top - 95 * s), (17 * s, 5.5, 52 * s), 1.0, 0.4, 0.08)
    for side in (-1, 1):
        inner = np.array([x0 + side * 22 * s, y0 - 2, top - rng.uniform(0, 6)])
        outer = np.array([person.axis_x(top) + side * 152 * broad, y0 + 75, float(person.z(0.150)) + rng.normal(0, 9)])
        t = np.linspace(0, 1, 9)[:, None]
        bow = np.array([0.0, -14.0, 0.0]) * np.sin(2 * np.pi * t)
        build.tube(inner + t * (outer - inner) + bow, 5.8 * s, 0.95, 0.2, 1.7)
        build.shell(inner, (9, 9, 9), 1.2, 0.5, 0.15)


def _shoulders_and_arms(build: SolidBuilder, rng: np.random.Generator, person: Person, shape: SpineShape) -> None:
    s, broad = person.scale, (0.94 if person.female else 1.0) * person.scale
    y = float(shape.centre[FIRST_THORACIC + 3][1])
    for side in (-1, 1):
        lift = rng.normal(0, 6)
        top = person.z(0.142) + lift
        lean = float(person.axis_x(top))
        glenoid = np.array([lean + side * 158 * broad, y - 20, top - 22])
        build.ellipsoid(glenoid, (9, 13, 17), 0.35)
        build.ellipsoid(glenoid + [side * -24, -20, 12], (11, 15, 7), 0.5)  # coracoid
        blade = np.array([lean + side * 122 * broad, y + 42, top - 78 * s])
        tilt = np.radians(side * 14)
        axes = np.array([[np.cos(tilt), 0, -np.sin(tilt)], [0, 1, 0], [np.sin(tilt), 0, np.cos(tilt)]])
        build.ellipsoid(blade, (38 * s, 2.2, 66 * s), 0.45, axes)
        border = np.array([glenoid + [0, 20, -14], blade + [side * 12, 0, -20], blade + [side * -5, 0, -64 * s]])
        build.tube(border, 4.4, 0.7, 0.25, 1.6)
        ridge = np.array([blade + [side * -36, 0, 34 * s], glenoid + [side * 10, 25, 26]])
        build.tube(ridge, 5.0, 0.6, 0.2, 1.3)
        build.ellipsoid(glenoid + [side * 18, 6, 28], (15, 12, 6), 0.35)  # acromion

        head = np.array([lean + side * 178 * broad, y - 15, top - 28])
        out = person.arm_out[side > 0]
        elbow = np.array([side * 247 * s * out, y, person.z(0.322) + lift])
        wrist = np.array([side * 262 * s * out + side * rng.normal(0, 8), y, person.z(0.467)])
        build.shell(head + [-side * 4, 0, 2], (23, 23, 23), 0.8, 0.5, 0.15)
        _long_bone(build, head, elbow, _HUMERUS, 0.75)
        build.ellipsoid(elbow + [-side * 24, 0, 8], (8, 8, 9), 0.4)
        build.ellipsoid(elbow + [side * 2, 8, -2], (12, 10, 16), 0.45)
        for away, profile in ((10, _RADIUS), (-8, _ULNA)):
            start, end = elbow + [side * away, 0, -8], wrist + [side * away * 1.3, 0, 0]
            _long_bone(build, start, end, profile, 0.8, bow=side * np.sign(away) * 5.0)
        for carpal in range(7):
            place = wrist + [(carpal % 4 - 1.5) * 10, 0, -9 - 11 * (carpal // 4)]
            build.shell(place, (6.5, 7, 6.5), 1.0, 0.5, 0.2)
        for finger in range(5):
            fan = (finger - 2) * 11
            base = wrist + [fan * 0.7, 0, -26]
            tip = wrist + [fan * 1.3 - side * 12, 0, -165 * s + 14 * abs(finger - 2)]
            steps = np.linspace(0, 1, 4)[:, None]
            build.tube(base + steps * (tip - base), 4.2, 0.9, 0.2, 1.4)


# share of the length, radius and wall of the shaft, mm
_HUMERUS = np.array(
    [
        (0.0, 22, 0.8),
        (0.06, 21, 1.0),
        (0.16, 14, 2.2),
        (0.4, 11.5, 3.8),
        (0.75, 10.5, 3.6),
        (0.9, 16, 1.8),
        (1.0, 27, 0.8),
    ]
)
_RADIUS = np.array([(0.0, 10, 1.0), (0.05, 8, 1.4), (0.12, 6.5, 2.0), (0.5, 7, 2.8), (0.85, 8, 1.8), (1.0, 14, 0.7)])
_ULNA = np.array([(0.0, 12, 1.0), (0.1, 9.5, 1.8), (0.5, 7, 2.6), (0.9, 5.5, 1.6), (1.0, 8, 0.8)])
_FEMUR = np.array(
    [
        (0.0, 22, 1.0),
        (0.06, 19, 2.0),
        (0.18, 15, 4.6),
        (0.5, 14, 6.0),
        (0.75, 15.5, 4.4),
        (0.9, 24, 1.8),
        (1.0, 38, 0.8),
    ]
)
_TIBIA = np.array(
    [
        (0.0, 37, 0.8),
        (0.05, 34, 1.0),
        (0.14, 21, 2.2),
        (0.35, 14.5, 4.8),
        (0.75, 11.5, 4.4),
        (0.92, 16, 1.6),
        (1.0, 22, 0.8),
    ]
)
_FIBULA = np.array([(0.0, 9, 0.8), (0.08, 6, 1.6), (0.5, 5, 2.2), (0.9, 6, 1.6), (1.0, 10, 0.8)])


def _long_bone(
    build: SolidBuilder,
    start: Array,
    end: Array,
    profile: Array,
    cortical: float,
    *,
    scale: float = 1.0,
    bow: float = 0.0,
) -> None:
    """Draw a bone that flares and thins its wall towards both ends, `bow` mm off the straight line at its middle."""
    share = np.linspace(0, 1, 25)
    path = start + share[:, None] * (end - start)
    path[:, 0] += bow * np.sin(np.pi * share)
    radius, wall = (np.interp(share, profile[:, 0], profile[:, k]) for k in (1, 2))
    build.tube(path, radius * scale, cortical, 0.1, wall * scale)


def _pelvis(build: SolidBuilder, rng: np.random.Generator, person: Person, shape: SpineShape) -> None:
    s = person.scale
    broad = s * rng.normal(1.03 if person.female else 0.99, 0.035)
    last = shape.centre[LEVELS.index("L5")]
    x0 = float(last[0]) * 0.7 + float(person.axis_x(last[2])) * 0.3
    crest = float(last[2]) + rng.uniform(8, 34)
    y = float(last[1])
    wide, flare = rng.uniform(0.9, 1.12), np.radians(rng.uniform(24, 40))
    # rim of an iliac wing seen square on: away from its middle outwards and upwards, mm
    crown = np.array([(-50, 4), (-30, 40), (6, 58), (40, 50), (58, 22), (48, -12)])
    for side in (-1, 1):
        middle = np.array([x0 + side * 86 * broad, y + 4, crest - 56 * s])
        outwards = np.array([side * np.cos(flare), -np.sin(flare), 0.0])
        up = np.array([side * 0.22, 0.1, 1.0]) / np.linalg.norm([0.22, 0.1, 1.0])

        def on_wing(points: Array, middle: Array = middle, out: Array = outwards, up: Array = up) -> Array:
            return middle + s * (wide * points[:, :1] * out + points[:, 1:] * up)

        normal = np.cross(outwards, up)
        normal /= np.linalg.norm(normal)
        first = np.cross(up, normal)
        plate = np.stack([first, normal, up])
        # the blade is thin in its middle and thickens towards the crest, the joint and the hip
        for (across, along), half, dense in (
            ((2, 6), (46, 4, 48), 0.34), ((22, 18), (34, 4, 34), 0.24), ((-14, -4), (32, 5, 42), 0.24),
            ((-30, -26), (20, 9, 30), 0.26), ((8, -30), (26, 8, 30), 0.24),
        ):  # fmt: skip
            place = on_wing(np.array([[across, along]]))[0]
            build.ellipsoid(place, np.multiply(half, (s * wide, 1.0, s)), dense, plate)
        rim = on_wing(_smooth(crown))
        build.tube(rim, np.linspace(4.0, 5.2, len(rim)), 0.42, 0.2, 1.2)
        hip = np.array([x0 + side * 88 * broad, y - 12, float(person.z(0.469))])
        joint = on_wing(np.array([[-36.0, -34.0]]))[0]
        t = np.linspace(0, 1, 8)[:, None]
        column = joint + t * (hip + [-side * 6, 0, 22] - joint)
        build.tube(column, np.linspace(13, 21, 8) * s, 0.34, 0.13, 2.0)
        build.shell(hip + [-side * 3, 0, 7], (32 * s, 29, 31 * s), 3.0, 0.34, 0.05)
        build.ellipsoid(hip + [-side * 24 * s, 4, 4], (9 * s, 22, 26 * s), 0.3)
        symphysis = np.array([x0 + side * 8, y - 55, float(person.z(0.494))])
        seat = np.array([x0 + side * 58 * broad, y + 5, float(person.z(0.512))])
        hole = np.array(
            [hip + [-side * 22, -20, -6], (hip + symphysis) / 2 + [0, -12, 12], symphysis + [side * 4, 0, 2],
             symphysis + [side * 12, 4, -16 * s], (symphysis + seat) / 2 + [-side * 4, 0, -14 * s], seat,
             seat + [side * 8, 8, 16 * s], hip + [-side * 6, 14, -24]]
        )  # fmt: skip
        ring = _smooth(hole)
        build.tube(
            ring, np.interp(np.linspace(0, 1, len(ring)), [0, 0.35, 0.6, 1], [12, 9, 12, 14]) * s, 0.42, 0.14, 1.3
        )
        build.ellipsoid(symphysis + [side * 2, 0, -6 * s], (7, 8, 17 * s), 0.3)


def _smooth(points: Array) -> Array:
    """Pass a smooth path of three times as many points through `points` (K, D)."""
    place = np.arange(len(points))
    return CubicSpline(place, points)(np.linspace(0, len(points) - 1, 3 * len(points)))


def _legs(build: SolidBuilder, rng: np.random.Generator, person: Person) -> None:
    s = person.scale
    for side in (-1, 1):
        spread = side * rng.normal(0, 6)
        hip = np.array([side * 88 * s, 0.0, float(person.z(0.469))])
        trochanter = hip + np.array([side * 46 * s, 5, -16 * s])
        knee = np.array([side * 84 * s + spread, 0.0, float(person.z(0.708))])
        ankle = np.array([side * 90 * s + 1.5 * spread, 0.0, float(person.z(0.918))])
        build.shell(hip, (22 * s, 22, 22 * s), 0.8, 0.6, 0.2)
        t = np.linspace(0, 1, 8)[:, None]
        neck = hip + t * (trochanter + [-side * 10, 0, -2] - hip)
        build.tube(neck, np.interp(t[:, 0], [0, 0.5, 1.0], [19, 15, 21]) * s, 0.6, 0.15, 2.0)
        build.shell(trochanter + [side * 2, 0, 6], (13, 15, 17 * s), 0.8, 0.5, 0.18)
        build.ellipsoid(trochanter + [-side * 24, 6, -34 * s], (8, 8, 11), 0.3)
        _long_bone(build, trochanter + [-side * 8, 0, -8], knee + [0, 0, 2], _FEMUR, 0.8, scale=s)
        for beside in (-1, 1):
            build.shell(knee + [beside * 21 * s, 0, 12 * s], (20 * s, 28, 17 * s), 0.8, 0.6, 0.17)
        build.ellipsoid(knee + [0, -25, 26 * s], (19, 8, 20), 0.3)  # kneecap
        shin = knee + np.array([-side * 2, 0, -12 * s])
        _long_bone(build, shin, ankle, _TIBIA, 0.75, scale=s)
        thin = np.array([side * 30 * s, 12, -14])
        _long_bone(build, shin + thin, ankle + [side * 24, 0, -12], _FIBULA, 0.9)
        build.shell(ankle + [0, 0, -16 * s], (20, 24, 15), 1.0, 0.6, 0.22)
        build.shell(ankle + [side * 4, 18, -34 * s], (17, 36, 18), 1.2, 0.6, 0.2)
        build.shell(ankle + [0, -22, -40 * s], (24, 16, 13), 1.0, 0.6, 0.18)
        for toe in range(5):
            base = ankle + [(toe - 2) * 8 + side * 4, -30, -52 * s]
            tip = np.array([ankle[0] + (toe - 2) * 13 - side * rng.uniform(0, 22), -40, float(person.z(0.99))])
            steps = np.linspace(0, 1, 5)[:, None]
            build.tube(base + steps * (tip - base), 4.5, 0.9, 0.25, 1.4)


def _head(build: SolidBuilder, rng: np.random.Generator, person: Person, shape: SpineShape) -> None:
    s = person.scale**0.6
    x0 = float(shape.centre[0][0]) * 0.7 + float(person.axis_x(person.z(0.05))) * 0.3
    y0 = float(shape.centre[0][1]) - 25
    top = float(person.z(0.004))
    vault = np.array([x0, y0, top - 92 * s])
    build.shell(vault, (74 * s, 90 * s, 90 * s), 6.5 * rng.normal(1, 0.12), 0.75, 0.0)
    build.ellipsoid(vault + [0, -10, -58 * s], (56 * s, 70 * s, 30 * s), 0.16)
    for side in (-1, 1):
        build.ellipsoid(vault + [side * 34 * s, 10, -70 * s], (24 * s, 24, 18 * s), 0.35)
        build.ellipsoid(vault + [side * 32 * s, -70, -32 * s], (17 * s, 18, 14 * s), -0.2)  # orbits
        jaw = np.array([[side * 50, -5, -88], [side * 46, -18, -118], [side * 28, -55, -140], [0, -75, -146]]) * s
        build.tube(vault + jaw, 8.5, 1.1, 0.4, 2.2)
    for row in (-108, -122):
        for tooth in np.linspace(-26, 26, 10):
            build.ellipsoid(vault + np.array([tooth, -72, row]) * s, (3.2, 5, 7), float(rng.uniform(0.9, 1.6)))
    build.ellipsoid(vault + np.array([0, -50, -100]) * s, (34 * s, 25, 14 * s), 0.35)
