from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from edge_spine.errors import UsageError
from edge_spine.vertebrae import LEVELS
from export.training.dataset import choose_packs, load_shards, make_sample, render
from export.training.people import make_person
from export.training.people.person import draw_patchwork, draw_pieces
from export.training.people.pose import Arches, Target, draw_arches, motions, project, read_bone, without_ribs
from export.training.phantoms.scanner import IDXA, Framing
from tests.export.training.people.made_packs import write_ct, write_meshes

REAL = Path(__file__).resolve().parents[5] / "shared" / "data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packs of made bone: a whole spine, a chest and a lumbar spine."""
    path = tmp_path_factory.mktemp("packs")
    write_ct(path)
    write_ct(path, name="bodies", arches=False)
    write_ct(path, 0, 12, "chest")
    write_meshes(path, 9, 16, "lumbar")
    return path


def still(folder: Path, shift: float = 0.0) -> Target:
    frames = read_bone(folder, "made").frames
    return Target(frames.centre + [shift, 0, 0], frames.axes, (1.0, 1.0, 1.0), 0, len(LEVELS) - 1)


def test_bone_that_does_not_move_keeps_its_place_and_mass(folder: Path) -> None:
    bone = read_bone(folder, "made")
    framing = Framing((270, 90), (2.0, 2.0), (520.0, -30.0))
    image = project(bone, still(folder), framing)
    total = sum(float(mass.sum()) for mass in bone.mass)
    assert image.sum() * 0.04 == pytest.approx(total, rel=1e-3)
    columns = framing.top_left_mm[1] + 2.0 * np.arange(90)
    assert (image.sum(axis=0) * columns).sum() / image.sum() == pytest.approx(
        sum(float((m * p[:, 0]).sum()) for m, p in zip(bone.mass, bone.parts, strict=True)) / total, abs=0.1
    )


def test_vertebrae_stay_rigid_and_the_thorax_takes_the_smooth_part(folder: Path) -> None:
    frames = read_bone(folder, "made").frames
    target = still(folder)
    bent = target.centre.copy()
    bent[:, 0] += 3.0 * (-1.0) ** np.arange(len(bent))
    rigid, thorax = motions(frames, Target(bent, target.axes, (1.0, 1.0, 1.0), 0, 16))
    np.testing.assert_allclose(
        rigid[:, :, :3] @ np.swapaxes(rigid[:, :, :3], 1, 2), np.tile(np.eye(3), (17, 1, 1)), atol=1e-9
    )
    assert np.ptp(rigid[2:-2, 0, 3]) > 5.9
    assert np.ptp(thorax[4:-4, 0, 3]) < 1.0


def test_posed_bodies_lie_between_the_true_borders(folder: Path) -> None:
    scan = make_person(folder, ["bodies"], 3, IDXA)
    shape, bone = scan.shape, read_bone(folder, "bodies")
    size = float(shape.pitch[5:22].sum() / bone.frames.pitch.sum())
    stretch = shape.width[5:22].mean() / (2 * bone.frames.half_width.mean()) / size
    target = Target(shape.centre[5:22], shape.axes[5:22], (size * stretch, size, size), 0, 16)
    framing = Framing((1000, 400), (0.6, 0.6), (300.0, -120.0))
    image = project(bone, target, framing)
    found, true = [], []
    for level in range(6, 21):
        row = int((framing.top_left_mm[0] - shape.centre[level, 2]) / 0.6)
        profile = image[row - 6 : row + 7].mean(axis=0)
        columns = np.flatnonzero(profile > 0.15 * profile.max())
        found.append(framing.top_left_mm[1] + 0.6 * columns[[0, -1]])
        true.append(scan.curves_at(np.array([shape.centre[level, 2]]))[0, [0, 2]])
    error = np.array(found) - np.array(true)
    assert np.abs(error.mean(axis=1)).mean() < 0.8
    assert np.abs(error).mean() < 1.5


@pytest.mark.slow
def test_the_same_seed_gives_the_same_image_and_another_one_another(folder: Path) -> None:
    first, again, other = (make_person(folder, ["chest", "lumbar"], seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.bone, again.bone)
    assert first.bone.shape != other.bone.shape or np.any(first.bone != other.bone)
    assert set(first.packs) == {"chest", "lumbar"}


def test_spines_join_at_matching_levels_and_gaps_become_a_phantoms() -> None:
    rng = np.random.default_rng(0)
    joints = set()
    for _ in range(60):
        pieces = draw_pieces(rng, {"chest": tuple(range(13)), "lumbar": tuple(range(9, 17))})
        assert [p.name for p in pieces] == ["chest", "lumbar"]
        assert pieces[0].last + 1 == pieces[1].first
        joints.add(pieces[1].first)
    assert len(joints) >= 3
    alone = draw_pieces(rng, {"lumbar": tuple(range(12, 17))})
    assert [(p.name, p.first, p.last) for p in alone] == [(None, 0, 11), ("lumbar", 12, 16)]
    top = draw_pieces(rng, {"chest": tuple(range(5))})
    assert [(p.name, p.first, p.last) for p in top] == [("chest", 0, 4), (None, 5, 16)]


def test_patchwork_covers_each_level_once_with_short_runs_of_changing_packs() -> None:
    rng = np.random.default_rng(0)
    owned = {"whole": tuple(range(17)), "chest": tuple(range(12)), "lumbar": tuple(range(9, 17))}
    for _ in range(60):
        pieces = draw_patchwork(rng, owned)
        assert [k for p in pieces for k in range(p.first, p.last + 1)] == list(range(17))
        assert all(p.first in owned[str(p.name)] and p.last in owned[str(p.name)] for p in pieces)
        assert all(p.last - p.first < 5 for p in pieces) and len(pieces) >= 4
        assert all(one.name != two.name for one, two in pairwise(pieces))
    gap = draw_patchwork(rng, {"neck": (0, 1, 2), "lumbar": tuple(range(12, 17))})
    assert (None, 3, 11) in [(p.name, p.first, p.last) for p in gap]


def test_arches_move_along_the_spine_and_bodies_stay(folder: Path) -> None:
    bone = read_bone(folder, "made")
    framing = Framing((270, 90), (2.0, 2.0), (520.0, -30.0))
    steady = Arches(np.zeros(17), np.ones(17))
    whole, same = project(bone, still(folder), framing), project(bone, still(folder), framing, arches=steady)
    np.testing.assert_array_equal(whole, same)
    moved = project(bone, still(folder), framing, arches=Arches(np.full(17, 0.1), np.ones(17)))
    rows = framing.top_left_mm[0] - 2.0 * np.arange(270)
    fallen = ((whole - moved).sum(axis=1) * rows).sum() / whole.sum()
    behind, mass = (np.concatenate(values) for values in (bone.behind, bone.mass))
    assert fallen == pytest.approx(0.1 * float((behind * mass).sum() / mass.sum()), rel=0.02)
    assert 0 < (behind > 0).mean() < 0.7
    # without arches nothing moves
    bodies = read_bone(folder, "bodies")
    plain, turned = (
        project(bodies, still(folder), framing, arches=arches)
        for arches in (None, draw_arches(np.random.default_rng(1), 17))
    )
    assert np.abs(plain - turned).sum() < 0.02 * plain.sum()


def test_people_of_many_packs_are_drawn_on_request_alone(folder: Path) -> None:
    names = ["chest", "lumbar", "made"]
    plain, mixed = (make_person(folder, names, 8, IDXA, patchwork=share) for share in (0.0, 1.0))
    assert len(mixed.packs) == 3
    np.testing.assert_array_equal(plain.bone, make_person(folder, names, 8, IDXA).bone)
    assert mixed.bone.shape != plain.bone.shape or np.any(mixed.bone != plain.bone)


@pytest.mark.slow
def test_shards_of_people_say_whose_bone_they_hold(folder: Path, tmp_path: Path) -> None:
    render(tmp_path, 2, 7, 1, partial(make_person, folder, ("chest", "lumbar")))
    (shard,) = load_shards(tmp_path, fields=("crop", "packs")).values()
    assert shard["crop"].shape == (2, 272, 272)
    assert all(set(packs.split("+")) <= {"chest", "lumbar"} for packs in shard["packs"].tolist())


def test_packs_are_chosen_by_name(folder: Path) -> None:
    assert choose_packs(folder, None, "made") == ("bodies", "chest", "lumbar")
    assert choose_packs(folder, "made", None) == ("made",)
    with pytest.raises(UsageError, match="bodies, chest, lumbar, made"):
        choose_packs(folder, "nobody", None)
    with pytest.raises(UsageError, match="left"):
        choose_packs(folder, "made", "made")
    with pytest.raises(UsageError, match="at least one"):
        make_person(folder, [], 1)


@pytest.mark.slow
@pytest.mark.parametrize("names", [("lidc_0314", "tcga_ov"), ("xcat50",), ("myosim",)])
def test_real_packs_make_people_whose_spine_shows_where_it_is(names: tuple[str, ...]) -> None:
    if not all(any(REAL.rglob(f"{name}.npz")) for name in names):
        pytest.skip("the packs of real bone are not on this machine (looked in ../shared/data)")
    sample = make_sample(make_person(REAL, names, 2, IDXA))
    rows = np.arange(40, 232)
    curves = sample.curves[rows] + [24, 24, 24, 0, 0, 0]
    inside = np.mean([sample.crop[r, int(c[0]) + 2 : int(c[2]) - 1].mean() for r, c in zip(rows, curves, strict=True)])
    beside = np.mean(
        [sample.crop[r, [int(c[0]) - 14, int(c[2]) + 14]].mean() for r, c in zip(rows, curves, strict=True)]
    )
    assert inside > beside + 30


def test_ribs_of_one_level_are_taken_away(folder: Path) -> None:
    bone = read_bone(folder, "made")
    less = without_ribs(bone, "T12")
    framing = Framing((270, 90), (2.0, 2.0), (520.0, -30.0))
    whole, left = (project(kind, still(folder), framing) for kind in (bone, less))
    gone = whole - left
    assert 0 < gone.sum() < 0.02 * whole.sum()
    rows, columns = np.nonzero(gone > 1e-4)
    level = LEVELS.index("T12")
    x, _, z = bone.frames.centre[level]
    assert np.abs(framing.top_left_mm[1] + 2.0 * columns - x).min() > 23
    assert np.abs(framing.top_left_mm[0] - 2.0 * rows - z).max() < 0.6 * bone.frames.pitch[level]
    # a pack without that level stays as it is
    assert without_ribs(read_bone(folder, "lumbar"), "T1") is read_bone(folder, "lumbar")


def test_variants_keep_the_names_of_a_person(folder: Path) -> None:
    usual, drawn = (make_person(folder, ["made"], 5, IDXA, variants=share) for share in (0.0, 1.0))
    assert drawn.person.variant.ribs != 12 and drawn.person.variant.last != "usual"
    np.testing.assert_allclose(drawn.body_centres, usual.body_centres, atol=0.5)
    assert drawn.bone.shape == usual.bone.shape and np.any(drawn.bone != usual.bone)
