"""The spacing of a DICOM image: the caller's word, what the header states, and what is said where they disagree."""

from __future__ import annotations

from typing import Any

import pytest

from edge_spine.reading.read import scan_from_bytes
from tests.edge_spine.reading.samples import BODY, MakeDicom
from tests.edge_spine.refusing import refused


@pytest.mark.hazard("spacing-missing")
def test_the_callers_spacing_wins_over_a_stored_one_and_the_scan_says_so(make_dicom: MakeDicom) -> None:
    data = make_dicom(PixelSpacing=[1, 1])
    refused(data, "implausible-geometry")
    scan = scan_from_bytes(data, "file.dcm", pixel_spacing=(4, 4.5))
    assert scan.pixel_spacing_mm == (4, 4.5)
    assert scan.flags == ("pixel-spacing-given",)
    assert len(scan.notes) == 1
    assert all(figure in scan.notes[0] for figure in ("4, 4.5 mm", "PixelSpacing 1, 1 mm", "ExposedArea 4, 4 mm"))


def test_a_callers_spacing_that_agrees_needs_no_note(make_dicom: MakeDicom) -> None:
    scan = scan_from_bytes(make_dicom(), "file.dcm", pixel_spacing=(4.01, 4))
    assert (scan.pixel_spacing_mm, scan.flags, scan.notes) == ((4.01, 4), ("pixel-spacing-given",), ())


@pytest.mark.hazard("spacing-missing")
@pytest.mark.parametrize("spacing", [[4, 3], [3, 4], [4.5, 4.5], [2.6, 2.6]])
def test_two_statements_that_differ_grossly_are_refused_with_both(make_dicom: MakeDicom, spacing: list[float]) -> None:
    message = refused(make_dicom(PixelSpacing=spacing), "implausible-geometry")
    assert f"PixelSpacing {spacing[0]:g}, {spacing[1]:g} mm" in message and "ExposedArea 4, 4 mm" in message
    assert "--pixel-spacing ROW,COL" in message


@pytest.mark.hazard("spacing-missing")
@pytest.mark.parametrize("spacing", [[4.2, 4.2], [4, 3.8], [4.2, 4]])
def test_two_statements_that_differ_mildly_are_flagged_with_both(make_dicom: MakeDicom, spacing: list[float]) -> None:
    scan = scan_from_bytes(make_dicom(PixelSpacing=spacing), "file.dcm")
    assert list(scan.pixel_spacing_mm) == spacing
    assert scan.flags == ("spacing-conflict",)
    assert f"PixelSpacing {spacing[0]:g}, {spacing[1]:g} mm" in scan.notes[0] and "ExposedArea 4, 4 mm" in scan.notes[0]


@pytest.mark.hazard("spacing-missing")
@pytest.mark.parametrize(
    ("stored", "why"),
    [(b"1,5\\2,5 ", "not two numbers"), (b"2.4271  ", "not two numbers"), (b"0\\0     ", "implausible")],
)
def test_a_spacing_that_cannot_be_used_is_not_passed_over_in_silence(
    make_dicom: MakeDicom, stored: bytes, why: str
) -> None:
    def with_stored(**attributes: Any) -> bytes:
        data = make_dicom(PixelSpacing=[1.5, 2.5], **attributes)
        assert data.count(b"1.5\\2.5 ") == 1
        return data.replace(b"1.5\\2.5 ", stored)

    scan = scan_from_bytes(with_stored(), "file.dcm")
    assert scan.pixel_spacing_mm == (4, 4)
    assert scan.notes == (f"PixelSpacing is {why}, and ExposedArea 4, 4 mm is used",)
    assert f"its PixelSpacing is {why}" in refused(with_stored(ExposedArea=None), "no-spacing")


@pytest.mark.hazard("spacing-missing")
@pytest.mark.parametrize(
    ("attributes", "flagged"),
    [
        ({"PixelAspectRatio": [1, 1]}, False),
        ({"PixelAspectRatio": [4, 3]}, True),
        ({"PixelAspectRatio": [3, 4]}, True),
        ({"PixelAspectRatio": [4, 3], "ExposedArea": [480, 1920]}, False),
        ({"PixelAspectRatio": [1, 1], "ExposedArea": None, "PixelSpacing": [4, 3]}, True),
        ({"PixelAspectRatio": [1, 0]}, False),
        ({"PixelAspectRatio": [1]}, False),
        ({"PixelSpacing": [4.02, 3.98]}, False),
    ],
)
def test_the_ratio_of_pixels_is_compared(make_dicom: MakeDicom, attributes: dict[str, Any], flagged: bool) -> None:
    scan = scan_from_bytes(make_dicom(BODY, **attributes), "file.dcm")
    assert scan.flags == (("spacing-conflict",) if flagged else ())
    assert ("PixelAspectRatio" in "".join(scan.notes)) == flagged


@pytest.mark.hazard("spacing-missing")
def test_a_turned_image_turns_its_spacing(make_dicom: MakeDicom) -> None:
    data = make_dicom(BODY.T, PixelSpacing=[4, 3.9], ExposedArea=[1872, 640], PatientOrientation=["F", "L"])
    assert scan_from_bytes(data, "file.dcm").pixel_spacing_mm == (3.9, 4)
