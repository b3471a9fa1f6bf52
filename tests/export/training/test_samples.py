"""Sources and their shares, growing folders, and crops to judge on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.training.dataset import WIDE, load_shards, shard_path
from export.training.samples import Samples, held_out, prefetch


def _write(folder: Path, first: int, count: int, column: float) -> None:
    """A shard of empty crops whose coronal centre is at `column`, with a field that training does not read."""
    folder.mkdir(exist_ok=True)
    curves = np.zeros((count, WIDE, 6), np.float32)
    curves[:, :, :3] = np.array([column - 5, column, column + 5], np.float32)
    crops = np.full((count, WIDE, WIDE), 90, np.uint8)
    packs = np.array(["lumbar+thoracic"] * count)
    np.savez(shard_path(folder, first), crop=crops, curves=curves, packs=packs)


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    left, right = tmp_path / "left", tmp_path / "right"
    _write(left, 0, 6, 111.5 - 60)
    _write(right, 0, 2, 111.5 + 60)
    return [left, right]


def _share_of_first(samples: Samples) -> float:
    """Chance of the first source; its curves, mirrored, could be the second's, so that draws do not tell."""
    weights = samples._weights()
    return float(weights[: len(samples.shards[0])].sum())


def test_sources_are_drawn_by_size_or_by_share(sources: list[Path]) -> None:
    assert _share_of_first(Samples(sources, seed=0)) == pytest.approx(0.75)
    assert _share_of_first(Samples(sources, seed=0, shares=[1, 4])) == pytest.approx(0.2)
    seen = Samples(sources, seed=0, shares=[0, 1])
    images, targets = seen.batch(8, 64)
    assert images.shape == (8, 64, 64) and np.abs(targets.reshape(8, 209, 6)[:, :, 1] - 0.5).min() > 0.1


def test_shares_hold_while_a_source_grows(sources: list[Path]) -> None:
    samples = Samples(sources, seed=0, shares=[1, 1])
    _write(sources[1], 250, 30, 111.5)
    samples.refresh()
    assert samples.sizes() == [6, 32] and len(samples) == 38
    assert _share_of_first(samples) == pytest.approx(0.5)


@pytest.mark.parametrize("shares", [[1.0], [1, -1], [0, 0], [1, float("nan")]])
def test_odd_shares_are_one_line(sources: list[Path], shares: list[float]) -> None:
    with pytest.raises(SystemExit, match="--share"):
        Samples(sources, seed=0, shares=shares)


def test_an_empty_source_is_named(sources: list[Path], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no shards in .*missing"):
        Samples([*sources, tmp_path / "missing"], seed=0)


def test_fields_of_people_are_left_alone(sources: list[Path]) -> None:
    assert set(load_shards(sources[0])["shard_00000000.npz"]) == {"crop", "curves"}


def test_held_out_crops_come_from_the_whole_folder(tmp_path: Path) -> None:
    for first, column in ((0, 90.0), (250, 130.0)):
        _write(tmp_path / "two", first, 5, column)
    _, targets = held_out(tmp_path / "two", 4)
    assert np.round(targets[:, 0, 1] * 224).tolist() == [90, 90, 130, 130]
    with pytest.raises(SystemExit, match="no shards"):
        held_out(tmp_path, 4)


def test_what_fails_while_drawing_ends_training(sources: list[Path]) -> None:
    def change(crop: np.ndarray, curves: np.ndarray) -> np.ndarray:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        next(prefetch(Samples(sources, seed=0, change=change), lambda: (64, 2)))


@pytest.mark.slow
def test_processes_draw_like_the_thread_and_not_alike(sources: list[Path]) -> None:
    samples = Samples(sources, seed=0, shares=[1, 0])
    drawn = prefetch(samples, lambda: (64, 8), workers=2)
    batches = [next(drawn) for _ in range(4)]
    drawn.close()
    for images, targets, size in batches:
        assert images.shape == (8, 64, 64) and images.dtype == np.uint8 and size == 64
        # mirrored or not, far from the middle, where only the left source's curves are
        assert (np.abs(targets.reshape(8, 209, 6)[:, :, 1].mean(axis=1) - 0.5) > 0.15).all()
    assert len({targets.tobytes() for _, targets, _ in batches}) == 4


def test_what_fails_in_a_process_ends_training(sources: list[Path]) -> None:
    samples = Samples(sources, seed=0)
    for path in sources[0].glob("shard_*.npz"):
        path.write_bytes(b"cut")
    with pytest.raises(Exception, match=r"zip|pickle|shard"):
        next(prefetch(samples, lambda: (64, 2), workers=1))
