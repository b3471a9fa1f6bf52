"""preview.sc.dcm: the preview as a Secondary Capture image, which every DICOM viewer shows."""

from __future__ import annotations

import numpy as np
from highdicom.sc import SCImage

from edge_spine.outputs import preview_png
from edge_spine.outputs.dicom import codes
from edge_spine.outputs.dicom.codes import coded_item
from edge_spine.outputs.dicom.identity import CAUTION, MANUFACTURER, finished, identify, source_reference
from edge_spine.reading.dicom import quiet_pydicom
from edge_spine.result import SpineResult


@quiet_pydicom()
def render(result: SpineResult) -> bytes:
    """Return the preview as a Secondary Capture image (PS3.3 A.8.1), RGB, 1000 rows and 1600 columns.

    It shows neither the name of the file, which may name a patient, nor times. Errors are those of `identify`.
    """
    identity = identify(result)
    picture = preview_png.draw(result, about_this_run=False).image
    image = SCImage(
        pixel_array=np.ascontiguousarray(picture[..., ::-1]),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        study_instance_uid=identity.source.StudyInstanceUID,
        series_instance_uid=identity.uid("series", "sc"),
        series_number=1,
        sop_instance_uid=identity.uid("series", "sc"),
        instance_number=1,
        manufacturer=MANUFACTURER,
    )
    image.ConversionType = "WSD"
    image.ImageType = ["DERIVED", "SECONDARY"]
    # Empty: the page shows the body from several sides.
    image.PatientOrientation = []
    # An unpaired body part needs no Laterality.
    image.BodyPartExamined = "SPINE"
    image.BurnedInAnnotation = "NO"
    image.DerivationDescription = f"Preview of a 3D spine that was estimated from one DXA image. {CAUTION}"
    image.ImageComments = CAUTION
    source = source_reference(identity)
    source.PurposeOfReferenceCodeSequence = [coded_item(codes.SOURCE_IMAGE)]
    image.SourceImageSequence = [source]
    return finished(image, identity, result, "sc")
