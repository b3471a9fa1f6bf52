"""Pose real bone on a random curve and scan it: an image with exact truth."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_spine.errors import UsageError
from edge_spine.vertebrae import LEVELS as TRUNK
from export.training.people.pose import PROXIMAL_MM, Bone, Target, draw_arches, project, read_bone, without_ribs
from export.training.phantoms.absorptiometry import bone_density, soft_tissue
from export.training.phantoms.anatomy import draw_person, skeleton
from export.training.phantoms.extras import carried
from export.training.phantoms.person import Person
from export.training.phantoms.phantom import Phantom
from export.training.phantoms.scanner import Scanner, draw_framing, draw_scanner, scanner_images
from export.training.phantoms.shape import FIRST_THORACIC, Build, SpineShape, draw_build, draw_shape
from export.training.phantoms.variants import draw_variant, vary_discs

Array = NDArray[np.float64]
Packs = dict[str, tuple[int, ...]]

# Parts of seeds: for whether a person is a patchwork, and for its arches.
_PATCHWORK, _ARCHES = 8101, 8102
# Levels at which two packs may be joined.
_JOINT_FIRST, _JOINT_LAST = TRUNK.index("T9"), TRUNK.index("L1")


@dataclass(frozen=True)
class PersonScan(Phantom):
    """Phantom whose vertebrae and proximal ribs come from packs of real bone.

    Attributes
    ----------
    packs : tuple of str
        Names of its packs, from the head down.
    """

    packs: tuple[str, ...]


@dataclass(frozen=True)
class Piece:
    """Vertebrae `first` to `last` (indices into `edge_spine.vertebrae.LEVELS`), from a pack or generated."""

    name: str | None
    first: int
    last: int


def draw_patchwork(rng: np.random.Generator, owned: Packs) -> list[Piece]:
    """Cover T1 to L5 with runs of two to five vertebrae, each run from another pack than the one before it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Random generator.
    owned : dict
        Levels of each pack, by name.
    """

    def choose(level: int, have: list[str], pieces: list[Piece]) -> tuple[str, int]:
        others = [name for name in have if not pieces or name != pieces[-1].name]
        name = str(rng.choice(others or have))
        return name, min(level + int(rng.integers(2, 6)) - 1, owned[name][-1])

    return _cover(lambda _: owned, choose)


def draw_pieces(rng: np.random.Generator, owned: Packs) -> list[Piece]:
    """Cover T1 to L5 with packs, each of which is used for one contiguous range.

    Parameters
    ----------
    rng : numpy.random.Generator
        Random generator.
    owned : dict
        Levels of each pack, by name.
    """

    def unused(pieces: list[Piece]) -> Packs:
        before = {piece.name for piece in pieces}
        return {name: levels for name, levels in owned.items() if name not in before}

    def choose(level: int, have: list[str], _: list[Piece]) -> tuple[str, int]:
        name = str(rng.choice(have))
        last = owned[name][-1]
        others = [levels for other, levels in owned.items() if other != name]
        ends = [
            end
            for end in range(max(level + 3, _JOINT_FIRST), min(last, _JOINT_LAST) + 1)
            if any(end + 1 in levels and levels[-1] > last for levels in others)
        ]
        return name, int(rng.choice(ends)) if ends else last

    return _cover(unused, choose)


def _cover(
    available: Callable[[list[Piece]], Packs], choose: Callable[[int, list[str], list[Piece]], tuple[str, int]]
) -> list[Piece]:
    """Cover T1 to L5 from the head down, with generated vertebrae where no pack is available.

    `available` returns the packs that may follow the pieces so far; `choose` returns the pack of the next piece, among
    those that have its first level, and its last level.
    """
    pieces: list[Piece] = []
    level = 0
    while level < len(TRUNK):
        packs = available(pieces)
        have = [name for name, levels in packs.items() if level in levels]
        if have:
            name, last = choose(level, have, pieces)
            pieces.append(Piece(name, level, last))
        else:
            later = (k for levels in packs.values() for k in levels if k > level)
            pieces.append(Piece(None, level, min(later, default=len(TRUNK)) - 1))
        level = pieces[-1].last + 1
    return pieces


def make_person(
    folder: Path,
    names: Sequence[str],
    seed: int,
    scanner: Scanner | None = None,
    device: str = "cpu",
    variants: float = 0.0,
    patchwork: float = 0.0,
) -> PersonScan:
    """Pose the bone of the named packs on a drawn curve, and scan it.

    Levels without a pack are generated as in a phantom. The same arguments give the same image.

    Parameters
    ----------
    folder : Path
        Folder of the packs, see `export.training.people.packs`.
    names : sequence of str
        Names of permitted packs.
    seed : int
        Seed of all random choices.
    scanner : Scanner, optional
        Replaces the random scanner.
    device : str
        Device that integrates the generated bones.
    variants : float
        Share of unusual numbers of ribs, and of transitional last vertebrae (`draw_variant`).
    patchwork : float
        Share of people whose vertebrae come from many packs (`draw_patchwork`), and whose arches are moved along the
        spine and made lighter or heavier than those of their packs (`draw_arches`).

    Raises
    ------
    UsageError
        A pack is missing or has no vertebra.
    """
    if not names:
        raise UsageError("a person needs at least one pack of bone")
    rng = np.random.default_rng([seed, zlib.crc32(",".join(sorted(names)).encode())])
    person = replace(draw_person(rng), variant=draw_variant(seed, variants))
    bones = {name: read_bone(folder, name) for name in names}
    if person.variant.ribs == 11:
        bones = {name: without_ribs(bone, "T12") for name, bone in bones.items()}
    mixed = bool(np.random.default_rng([seed, _PATCHWORK]).random() < patchwork)
    draw = draw_patchwork if mixed else draw_pieces
    pieces = draw(rng, {name: bone.levels for name, bone in bones.items()})
    arches = draw_arches(np.random.default_rng([seed, _ARCHES]), len(TRUNK)) if mixed else None
    length = person.extent_mm * 0.258 * float(rng.normal(1.0, 0.02))
    stretch = (float(rng.normal(1.0, 0.03)), float(rng.normal(1.0, 0.04)))
    build = _build(rng, person, pieces, bones, length, stretch)
    shape = draw_shape(rng, length, build, person.lean_deg)
    drawn = draw_scanner(rng)
    chosen = scanner or drawn
    framing = draw_framing(rng, person, chosen)

    density = np.zeros(framing.shape, dtype=np.float32)
    gamma = float(np.exp(rng.normal(0, 0.12)))
    for piece in pieces:
        if piece.name is None:
            continue
        bone = bones[piece.name]
        own = None if arches is None else arches.of(bone.levels)
        posed = project(bone, _target(bone, piece, shape, stretch), framing, gamma, own)
        density += np.float32(person.bone * np.exp(rng.normal(0, 0.08))) * posed
    density = cv2.GaussianBlur(density, (0, 0), chosen.blur_px)
    phantom_levels = [FIRST_THORACIC + k for p in pieces if p.name is None for k in range(p.first, p.last + 1)]
    solid = skeleton(
        rng,
        person,
        shape,
        levels=[*range(FIRST_THORACIC), *phantom_levels],
        ribs_beyond_mm=PROXIMAL_MM * person.scale,
    )
    density += bone_density(solid, framing, chosen.blur_px, device)
    things = carried(rng, person, shape)
    if things is not None:
        density += bone_density(things, framing, chosen.blur_px, device)
    tissue, air = soft_tissue(rng, person, shape, framing)
    images = scanner_images(rng, chosen, framing, shape, density, tissue, air)
    packs = tuple(dict.fromkeys(piece.name for piece in pieces if piece.name))
    return PersonScan(seed, person, shape, chosen, framing, *images, packs=packs)


def _build(
    rng: np.random.Generator,
    person: Person,
    pieces: list[Piece],
    bones: dict[str, Bone],
    length_mm: float,
    stretch: tuple[float, float],
) -> Build:
    """Adapt a random build to the proportions of the packs and the size of the posed bone."""
    build = draw_build(rng, person.scale)
    pitch = build.pitch.copy()
    owned = [piece for piece in pieces if piece.name is not None]
    for piece in owned:
        bone = bones[str(piece.name)]
        own, levels = _slices(bone, piece)
        pitch[levels] = bone.frames.pitch[own] / bone.frames.scale * float(rng.normal(1.0, 0.01))
    build = replace(build, pitch=pitch).scaled_to(length_mm)
    width, depth = build.width.copy(), build.depth.copy()
    for piece in owned:
        bone = bones[str(piece.name)]
        own, levels = _slices(bone, piece)
        size = _size(bone, piece, build.pitch)
        width[levels] = 2 * bone.frames.half_width[own] * size * stretch[0]
        depth[levels] = 2 * bone.frames.half_depth[own] * size * stretch[1]
    return vary_discs(replace(build, width=width, depth=depth), person.variant)


def _slices(bone: Bone, piece: Piece) -> tuple[slice, slice]:
    """Return where a piece's vertebrae lie among those of its pack, and among the levels of a shape."""
    own = slice(piece.first - bone.levels[0], piece.last - bone.levels[0] + 1)
    return own, slice(FIRST_THORACIC + piece.first, FIRST_THORACIC + piece.last + 1)


def _size(bone: Bone, piece: Piece, pitch: Array) -> float:
    """Return the scale from a pack to the person, from the pitches of the used levels."""
    own, levels = _slices(bone, piece)
    return float(pitch[levels].sum() / bone.frames.pitch[own].sum())


def _target(bone: Bone, piece: Piece, shape: SpineShape, stretch: tuple[float, float]) -> Target:
    levels = [FIRST_THORACIC + k for k in bone.levels]
    size = _size(bone, piece, shape.pitch)
    return Target(
        centre=shape.centre[levels],
        axes=shape.axes[levels],
        size=(size * stretch[0], size * stretch[1], size),
        first=piece.first - bone.levels[0],
        last=piece.last - bone.levels[0],
    )
