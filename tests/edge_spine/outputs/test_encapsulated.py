from __future__ import annotations

import numpy as np
import pytest

from edge_spine.outputs.encapsulated import encapsulated_pdf, encapsulated_stl
from edge_spine.outputs.registry import FORMATS
from tests.edge_spine.fake_result import fake_result
from tests.edge_spine.outputs.dicom_checks import PDF, fake_dicom_result, read

TRIANGLE = np.dtype([("normal", "<f4", (3,)), ("vertices", "<f4", (3, 3)), ("attribute", "<u2")])


def test_the_stl_is_the_surface_in_mm() -> None:
    result = fake_result()
    data = FORMATS["stl"].render(result)
    head = data[:80].decode("ascii")
    assert not head.startswith("solid")
    for word in ("mm", "LPS", "Not for Diagnostic Use, for research use only."):
        assert word in head
    vertices, faces = result.spine.mesh()
    assert int.from_bytes(data[80:84], "little") == len(faces)
    assert len(data) == 84 + 50 * len(faces)
    triangles = np.frombuffer(data, TRIANGLE, offset=84)
    np.testing.assert_allclose(triangles["vertices"], vertices[faces], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(triangles["normal"], axis=1), 1.0, atol=1e-5)
    # Normals point outwards: away from the axis of the ring that they belong to.
    away = triangles["vertices"].mean(axis=1) - result.spine.centreline.mean(axis=0)
    sides = np.abs(triangles["normal"][:, 2]) < 0.5
    assert ((away * triangles["normal"])[sides, :2].sum(axis=1) > 0).mean() > 0.8


def test_an_encapsulated_stl_gives_the_file_back() -> None:
    result = fake_dicom_result()
    document = read(encapsulated_stl(result))
    assert document.SOPClassUID == "1.2.840.10008.5.1.4.1.1.104.3"
    assert (document.Modality, document.MIMETypeOfEncapsulatedDocument) == ("M3D", "model/stl")
    content = document.EncapsulatedDocument[: document.EncapsulatedDocumentLength]
    assert content == FORMATS["stl"].render(result)
    assert document.MeasurementUnitsCodeSequence[0].CodeValue == "mm"
    assert document.SourceInstanceSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"
    assert document.BurnedInAnnotation == "NO"


def test_an_encapsulated_pdf_gives_the_file_back() -> None:
    document = read(encapsulated_pdf(fake_dicom_result(), PDF))
    assert document.SOPClassUID == "1.2.840.10008.5.1.4.1.1.104.1"
    assert (document.Modality, document.MIMETypeOfEncapsulatedDocument) == ("DOC", "application/pdf")
    assert len(document.EncapsulatedDocument) == len(PDF) + 1
    assert document.EncapsulatedDocument[: document.EncapsulatedDocumentLength] == PDF
    assert document.BurnedInAnnotation == "YES"


def test_another_report_is_another_instance_of_the_same_series() -> None:
    first, second = (read(encapsulated_pdf(fake_dicom_result(), content)) for content in (PDF, PDF + b"\n"))
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID == second.SeriesInstanceUID


def test_what_is_no_pdf_is_refused() -> None:
    with pytest.raises(ValueError, match="%PDF"):
        encapsulated_pdf(fake_dicom_result(), b"<html>")
