"""DICOM objects that hold a file: the surface as STL and the report as PDF."""

from __future__ import annotations

from pydicom.dataset import Dataset

from edge_spine.outputs import stl
from edge_spine.outputs.dicom import codes
from edge_spine.outputs.dicom.codes import coded_item
from edge_spine.outputs.dicom.identity import Identity, finished, identify, source_reference, source_series
from edge_spine.reading.dicom import quiet_pydicom
from edge_spine.result import SpineResult


@quiet_pydicom()
def encapsulated_stl(result: SpineResult) -> bytes:
    """Return the surface (mm, LPS) as an Encapsulated STL (PS3.3 A.85.1).

    It shares its frame of reference with the 3D centreline of the structured report alone: DXA defines no 3D patient
    frame. Errors are those of `identify`.
    """
    identity = identify(result)
    dataset = _document(identity, stl.render(result), "model/stl", "3D surface of the spine, inferred, not seen")
    dataset.Modality = "M3D"
    dataset.BurnedInAnnotation = "NO"
    dataset.FrameOfReferenceUID = identity.uid("frame-of-reference")
    dataset.PositionReferenceIndicator = ""
    dataset.MeasurementUnitsCodeSequence = [coded_item(codes.MILLIMETRE)]
    dataset.ReferencedSeriesSequence = [source_series(identity)]
    return finished(dataset, identity, result, "stl-dcm")


@quiet_pydicom()
def encapsulated_report(result: SpineResult) -> bytes:
    """Return report.pdf as an Encapsulated PDF (PS3.3 A.45.1). Errors are those of `identify`."""
    from edge_spine.outputs import report_pdf

    identity = identify(result)
    dataset = _document(identity, report_pdf.render(result), "application/pdf", "Spine from one DXA image, report")
    dataset.Modality = "DOC"
    dataset.ConversionType = "WSD"
    # The report shows the name of the scan's file, which may name the patient.
    dataset.BurnedInAnnotation = "YES"
    return finished(dataset, identity, result, "pdf-dcm")


def _document(identity: Identity, content: bytes, media_type: str, title: str) -> Dataset:
    dataset = Dataset()
    dataset.AcquisitionDateTime = ""
    dataset.DocumentTitle = title
    dataset.ConceptNameCodeSequence = []
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.MIMETypeOfEncapsulatedDocument = media_type
    dataset.EncapsulatedDocument = content
    dataset.EncapsulatedDocumentLength = len(content)
    dataset.SourceInstanceSequence = [source_reference(identity)]
    return dataset
