"""Every frontal orientation is put right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_spine.reading.read import scan_from_bytes
from tests.edge_spine.reading.samples import BODY, MakeDicom
from tests.edge_spine.refusing import refused


@pytest.mark.hazard("image-turned")
@pytest.mark.parametrize(
    ("orientation", "store", "flags"),
    [
        (["L", "F"], lambda image: image, ()),
        (["R", "F"], np.fliplr, ("mirrored-put-right",)),
        (["L", "H"], np.flipud, ("mirrored-put-right",)),
        (["R", "H"], lambda image: np.rot90(image, 2), ("rotated-put-right",)),
        (["F", "L"], np.transpose, ("mirrored-put-right",)),
        (["F", "R"], lambda image: np.rot90(image, 1), ("rotated-put-right",)),
        (["H", "L"], lambda image: np.rot90(image, -1), ("rotated-put-right",)),
        (["H", "R"], lambda image: np.rot90(image.T, 2), ("mirrored-put-right",)),
        (["LA", "FP"], lambda image: image, ()),
    ],
)
def test_every_frontal_orientation_is_put_right(
    make_dicom: MakeDicom,
    orientation: list[str],
    store: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    flags: tuple[str, ...],
) -> None:
    stored = np.ascontiguousarray(store(BODY))
    swapped = stored.shape != BODY.shape
    spacing = [4.5, 4] if swapped else [4, 4.5]
    data = make_dicom(stored, PatientOrientation=orientation, PixelSpacing=spacing, ExposedArea=None)
    scan = scan_from_bytes(data, "file.dcm")
    np.testing.assert_array_equal(scan.pixels, BODY)
    assert scan.pixels.flags.c_contiguous
    assert scan.pixel_spacing_mm == (4.0, 4.5)
    assert scan.flags == flags and scan.notes == scan.turn.notes
    points = np.array([[0, 0], [159, 479], [30, 200]])
    columns, rows = scan.turn.stored_points(points, scan.pixels.shape).astype(int).T
    np.testing.assert_array_equal(stored[rows, columns], BODY[points[:, 1], points[:, 0]])


@pytest.mark.hazard("image-turned")
@pytest.mark.parametrize("orientation", [None, "", ["L"], ["L", "R"], ["F", "H"], ["X", "F"], ["L", "F", "F"]])
def test_unknown_orientation_is_flagged(make_dicom: MakeDicom, orientation: object) -> None:
    scan = scan_from_bytes(make_dicom(BODY, PatientOrientation=orientation), "file.dcm")
    np.testing.assert_array_equal(scan.pixels, BODY)
    assert scan.flags == ("orientation-unknown",)


@pytest.mark.hazard("image-turned")
def test_a_lateral_view_is_refused(make_dicom: MakeDicom) -> None:
    refused(make_dicom(PatientOrientation=["A", "F"]), "not-whole-body")
