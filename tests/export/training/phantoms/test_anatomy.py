from __future__ import annotations

import numpy as np
import pytest

from export.training.phantoms.anatomy import draw_person, skeleton
from export.training.phantoms.phantom import make_subject
from export.training.phantoms.scanner import IDXA
from export.training.phantoms.shape import FIRST_THORACIC, LAST_LUMBAR, LEVELS
from export.training.phantoms.solids import Solids

SUBJECT = make_subject(7, IDXA)
LUMBAR = range(LEVELS.index("L1"), LAST_LUMBAR + 1)


def _build(**options: object) -> Solids:
    return skeleton(np.random.default_rng(7), SUBJECT.person, SUBJECT.shape, **options)  # type: ignore[arg-type]


def _rows(solids: Solids) -> set[tuple[float, ...]]:
    return {(*c, *r, d) for c, r, d in zip(solids.centre, solids.radii, solids.density, strict=True)}


def test_levels_left_out_change_nothing_else() -> None:
    whole, some, none = _rows(_build()), _rows(_build(levels=LUMBAR)), _rows(_build(levels=()))
    assert none < some < whole
    heights = [row[2] for row in some - none]
    top = SUBJECT.shape.centre[LUMBAR[0], 2] + 40
    bottom = SUBJECT.shape.centre[LUMBAR[-1], 2] - 60
    assert min(heights) > bottom and max(heights) < top
    # a level that is asked for is the one of the whole skeleton
    assert len(whole - none) > 3 * len(some - none)


def test_pelvis_and_sacrum_can_be_left_out() -> None:
    gone = _rows(_build()) - _rows(_build(pelvis=False))
    assert len(gone) > 50
    assert _rows(_build(pelvis=False)) < _rows(_build())
    assert max(row[2] for row in gone) < SUBJECT.shape.centre[LAST_LUMBAR, 2] + 60


def test_ribs_near_the_spine_fade_out() -> None:
    without, bare = _build(levels=(), pelvis=False), _build(levels=(), pelvis=False, ribs_beyond_mm=45.0)
    line = SUBJECT.shape.line
    kept = {row[:-1]: row[-1] for row in _rows(bare)}

    def share(nearest: float, farthest: float) -> list[float]:
        """How much is left of the density of the ribs this far from the axis, mm."""
        shares = []
        for *place, density in _rows(without):
            x, y, z = place[:3]
            offset = abs(x - np.interp(-z, -line[:, 2], line[:, 0]))
            # between T11 and T1 and behind the bodies' middle at T6, ribs alone lie this near to the spine
            inside = SUBJECT.shape.centre[LEVELS.index("T11"), 2] < z < SUBJECT.shape.centre[FIRST_THORACIC, 2]
            if nearest < offset < farthest and inside and y > SUBJECT.shape.centre[FIRST_THORACIC + 5, 1]:
                shares.append(kept.get(tuple(place), 0.0) / density)
        return shares

    near, between, far = share(0, 44), share(47, 58), share(62, 80)
    assert near and max(near) == 0.0
    assert between and all(0 < value < 1 for value in between)
    assert far and far == pytest.approx([1.0] * len(far), abs=1e-5)
    # breastbone and collarbones stay
    front = bare.centre[:, 1] < SUBJECT.shape.centre[FIRST_THORACIC + 2, 1] - 60
    assert np.any(front & (np.abs(bare.centre[:, 0]) < 30))


def test_same_generator_same_bones_and_people_differ() -> None:
    assert _rows(_build()) == _rows(_build())
    people = [draw_person(np.random.default_rng(seed)) for seed in range(300)]
    turns = np.array([person.vertebrae.lamina_deg for person in people])
    assert 4.0 < turns.std() < 5.0
    for name in ("pedicle_width", "pedicle_height"):
        assert 0.05 < np.std([getattr(person.vertebrae, name) for person in people]) < 0.08
    discs = np.array([person.vertebrae.disc for person in people])
    assert discs.min() >= 0 and 1.0 < discs.max() <= 1.2
