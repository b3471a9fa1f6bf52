from __future__ import annotations

from dataclasses import replace

import numpy as np

from export.training.phantoms.phantom import make_subject
from export.training.phantoms.scanner import IDXA
from export.training.phantoms.shape import LEVELS
from export.training.phantoms.solids import SolidBuilder, Solids
from export.training.phantoms.vertebra import VertebraTraits, add_vertebra

SUBJECT = make_subject(7, IDXA)
# upright and not turned, so that a vertebra's frame is the patient's
SHAPE = replace(SUBJECT.shape, axes=np.tile(np.eye(3), (len(LEVELS), 1, 1)))
PLAIN = replace(SUBJECT.person.vertebrae, lamina_deg=0.0, arch_height=0.0, asymmetry=0.0, disc=0.0)


def _built(name: str, traits: VertebraTraits) -> tuple[Solids, np.ndarray]:
    """One vertebra, and its solids' centres in its own frame, mm."""
    level = LEVELS.index(name)
    build = SolidBuilder()
    add_vertebra(build, np.random.default_rng(3), traits, SHAPE, level)
    solids = build.build()
    return solids, solids.centre - SHAPE.centre[level]


def _laminae(name: str, traits: VertebraTraits) -> float:
    """Height of what lies behind the canal without the processes' far ends, body heights above the body's middle."""
    solids, place = _built(name, traits)
    level = LEVELS.index(name)
    behind = place[:, 1] - SHAPE.depth[level] / 2
    chosen = (np.abs(place[:, 0]) < 0.45 * SHAPE.width[level]) & (behind > 10) & (behind < 23)
    mass = np.abs(solids.density * solids.radii.prod(axis=1))
    return float(np.average(place[chosen, 2], weights=mass[chosen]) / SHAPE.height[level])


def test_arches_hang_lower_from_level_to_level() -> None:
    """From above the body's middle in the upper chest to half a body height below it at L5."""
    height = {name: _laminae(name, PLAIN) for name in ("T2", "T11", "L2", "L5")}
    assert height["T2"] > 0.0 > height["T11"] > height["L2"] > height["L5"]
    assert -0.75 < height["L5"] < -0.35


def test_laminae_turn_and_shift_together() -> None:
    level = LEVELS.index("L3")
    for degrees in (-6.0, 6.0):
        _, straight = _built("L3", PLAIN)
        _, turned = _built("L3", replace(PLAIN, lamina_deg=degrees))
        far = straight[:, 1] > SHAPE.depth[level] / 2 + 30
        lift = (turned - straight)[far, 2]
        assert far.any() and np.all(lift * np.sign(degrees) > 1.0)
        assert np.abs(turned - straight)[straight[:, 1] < SHAPE.depth[level] / 2].max() < 1e-4
    shifted = _laminae("L3", replace(PLAIN, arch_height=0.1)) - _laminae("L3", PLAIN)
    assert 0.05 < shifted < 0.12


def test_transverse_processes_reach_beyond_the_body_and_l5_has_wings() -> None:
    tall = {}
    for name in ("L2", "L4", "L5"):
        level = LEVELS.index(name)
        solids, place = _built(name, PLAIN)
        # spread of each solid along the patient's axes
        box = np.sqrt(((solids.axes * solids.radii[:, :, None]) ** 2).sum(axis=1))
        reach = np.abs(place[:, 0]) + box[:, 0] - SHAPE.width[level] / 2
        process = reach > 10
        assert process.any() and reach.max() < 40
        tall[name] = 2 * box[process, 2].max()
    assert tall["L5"] > 1.4 * tall["L4"] and tall["L5"] > 1.4 * tall["L2"]


def test_discs_are_there_as_far_as_they_hold_mineral() -> None:
    level = LEVELS.index("L2")
    middle = (SHAPE.centre[level + 1] - SHAPE.centre[level]) / 2

    def mineral(disc: float) -> float:
        solids, place = _built("L2", replace(PLAIN, disc=disc))
        there = (np.abs(place - middle) < 0.01).all(axis=1)
        return float(solids.density[there].sum())

    assert mineral(0.0) == 0.0
    assert 0 < mineral(0.6) < mineral(1.2) < 0.3


def test_both_sides_are_alike_only_without_asymmetry() -> None:
    def difference(asymmetry: float) -> float:
        solids, place = _built("T8", replace(PLAIN, asymmetry=asymmetry))
        mass = solids.density * solids.radii.prod(axis=1) * (place[:, 1] > SHAPE.depth[LEVELS.index("T8")] / 2)
        left, right = mass[place[:, 0] > 3].sum(), mass[place[:, 0] < -3].sum()
        return float(abs(left - right) / (left + right))

    assert difference(0.0) < 0.12
    assert difference(0.4) > difference(0.0)
