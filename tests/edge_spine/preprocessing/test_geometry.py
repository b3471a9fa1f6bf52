"""A wrong spacing shows in the body: on the bundled scan and the real one, in both directions or in one."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_spine import read_scan
from edge_spine.errors import Refusal
from edge_spine.preprocessing import geometry, prepare
from edge_spine.preprocessing.geometry import (
    ASPECT_DOUBTFUL,
    LENGTHS,
    MEANS,
    SCALE_DOUBTFUL,
    Geometry,
    check_geometry,
    compare,
    measure_geometry,
)
from edge_spine.preprocessing.locator import Localiser
from edge_spine.scan import Scan

BUNDLED = Path(str(files("edge_spine") / "data" / "synthetic_whole_body.dcm"))


@pytest.fixture(scope="module", params=["bundled", "real"])
def scan(request: pytest.FixtureRequest) -> Scan:
    return read_scan(BUNDLED if request.param == "bundled" else request.getfixturevalue("real_bone"))


def _with(scan: Scan, rows: float, columns: float) -> Scan:
    row_mm, column_mm = scan.pixel_spacing_mm
    return replace(scan, pixel_spacing_mm=(row_mm * rows, column_mm * columns))


def _remarks(scan: Scan, localiser: Localiser) -> dict[str, str]:
    return check_geometry(scan, prepare(scan, localiser))


def _without_height(scan: Scan) -> Scan:
    return replace(scan, header=None)


def test_a_right_spacing_is_not_remarked(scan: Scan, localiser: Localiser) -> None:
    assert _remarks(scan, localiser) == {}


@pytest.mark.hazard("spacing-plausible")
@pytest.mark.parametrize("factor", [0.85, 1.15])
def test_a_wrong_scale_is_flagged_with_the_figures(scan: Scan, localiser: Localiser, factor: float) -> None:
    changed = _without_height(_with(scan, factor, factor))
    remarks = _remarks(changed, localiser)
    assert list(remarks) == [SCALE_DOUBTFUL]
    assert f"{changed.pixel_spacing_mm[0]:.4g}, {changed.pixel_spacing_mm[1]:.4g} mm" in remarks[SCALE_DOUBTFUL]
    assert all(name in remarks[SCALE_DOUBTFUL] for name in LENGTHS)


@pytest.mark.hazard("spacing-plausible")
@pytest.mark.parametrize("factors", [(1.0, 1.1), (1.0, 0.9), (1.1, 1.0), (0.9, 1.0)])
def test_a_wrong_aspect_is_flagged(scan: Scan, localiser: Localiser, factors: tuple[float, float]) -> None:
    assert ASPECT_DOUBTFUL in _remarks(_with(scan, *factors), localiser)


@pytest.mark.hazard("spacing-plausible")
@pytest.mark.parametrize("factors", [(1.0, 1.3), (1.0, 0.75), (1.25, 1.0), (0.75, 1.0)])
def test_a_gross_aspect_is_refused_with_the_values(
    scan: Scan, localiser: Localiser, factors: tuple[float, float]
) -> None:
    with pytest.raises(Refusal) as refusal:
        _remarks(_with(scan, *factors), localiser)
    assert refusal.value.code == "implausible-geometry"
    assert "times as wide for its height" in refusal.value.reason
    assert "skull breadth" in refusal.value.reason and "--pixel-spacing ROW,COL" in refusal.value.reason


@pytest.mark.hazard("spacing-plausible")
def test_a_gross_scale_is_refused(localiser: Localiser) -> None:
    with pytest.raises(Refusal) as refusal:
        _remarks(_with(read_scan(BUNDLED), 1.35, 1.35), localiser)
    assert refusal.value.code == "implausible-geometry"


def test_part_of_an_image_under_the_area_of_the_whole_is_refused(localiser: Localiser) -> None:
    scan = read_scan(BUNDLED)
    rows, columns = scan.pixels.shape
    feet_cut = replace(_with(scan, rows / 640, 1), pixels=scan.pixels[:640])
    sides_cut = replace(_with(scan, 1, columns / 212), pixels=scan.pixels[:, 30:242])
    for cut in (feet_cut, sides_cut):
        with pytest.raises(Refusal, match="times as wide"):
            _remarks(cut, localiser)


@pytest.mark.hazard("spacing-plausible")
@pytest.mark.parametrize(
    ("table", "size", "flagged"),
    [
        # a small person under a spacing that is too large, as the image of a whole table tells
        (1.15, 1.035, True),
        (1.15, 1.02, False),
        # a person of unusual size in the image of a whole table, of a part of one, and gigantic
        (1.0, 0.86, False),
        (None, 0.86, True),
        (1.0, 1.16, False),
        (1.0, 1.25, True),
    ],
)
def test_the_size_of_the_table_decides_about_persons_of_unusual_size(
    monkeypatch: pytest.MonkeyPatch, table: float | None, size: float, flagged: bool
) -> None:
    found = Geometry(np.exp(MEANS) * size, size, 1.0, table)
    monkeypatch.setattr(geometry, "measure_geometry", lambda *_: found)
    scan = _without_height(read_scan(BUNDLED))
    prepared: Any = None
    assert (SCALE_DOUBTFUL in check_geometry(scan, prepared)) is flagged


@pytest.mark.hazard("spacing-plausible")
def test_a_recorded_height_tells_of_a_wrong_scale(localiser: Localiser) -> None:
    # part of an image has no table's shape, so that only the height can tell
    scan = read_scan(BUNDLED)
    assert scan.header is not None
    rows = slice(0, 755)
    extent = measure_geometry(prepare(scan, localiser), scan.pixels.shape).lengths_mm[2]
    right = replace(scan, pixels=scan.pixels[rows])
    assert extent > 0
    scan.header.PatientSize = extent / 1000 / 1.04
    assert _remarks(right, localiser) == {}
    wrong = _with(right, 0.9, 0.9)
    assert "PatientSize" in _remarks(wrong, localiser)[SCALE_DOUBTFUL]
    assert _remarks(_without_height(wrong), localiser) == {}
    for unusable in (None, 0, 177):
        scan.header.PatientSize = unusable
        assert _remarks(wrong, localiser) == {}


def test_factors_are_those_put_in() -> None:
    usual = np.exp(MEANS)
    along_columns = np.array([1, 1, 0, 0])
    assert compare(usual) == pytest.approx((1, 1))
    assert compare(usual * 1.2)[0] == pytest.approx(1.2)
    assert compare(usual * 1.2)[1] == pytest.approx(1)
    assert compare(usual * np.where(along_columns, 1.1, 1))[1] == pytest.approx(1.1)
    assert compare(usual * np.where(along_columns, 1, 1.1))[1] == pytest.approx(1 / 1.1)


@pytest.mark.parametrize("missing", [(1,), (2,), (3,), (1, 2), (0, 3)])
def test_a_length_that_is_not_seen_is_left_out(missing: tuple[int, ...]) -> None:
    lengths = 1.2 * np.exp(MEANS)
    lengths[list(missing)] = np.nan
    assert compare(lengths) == pytest.approx((1.2, 1))


@pytest.mark.parametrize("missing", [(0, 1), (2, 3), (0, 1, 2, 3)])
def test_lengths_along_one_axis_alone_are_not_judged(missing: tuple[int, ...]) -> None:
    lengths = np.exp(MEANS)
    lengths[list(missing)] = np.nan
    assert compare(lengths) == (None, None)


def test_the_lengths_of_a_real_person(real_bone: Path, localiser: Localiser) -> None:
    scan = read_scan(real_bone)
    found = measure_geometry(prepare(scan, localiser), scan.pixels.shape)
    # read off the image by eye: skull 61 to 62 columns, hip joints 64 columns apart, crown to toe 758 rows
    np.testing.assert_allclose(found.lengths_mm, [149, 155, 1840, 865], rtol=0.02)
    assert found.table == pytest.approx(1, abs=0.005)
