"""Phantoms: what is drawn agrees with what is said to be true, and files read back as a scanner's do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge_spine import read_scan
from edge_spine.preprocessing.body import find_body, skull_to_abdomen
from edge_spine.reading.kinds import ImageFile
from edge_spine.reading.spacing import stated_spacing
from export.training.phantoms.absorptiometry import bone_density
from export.training.phantoms.anatomy import skeleton
from export.training.phantoms.phantom import Phantom, dicom_file, main, make_phantom, make_subject
from export.training.phantoms.scanner import IDXA, draw_framing, draw_scanner


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [make_phantom(seed, scanner=IDXA) for seed in (101, 102, 103, 104)]


def test_the_spine_is_where_the_truth_says(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        truth = phantom.truth()
        row_mm = phantom.framing.pixel_mm[0]
        rows = np.round(-truth.z / row_mm).astype(int)

        def level(x: np.ndarray, rows: np.ndarray = rows, phantom: Phantom = phantom) -> float:
            columns = np.round(x / phantom.framing.pixel_mm[1]).astype(int)
            return float(phantom.bone[rows, columns].mean())

        inside = level(truth.coronal[:, 1])
        width = truth.coronal[:, 2] - truth.coronal[:, 0]
        for side, sign in ((0, -1), (2, 1)):
            outside = level(truth.coronal[:, side] + sign * 0.35 * width)
            assert inside > outside + 25


def test_measured_extent_is_the_persons(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        body = find_body(phantom.bone.astype(np.float32))
        extent = (body.toe - body.crown) * phantom.framing.pixel_mm[0]
        assert extent == pytest.approx(phantom.person.extent_mm, rel=0.012)


def test_bone_adds_up_from_parts_of_a_skeleton() -> None:
    subject = make_subject(7, IDXA)
    solids = skeleton(np.random.default_rng(7), subject.person, subject.shape)
    assert 1000 < len(solids) < 4000
    density = bone_density(solids, subject.framing)
    lumbar = density[np.round((subject.framing.top_left_mm[0] - subject.shape.centre[18, 2]) / 2.427).astype(int)]
    assert 0.4 < lumbar.max() < 3.5


def test_grey_levels_are_the_scanners(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        assert phantom.bone.dtype == np.uint8 and phantom.bone.shape == (791, 272)
        assert phantom.bone[0].max() == 0 and np.all(phantom.bone % 2 == 0)
        assert phantom.bone.max() == 252


def test_bone_and_soft_tissue_images_are_told_apart(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        ratios = [skull_to_abdomen(find_body(image.astype(np.float32))) for image in (phantom.bone, phantom.tissue)]
        assert ratios[0] > 1.5 and ratios[1] < 1.2


def test_same_seed_same_scan_and_subject() -> None:
    one, two = make_phantom(55), make_phantom(55)
    np.testing.assert_array_equal(one.bone, two.bone)
    np.testing.assert_array_equal(make_subject(55).shape.line, one.shape.line)
    assert make_subject(56).person != one.person


def test_every_scanner_states_the_spacing() -> None:
    subject = make_subject(9)
    seen = set()
    for seed in range(30):
        scanner = draw_scanner(np.random.default_rng(seed))
        framing = draw_framing(np.random.default_rng(seed), subject.person, scanner)
        rows, columns = framing.shape
        image = np.zeros((rows, columns), np.uint8 if scanner.bits <= 8 else np.uint16)
        file = dicom_file(Phantom(seed, subject.person, subject.shape, scanner, framing, image, image))
        spacing = stated_spacing(file, rows, columns, ImageFile(b""))
        assert spacing.mm == pytest.approx(framing.pixel_mm, rel=2e-3) and not spacing.flags
        seen.add(file.Manufacturer)
    assert len(seen) == 2


def test_files_read_back_with_spacing_and_truth(tmp_path: Path) -> None:
    assert main(["--count", "2", "--seed", "9", "--idxa", "--out", str(tmp_path)]) == 0
    scan = read_scan(tmp_path / "phantom_9_bone.dcm")
    phantom = make_phantom(9, scanner=IDXA)
    np.testing.assert_array_equal(scan.pixels, phantom.bone)
    assert scan.pixel_spacing_mm == pytest.approx(phantom.framing.pixel_mm)
    record = json.loads((tmp_path / "phantom_10_truth.json").read_text(encoding="utf-8"))
    assert np.array(record["coronal"]).shape == (209, 3)
    assert np.mean(np.array(record["sagittal"])[:, 1]) == pytest.approx(0, abs=1e-3)
    assert (tmp_path / "contact_sheet.png").stat().st_size > 10_000
