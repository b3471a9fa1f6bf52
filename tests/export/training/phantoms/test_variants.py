from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_spine.vertebrae import LEVELS as NAMES
from export.training.phantoms.absorptiometry import bone_density
from export.training.phantoms.anatomy import skeleton
from export.training.phantoms.person import Variant
from export.training.phantoms.phantom import Subject, draw_subject
from export.training.phantoms.scanner import IDXA
from export.training.phantoms.shape import FIRST_THORACIC, LEVELS
from export.training.phantoms.variants import draw_variant

SEED_OF = {draw_variant(seed, 1.0): seed for seed in range(60)}
T12, L1, L5 = (NAMES.index(name) for name in ("T12", "L1", "L5"))


def subject(variants: float, seed: int) -> Subject:
    return draw_subject(np.random.default_rng(seed), seed, IDXA, variants)


def density(of: Subject, variant: Variant) -> NDArray[np.float32]:
    solids = skeleton(np.random.default_rng(7), replace(of.person, variant=variant), of.shape)
    return bone_density(solids, of.framing, 1.0)


def mass(image: NDArray[np.float32], of: Subject, level: int, beside_mm: tuple[float, float]) -> float:
    """Density beside one vertebra, within half of its height and between two distances from its middle."""
    x, _, z = of.body_centres[level]
    height = of.shape.height[FIRST_THORACIC + level]
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    top, left = of.framing.top_left_mm
    up, beside = top - rows * of.framing.pixel_mm[0] - z, np.abs(left + columns * of.framing.pixel_mm[1] - x)
    return float(image[(np.abs(up) < height / 2) & (beside > beside_mm[0]) & (beside < beside_mm[1])].sum())


def test_every_variant_is_drawn_as_often_as_asked_and_none_by_default() -> None:
    assert len(SEED_OF) == 4 and all(v.ribs != 12 and v.last != "usual" for v in SEED_OF)
    drawn = [draw_variant(seed, 0.3) for seed in range(2000)]
    assert np.mean([v.ribs != 12 for v in drawn]) == pytest.approx(0.3, abs=0.04)
    assert np.mean([v.last != "usual" for v in drawn]) == pytest.approx(0.3, abs=0.04)
    assert {draw_variant(seed, 0.0) for seed in range(100)} == {Variant()}


@pytest.mark.parametrize("variant", SEED_OF, ids=str)
def test_names_are_counted_from_t1_in_every_variant(variant: Variant) -> None:
    seed = SEED_OF[variant]
    usual, drawn = subject(0.0, seed), subject(1.0, seed)
    assert usual.person.variant == Variant() and drawn.person.variant == variant
    assert replace(drawn.person, variant=Variant()) == usual.person
    # the same seventeen vertebrae at the same places, and the same sizes of their bodies
    np.testing.assert_allclose(drawn.body_centres, usual.body_centres, atol=0.5)
    np.testing.assert_allclose(drawn.levels.stations, usual.levels.stations, atol=0.5)
    np.testing.assert_allclose(drawn.shape.height[:-4], usual.shape.height[:-4], atol=1e-9)
    # the disc above the sacrum, or above its second vertebra
    fifth = LEVELS.index("L5")
    gaps = [s.shape.pitch[fifth : fifth + 2] - (s.shape.height[fifth : fifth + 2]) for s in (usual, drawn)]
    changed = gaps[1] - gaps[0]
    assert changed[0] < -4 if variant.last == "sacralised" else changed[1] > 4


def test_the_image_has_one_pair_of_ribs_less_or_more() -> None:
    scan = subject(0.0, 7)
    beside = 30.0, 60.0
    images = {ribs: density(scan, Variant(ribs=ribs)) for ribs in (11, 12, 13)}
    assert mass(images[11], scan, T12, beside) < 0.8 * mass(images[12], scan, T12, beside)
    assert mass(images[13], scan, L1, beside) > 1.2 * mass(images[12], scan, L1, beside)
    for ribs in (11, 13):
        # bodies and the ribs further up stay
        changed = np.abs(images[ribs] - images[12])
        assert mass(changed, scan, T12 - 4, (0.0, 60.0)) < 1e-3 * mass(images[12], scan, T12 - 4, (0.0, 60.0))
        assert mass(changed, scan, T12, (0.0, 15.0)) < 1e-3 * mass(images[12], scan, T12, (0.0, 15.0))


def test_the_image_shows_a_transitional_vertebra() -> None:
    usual, sacralised, lumbarised = (
        (scan, density(scan, Variant(last=last)))
        for last in ("usual", "sacralised", "lumbarised")
        for scan in [subject(0.0, 7)]
    )
    scan = usual[0]
    # wings beside L5, and iliac crests that lie higher beside it, or lower
    beside = 28.0, 45.0
    assert mass(sacralised[1], scan, L5, beside) > 1.3 * mass(usual[1], scan, L5, beside)
    crests = [mass(image, scan, L5, (60.0, 120.0)) for _, image in (lumbarised, usual, sacralised)]
    assert crests[0] < 0.8 * crests[1] < 0.8 * 0.95 * crests[2]
    # S1 has the arch and the processes of a lumbar vertebra
    count = [
        len(skeleton(np.random.default_rng(7), replace(scan.person, variant=Variant(last=last)), scan.shape, levels=()))
        for last in ("usual", "lumbarised")
    ]
    assert count[1] > count[0] + 10
