from __future__ import annotations

from edge_spine.outputs.encapsulated import encapsulated_stl
from edge_spine.outputs.registry import FORMATS
from tests.edge_spine.outputs.dicom_checks import PDF, fake_dicom_result, read, render


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
    document = read(render("pdf-dcm", fake_dicom_result()))
    assert document.SOPClassUID == "1.2.840.10008.5.1.4.1.1.104.1"
    assert (document.Modality, document.MIMETypeOfEncapsulatedDocument) == ("DOC", "application/pdf")
    assert len(document.EncapsulatedDocument) == len(PDF) + 1
    assert document.EncapsulatedDocument[: document.EncapsulatedDocumentLength] == PDF
    assert document.BurnedInAnnotation == "YES"


def test_another_report_is_another_instance_of_the_same_series() -> None:
    first, second = (read(render("pdf-dcm", fake_dicom_result(), content)) for content in (PDF, PDF + b"\n"))
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
