"""MRI files: the same volume however its voxels run, and what a file does not state is not guessed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from export.training.alignment.nifti import as_orientation, read_mri
from export.training.alignment.phantom_mri import Grid
from export.training.alignment.volume import PairSkipped

GRID = Grid(shape=(8, 9, 10), voxel_mm=(2.0, 2.5, 3.0), first_mm=(-5.0, -7.0, 11.0))
VALUES = np.random.default_rng(0).random(GRID.shape, dtype=np.float32)
MASK = (VALUES > 0.5).astype(np.uint8)


def _write(folder: Path, mask: np.ndarray = MASK, affine: np.ndarray = GRID.affine) -> tuple[Path, Path]:
    paths = folder / "volume.nii", folder / "mask.nii"
    for path, values in zip(paths, (VALUES, mask), strict=True):
        nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return paths


def _set(path: Path, offset: int, kind: str, *values: float) -> None:
    """Change fields of a NIfTI-1 header."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<" + kind, content, offset, *values)
    path.write_bytes(content)


@pytest.mark.parametrize("axes", ["LPS", "RAS", "ASL", "PIR"])
def test_a_volume_reads_alike_however_its_voxels_run(tmp_path: Path, axes: str) -> None:
    grid = Grid(shape=(8, 9, 10), voxel_mm=(2.0, 2.5, 3.0), first_mm=(-5.0, -7.0, 11.0))
    values = np.random.default_rng(0).random(grid.shape, dtype=np.float32)
    image = nibabel.Nifti1Image(values, grid.affine)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(axes)
    )
    paths = tmp_path / "volume.nii.gz", tmp_path / "mask.nii.gz"
    nibabel.save(image.as_reoriented(turn), paths[0])
    nibabel.save(nibabel.Nifti1Image((values > 0.5).astype(np.uint8), grid.affine), paths[1])
    volume, mask = read_mri(*paths)
    np.testing.assert_allclose(volume.values, values)
    assert volume.voxel_mm == pytest.approx(grid.voxel_mm) and volume.first_mm == pytest.approx(grid.first_mm)
    np.testing.assert_array_equal(mask.values, values > 0.5)


def test_an_oblique_volume_is_put_straight(tmp_path: Path) -> None:
    grid = Grid(shape=(40, 40, 40), voxel_mm=(2.0, 2.0, 2.0), first_mm=(-39.0, -39.0, -39.0))
    points = np.stack(np.meshgrid(*[grid.axis(k) for k in range(3)], indexing="ij"), axis=-1)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    affine = turn @ grid.affine
    # a ball at LPS (10, -6, 8), written on turned axes
    ras = points * (-1, -1, 1) @ turn[:3, :3].T
    values = (np.linalg.norm(ras - (-10, 6, 8), axis=-1) < 9).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "ball.nii")
    volume, _ = read_mri(tmp_path / "ball.nii", tmp_path / "ball.nii")
    held = np.argwhere(volume.values > 0.5) * volume.voxel_mm + volume.first_mm
    np.testing.assert_allclose(held.mean(axis=0), (10, -6, 8), atol=0.5)


@pytest.mark.parametrize("axes", ["LPS", "PIR", "SRA"])
def test_an_oblique_volume_keeps_the_size_of_its_voxels(tmp_path: Path, axes: str) -> None:
    """Slices of 6 mm may run in any direction; the pitch belongs to that of the patient."""
    columns = {"L": (-1.5, 0, 0), "R": (1.5, 0, 0), "P": (0, -2, 0), "A": (0, 2, 0), "S": (0, 0, 6), "I": (0, 0, -6)}
    affine = np.eye(4)
    affine[:3, :3] = np.transpose([columns[letter] for letter in axes])
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    affine = turn @ affine
    nibabel.save(nibabel.Nifti1Image(np.ones((24, 24, 24), np.float32), affine), tmp_path / "volume.nii")
    volume, _ = read_mri(tmp_path / "volume.nii", tmp_path / "volume.nii")
    assert volume.voxel_mm == pytest.approx((1.5, 2.0, 6.0))


def test_a_sheared_volume_is_put_straight(tmp_path: Path) -> None:
    """Slices that are shifted against each other, as a tilted gantry leaves them."""
    values = np.zeros((40, 40, 40), np.float32)
    sheared = np.diag([-2.0, -2.0, 2.0, 1.0])
    sheared[1, 2] = 0.3
    x, y, z = np.meshgrid(*[np.arange(40.0)] * 3, indexing="ij")
    points = np.stack([x, y, z, np.ones_like(x)], axis=-1) @ sheared.T
    values[np.linalg.norm(points[..., :3] - (-40, -34, 44), axis=-1) < 9] = 1
    nibabel.save(nibabel.Nifti1Image(values, sheared), tmp_path / "ball.nii")
    volume, _ = read_mri(tmp_path / "ball.nii", tmp_path / "ball.nii")
    held = np.argwhere(volume.values > 0.5) * volume.voxel_mm + volume.first_mm
    np.testing.assert_allclose(held.mean(axis=0), (40, 34, 44), atol=0.5)


def test_a_big_endian_volume_reads_alike(tmp_path: Path) -> None:
    paths = _write(tmp_path)
    for path, values in zip(paths, (VALUES, MASK), strict=True):
        nibabel.save(nibabel.Nifti1Image(values, GRID.affine, nibabel.Nifti1Header(endianness=">")), path)
        assert path.read_bytes()[:4] == bytes([0, 0, 1, 92])
    volume, mask = read_mri(*paths)
    np.testing.assert_array_equal(volume.values, VALUES)
    np.testing.assert_array_equal(mask.values, MASK)


def test_a_negative_spacing_turns_no_stated_orientation(tmp_path: Path) -> None:
    paths = _write(tmp_path)
    for path in paths:
        _without_orientation(path)
        _set(path, 80, "f", -2.0)
    np.testing.assert_array_equal(read_mri(*paths, "LPS")[1].values, MASK)


def test_a_mask_on_a_grid_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    volume, mask = _write(tmp_path)
    away = GRID.affine.copy()
    away[:3, 3] += 500
    nibabel.save(nibabel.Nifti1Image(MASK, away), mask)
    with pytest.raises(PairSkipped) as refused:
        read_mri(volume, mask)
    assert refused.value.code == "mri-mask-empty"


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("kept", [0, 30, 900])
def test_a_cut_archive_skips_the_pair(tmp_path: Path, number: int, kept: int) -> None:
    paths = tmp_path / "volume.nii.gz", tmp_path / "mask.nii.gz"
    for path in paths:
        nibabel.save(nibabel.Nifti1Image(VALUES, GRID.affine), path)
    paths[number].write_bytes(paths[number].read_bytes()[:kept])
    with pytest.raises(PairSkipped) as refused:
        read_mri(*paths)
    assert refused.value.code == ("mri-unreadable", "mri-mask-unreadable")[number]


def test_several_volumes_in_one_file_are_refused(tmp_path: Path) -> None:
    volume, mask = _write(tmp_path)
    nibabel.save(nibabel.Nifti1Image(np.stack([VALUES] * 2, axis=-1), GRID.affine), volume)
    with pytest.raises(PairSkipped, match="3D volume"):
        read_mri(volume, mask)
    # one alone is a volume
    nibabel.save(nibabel.Nifti1Image(VALUES[..., None], GRID.affine), volume)
    np.testing.assert_array_equal(read_mri(volume, mask)[0].values, VALUES)


def _without_orientation(path: Path) -> None:
    _set(path, 252, "hh", 0, 0)


def test_without_orientation_a_volume_is_refused_unless_it_is_said(tmp_path: Path) -> None:
    volume, mask = _write(tmp_path)
    for path in (volume, mask):
        _without_orientation(path)
    with pytest.raises(PairSkipped, match="--orientation LPS") as refused:
        read_mri(volume, mask)
    assert refused.value.code == "mri-orientation"
    found, spine = read_mri(volume, mask, "LPS")
    np.testing.assert_allclose(found.values, VALUES)
    np.testing.assert_array_equal(spine.values, MASK)
    assert found.voxel_mm == pytest.approx(GRID.voxel_mm)
    turned, _ = read_mri(volume, mask, "RAS")
    np.testing.assert_allclose(turned.values, VALUES[::-1, ::-1])


def test_a_mask_that_alone_states_no_orientation_is_refused(tmp_path: Path) -> None:
    volume, mask = _write(tmp_path)
    _without_orientation(mask)
    for orientation in (None, "LPS"):
        with pytest.raises(PairSkipped):
            read_mri(volume, mask, orientation)


@pytest.mark.parametrize("text", ["LP", "LPSI", "LRS", "XYZ", "", "LLL"])
def test_a_wrong_orientation_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no orientation"):
        as_orientation(text)
    assert as_orientation("lps") == "LPS"


def _nan_affine(path: Path) -> None:
    _set(path, 280, "f", float("nan"))


def _zero_affine(path: Path) -> None:
    _set(path, 280, "12f", *[0.0] * 12)
    _set(path, 252, "h", 0)


def _contrary(path: Path) -> None:
    image = nibabel.load(path)
    values = np.asarray(image.dataobj)
    other = nibabel.Nifti1Image(values, GRID.affine)
    other.set_sform(GRID.affine, 1)
    other.set_qform(np.diag([2.0, 2.5, 3.0, 1.0]), 1)
    nibabel.save(other, path)


def _negative(path: Path) -> None:
    _set(path, 42, "h", -8)


def _huge(path: Path) -> None:
    _set(path, 42, "hhh", 32000, 32000, 32000)


def _unknown_kind(path: Path) -> None:
    _set(path, 70, "h", 12345)


def _colours(path: Path) -> None:
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(np.zeros(GRID.shape, kind), GRID.affine), path)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def _text(path: Path) -> None:
    path.write_text("Jane Doe")


def _not_finite(path: Path) -> None:
    _set(path, 400, "f", float("inf"))


@pytest.mark.parametrize(
    "spoil",
    [_nan_affine, _zero_affine, _contrary, _negative, _huge, _unknown_kind, _colours, _cut, _text, _not_finite],
)
@pytest.mark.parametrize("number", [0, 1], ids=["volume", "mask"])
def test_a_damaged_file_skips_the_pair(tmp_path: Path, spoil: Callable[[Path], None], number: int) -> None:
    paths = _write(tmp_path, MASK.astype(np.float32))
    spoil(paths[number])
    for orientation in (None, "LPS"):
        with pytest.raises(PairSkipped) as refused:
            read_mri(*paths, orientation)
        assert refused.value.code.startswith("mri-") and "Jane" not in refused.value.message


@pytest.mark.parametrize(
    "mask",
    [MASK * 7, (MASK * 0.9 + 0.04).astype(np.float32), MASK.astype(np.float64), MASK.astype(np.int16) * 300],
    ids=["labels", "probabilities", "floating point", "16 bit"],
)
def test_masks_of_every_kind_read_alike(tmp_path: Path, mask: np.ndarray) -> None:
    np.testing.assert_array_equal(read_mri(*_write(tmp_path, mask))[1].values, MASK)


@pytest.mark.parametrize(
    "mask", [VALUES * 300, VALUES - 0.5, -MASK.astype(np.int16)], ids=["255", "logits", "negative"]
)
def test_a_mask_whose_values_mean_nothing_known_is_refused(tmp_path: Path, mask: np.ndarray) -> None:
    with pytest.raises(PairSkipped) as refused:
        read_mri(*_write(tmp_path, mask))
    assert refused.value.code == "mri-mask-values"
