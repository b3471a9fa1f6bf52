from pathlib import Path

import numpy as np
import pytest

from edge_spine.errors import UsageError
from edge_spine.vertebrae import LEVELS
from export.training.people.packs import fill, pack_names, read_pack
from tests.export.training.people.made_packs import centres, cylinder, write_ct, write_meshes


def test_names_are_found_below_the_folder_and_an_empty_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no packs of bone"):
        pack_names(tmp_path)
    (tmp_path / "inner").mkdir()
    write_ct(tmp_path / "inner", 0, 3, "b")
    write_ct(tmp_path, 0, 3, "a")
    assert pack_names(tmp_path) == ("a", "b")


def test_an_unknown_pack_is_refused_with_the_names_that_exist(tmp_path: Path) -> None:
    write_ct(tmp_path, 0, 3, "only_one")
    with pytest.raises(UsageError, match="only_one"):
        read_pack(tmp_path, "other")


def test_a_ct_pack_keeps_bone_and_leaves_out_what_is_masked(tmp_path: Path) -> None:
    write_ct(tmp_path, 2, 5)
    pack = read_pack(tmp_path, "made")
    assert [LEVELS[k] for k in pack.levels] == ["T3", "T4", "T5", "T6"]
    x, y, z = np.rint(pack.centres_mm[1] / pack.step_mm).astype(int)
    assert pack.mineral[z, y, x] == pytest.approx((420 - 35) * 0.0008, rel=0.05)
    assert pack.mineral[z, 2, 2] == 0
    with np.load(tmp_path / "made.npz") as stored:
        fields = dict(stored)
    keep = np.unpackbits(fields["keep"])[: fields["hu"].size].reshape(fields["keep_shape"])
    keep[z, y, x] = 0
    np.savez(tmp_path / "masked.npz", **{**fields, "keep": np.packbits(keep)})
    assert read_pack(tmp_path, "masked").mineral[z, y, x] == 0


def test_a_closed_surface_is_filled_to_its_volume() -> None:
    vertices, faces = cylinder(np.array([30.0, 25.0, 20.0]), 17.0, 13.0, 24.0)
    solid = fill(vertices.astype(float), faces, np.zeros(3), (50, 45, 40))
    volume = solid.sum() * 1.25**3
    assert volume == pytest.approx(np.pi * 17 * 13 * 24, rel=0.03)


def test_a_mesh_pack_has_walls_marrow_and_bodies_where_they_are(tmp_path: Path) -> None:
    write_meshes(tmp_path, 12, 16)
    pack = read_pack(tmp_path, "meshes")
    assert pack.levels == (12, 13, 14, 15, 16)
    np.testing.assert_allclose(pack.centres_mm, centres(12, 16), atol=1.0)
    assert pack.mineral.max() > 0.75
    middle = np.rint((pack.centres_mm[2] - pack.origin_mm) / pack.step_mm).astype(int)
    assert pack.mineral[tuple(middle[::-1])] == pytest.approx(0.17)


def test_vertebrae_that_each_have_their_own_frame_are_stacked(tmp_path: Path) -> None:
    bones = {}
    for k in range(12, 17):
        vertices, faces = cylinder(np.zeros(3), 17.0, 13.0, 26.0)
        bones[f"{LEVELS[k]}__v"], bones[f"{LEVELS[k]}__f"] = vertices, faces
    np.savez(tmp_path / "apart.npz", **bones)
    pitch = -np.diff(read_pack(tmp_path, "apart").centres_mm[:, 2])
    np.testing.assert_allclose(pitch, 38.0, atol=1.0)
