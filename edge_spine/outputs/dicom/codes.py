"""Codes of the DICOM objects: public ones where there are, else the private scheme 99EDGESPINE.

The codes of the measured numbers are in `edge_spine.quantities`.
"""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from edge_spine.quantities import SCHEME
from edge_spine.vertebrae import LEVELS

REPORT_TITLE = Code("126000", "DCM", "Imaging Measurement Report")
PROCEDURE = Code("38269-7", "LN", "DEXA Skeletal System Study Report")
DEVICE = Code("121007", "DCM", "Device")
COMMENT = Code("121106", "DCM", "Comment")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
ACQUISITION_EQUIPMENT = Code("109101", "DCM", "Acquisition Equipment")
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
CENTERLINE = Code("130490", "DCM", "Centerline")
YES = Code("373066001", "SCT", "Yes")
NO = Code("373067005", "SCT", "No")

SPINE = Code("421060004", "SCT", "Spine")
SIDES = {"left": Code("7771000", "SCT", "Left"), "right": Code("24028007", "SCT", "Right")}
VERTEBRAE: dict[str, Code] = {level: getattr(codes.SCT, f"{level}Vertebra") for level in LEVELS}

DEGREE = Code("deg", "UCUM", "Degree")
MILLIMETRE = Code("mm", "UCUM", "mm")
MILLILITRE = Code("ml", "UCUM", "ml")
UNITS = {unit.value: unit for unit in (DEGREE, MILLIMETRE, MILLILITRE)}

LATERAL_CURVE = Code("lateral-curve", SCHEME, "Lateral curve of the spine")
SAGITTAL_CURVE = Code("sagittal-curve", SCHEME, "Sagittal curve of the spine, inferred, not seen")
CONVEX_SIDE = Code("convex-side", SCHEME, "Side to which the curve is convex")
APEX = Code("apex-level", SCHEME, "Level of the apex, estimated")
UPPER_END = Code("upper-end-level", SCHEME, "Upper end vertebra, estimated")
LOWER_END = Code("lower-end-level", SCHEME, "Lower end vertebra, estimated")
BAND_CORONAL = Code("band-90-coronal", SCHEME, "90 % band of the centreline, mean half-width, coronal")
BAND_SAGITTAL = Code("band-90-sagittal", SCHEME, "90 % band of the centreline, mean half-width, sagittal")
CURVE_METHOD = Code("centre-chords", SCHEME, "Chords between vertebral body centres, without endplates")
INFERRED = Code("inferred", SCHEME, "Sagittal shape inferred by a network from a coronal image")
CENTRELINE_3D = Code("centreline-3d", SCHEME, "3D centreline, inferred, not seen")
ACCEPTED = Code("accepted", SCHEME, "Accepted by the checks of quality")
QUALITY_FLAG = Code("quality-flag", SCHEME, "Quality flag")


def coded_item(code: Code) -> Dataset:
    """Return a code as an item of a code sequence (PS3.3, 8.8)."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item
