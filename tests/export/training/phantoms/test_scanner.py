"""Makes of scanner: each display says the same about the same person, and the runtime can read it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_spine import read_scan
from edge_spine.preprocessing.body import find_body
from export.training.phantoms.extras import carried
from export.training.phantoms.phantom import dicom_file, make_phantom, make_subject
from export.training.phantoms.scanner import IDXA, Scanner, draw_scanner

WINDOWED = Scanner(shape=(400, 300), field_mm=(1955.0, 660.0), step=1, window=(20.0, 230.0), gamma=1.2)


def test_drawn_scanners_cover_what_is_out_there() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_scanner(rng) for _ in range(600)]
    shares = {
        "windowed": np.mean([scanner.window is not None for scanner in drawn]),
        "inverted": np.mean([scanner.inverted for scanner in drawn]),
        "regions": np.mean([scanner.regions for scanner in drawn]),
        "moved": np.mean([scanner.moved > 0 for scanner in drawn]),
        "feet": np.mean([scanner.cut_feet > 0 for scanner in drawn]),
        "side": np.mean([scanner.cut_side_mm != 0 for scanner in drawn]),
    }
    assert {scanner.bits for scanner in drawn} == {8, 12, 16}
    assert max(scanner.pixel_mm[0] / scanner.pixel_mm[1] for scanner in drawn) > 2.5
    assert 0.25 < shares.pop("windowed") < 0.45
    assert all(0.02 < share < 0.2 for share in shares.values()), shares


@pytest.mark.parametrize(
    "scanner",
    [IDXA, WINDOWED, replace(WINDOWED, bits=16), replace(IDXA, bits=12, step=1, inverted=True)],
    ids=["iDXA", "windowed", "windowed 16 bit", "inverted 12 bit"],
)
def test_every_display_shows_the_spine_and_the_persons_extent(scanner: Scanner) -> None:
    phantom = make_phantom(77, scanner=scanner)
    assert phantom.bone.shape == scanner.shape and phantom.bone.max() <= 2**scanner.bits - 1
    body = find_body(phantom.bone.astype(np.float32))
    assert ("inverted" in body.flags) == scanner.inverted
    extent = (body.toe - body.crown) * scanner.pixel_mm[0]
    assert extent == pytest.approx(phantom.person.extent_mm, rel=0.015)
    truth = phantom.truth()
    rows = np.round(-truth.z / scanner.pixel_mm[0]).astype(int)
    columns = np.round(truth.coronal / scanner.pixel_mm[1]).astype(int)
    beside = columns[:, 2] + (columns[:, 2] - columns[:, 0]) // 2
    spine, flank = body.pixels[rows, columns[:, 1]].mean(), body.pixels[rows, beside].mean()
    assert spine - flank > 0.08 * (2**scanner.bits - 1)


def test_cut_feet_leave_the_field_and_moving_shifts_rows() -> None:
    cut = make_phantom(78, scanner=replace(IDXA, cut_feet=0.1))
    assert "feet-outside" in find_body(cut.bone.astype(np.float32)).flags
    still, moved = (make_phantom(79, scanner=replace(IDXA, moved=count)) for count in (0, 3))
    differing = (still.bone != moved.bone).mean(axis=1) > 0.05
    assert 0 < differing.sum() < 0.6 * len(differing)


def test_lines_of_regions_are_burned_in_at_the_highest_level() -> None:
    plain, lined = (make_phantom(80, scanner=replace(IDXA, regions=drawn)) for drawn in (False, True))
    added = (lined.bone != plain.bone) & (lined.bone == 252)
    assert added.sum() > 400
    assert added.sum() == (lined.bone != plain.bone).sum()


def test_what_people_carry_shows_saturated_and_leaves_most_people_alone() -> None:
    subjects = [make_subject(seed) for seed in range(60)]
    drawn = [carried(np.random.default_rng(s.seed), s.person, s.shape) for s in subjects]
    with_metal = [solids for solids in drawn if solids is not None and solids.density.max() > 4]
    assert 6 <= len(with_metal) <= 30


def test_a_12_bit_file_reads_back(tmp_path: Path) -> None:
    phantom = make_phantom(81, scanner=replace(IDXA, bits=12, step=1))
    dicom_file(phantom).save_as(tmp_path / "scan.dcm", enforce_file_format=True)
    scan = read_scan(tmp_path / "scan.dcm")
    np.testing.assert_array_equal(scan.pixels, phantom.bone)
    assert scan.pixel_spacing_mm == pytest.approx(phantom.framing.pixel_mm, rel=1e-3)
