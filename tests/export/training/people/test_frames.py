from pathlib import Path

import numpy as np
import pytest

from edge_spine.vertebrae import LEVELS
from export.training.people.frames import find_frames
from export.training.people.packs import read_pack
from tests.export.training.people.made_packs import (
    HALF_DEPTH,
    HALF_WIDTH,
    TURN_DEG,
    centres,
    write_ct,
    write_meshes,
)


@pytest.mark.parametrize("error_mm", [0.0, 2.5])
def test_places_sizes_and_turns_of_known_vertebrae_are_found(tmp_path: Path, error_mm: float) -> None:
    write_ct(tmp_path)
    with np.load(tmp_path / "made.npz") as stored:
        fields = dict(stored)
    # centres read by eye are off by a few mm
    rng = np.random.default_rng(1)
    fields["centers_mm"] = fields["centers_mm"] + rng.normal(0, error_mm, fields["centers_mm"].shape) * [0.3, 1, 1]
    np.savez(tmp_path / "seen.npz", **fields)
    frames = find_frames(read_pack(tmp_path, "seen"))
    truth = centres()
    inner = slice(1, len(LEVELS) - 1)
    assert np.abs(frames.centre - truth)[inner, :2].mean() < 0.8
    assert frames.scale == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose(frames.half_width, HALF_WIDTH, atol=2.0)
    np.testing.assert_allclose(frames.half_depth, HALF_DEPTH, atol=2.0)
    turn = np.degrees(np.arctan2(frames.axes[:, 0, 1], frames.axes[:, 0, 0]))
    assert np.abs(turn - TURN_DEG).mean() < 2.0


def test_the_same_rule_serves_meshes(tmp_path: Path) -> None:
    write_meshes(tmp_path, 9, 16)
    frames = find_frames(read_pack(tmp_path, "meshes"))
    np.testing.assert_allclose(frames.half_width, HALF_WIDTH[9:], atol=1.5)
    np.testing.assert_allclose(frames.half_depth, HALF_DEPTH[9:], atol=1.5)
    identity = np.einsum("lij,lkj->lik", frames.axes, frames.axes)
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(3), identity.shape), atol=1e-9)
