"""Build a skeleton of solids: vertebrae on the axis of a `SpineShape`, and the other bones of a whole-body scan.

Sizes are those of an adult whose crown-to-toe extent is 1832 mm, scaled to the person's own. Levels along the body
are given as fractions of the extent from the crown.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from export.training.phantoms.person import Person
from export.training.phantoms.rib_cage import add_rib_cage, draw_rib_traits
from export.training.phantoms.shape import FIRST_THORACIC, LAST_LUMBAR, LEVELS, SpineShape
from export.training.phantoms.solids import SolidBuilder, Solids, frame_along
from export.training.phantoms.variants import CREST_MM, add_wings
from export.training.phantoms.vertebra import add_vertebra, draw_vertebra_traits

Array = NDArray[np.float64]

_RIB_FADE_MM = 15.0


def draw_person(rng: np.random.Generator) -> Person:
    """Draw a random person."""
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
        vertebrae=draw_vertebra_traits(rng),
        ribs=draw_rib_traits(rng),
    )


def _arm(rng: np.random.Generator) -> float:
    return float(np.clip(rng.normal(1.0, 0.07), 0.84, 1.2))


def skeleton(
    rng: np.random.Generator,
    person: Person,
    shape: SpineShape,
    *,
    levels: Collection[int] | None = None,
    ribs_beyond_mm: float | None = None,
    pelvis: bool = True,
) -> Solids:
    """Build the bones of one person.

    Each part is the same whichever other parts are left out.

    Parameters
    ----------
    rng : numpy.random.Generator
        Random generator.
    person, shape : Person, SpineShape
        Person, and the shape of the spine.
    levels : collection of int, optional
        Indices into `LEVELS` of the vertebrae, C3 to L5, to build; all by default.
    ribs_beyond_mm : float, optional
        Leave out pieces of ribs closer than this to the axis of the spine, laterally at the same height; over the next
        15 mm their density increases to its full value.
    pelvis : bool
        Whether to build sacrum and pelvis.
    """
    build = SolidBuilder()
    # Each part has its own generator, so that parts are independent.
    parts = [np.random.default_rng(seed) for seed in rng.integers(2**63, size=6 + LAST_LUMBAR + 1)]
    for level in range(LAST_LUMBAR + 1) if levels is None else sorted(levels):
        add_vertebra(build, parts[6 + level], person.vertebrae, shape, level)
    ribs = add_rib_cage(build, parts[0], person, shape)
    _shoulders_and_arms(build, parts[1], person, shape)
    if pelvis:
        _sacrum(build, parts[2], person, shape)
        _pelvis(build, parts[3], person, shape)
    _legs(build, parts[4], person)
    _head(build, parts[5], person, shape)
    solids = build.build()
    if ribs_beyond_mm is not None:
        solids = _without_inner_ribs(solids, ribs, shape, ribs_beyond_mm)
    np.multiply(solids.density, person.bone, out=solids.density)
    return solids


def _without_inner_ribs(solids: Solids, ribs: slice, shape: SpineShape, beyond_mm: float) -> Solids:
    """Remove the ribs near the spine."""
    place = solids.centre[ribs]
    axis_x = np.interp(-place[:, 2], -shape.line[:, 2], shape.line[:, 0])
    share = np.ones(len(solids), dtype=np.float32)
    share[ribs] = np.clip((np.abs(place[:, 0] - axis_x) - beyond_mm) / _RIB_FADE_MM, 0, 1)
    kept = share > 0
    return Solids(
        solids.centre[kept],
        solids.axes[kept],
        solids.radii[kept],
        solids.cylinder[kept],
        (solids.density * share)[kept],
    )


def _sacrum(build: SolidBuilder, rng: np.random.Generator, person: Person, shape: SpineShape) -> None:
    if person.variant.last == "sacralised":
        add_wings(build, rng, shape)
    lumbarised = person.variant.last == "lumbarised"
    if lumbarised:
        add_vertebra(build, rng, person.vertebrae, shape, LAST_LUMBAR + 1)
    for k in range(int(lumbarised), 5):
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


# Fraction of the length, radius and wall of the shaft, mm.
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
    """Add a long bone that widens towards both ends with a thinner wall, bowed by `bow` mm in its middle."""
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
    crest = float(last[2]) + rng.uniform(8, 34) + CREST_MM[person.variant.last]
    y = float(last[1])
    wide, flare = rng.uniform(0.9, 1.12), np.radians(rng.uniform(24, 40))
    # Rim of an iliac wing in its own plane: outwards and upwards from its middle, mm.
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
        # The blade is thin in its middle and thicker towards crest, joint and hip.
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
