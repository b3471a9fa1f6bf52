"""The codes of the structured report: public ones where there are, else the declared scheme 99EDGESPINE."""

from __future__ import annotations

from pydicom.sr.coding import Code

SCHEME = "99EDGESPINE"

REPORT_TITLE = Code("126000", "DCM", "Imaging Measurement Report")
PROCEDURE = Code("38269-7", "LN", "DEXA Skeletal System Study Report")
DEVICE = Code("121007", "DCM", "Device")
COMMENT = Code("121106", "DCM", "Comment")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
CENTERLINE = Code("130490", "DCM", "Centerline")
YES = Code("373066001", "SCT", "Yes")
NO = Code("373067005", "SCT", "No")

SPINE = Code("421060004", "SCT", "Spine")
SIDES = {"left": Code("7771000", "SCT", "Left"), "right": Code("24028007", "SCT", "Right")}
VERTEBRAE = {
    level: Code(value, "SCT", f"{level} vertebra")
    for level, value in {
        "T1": "64864005",
        "T2": "53733008",
        "T3": "1626008",
        "T4": "73071006",
        "T5": "56401006",
        "T6": "45296009",
        "T7": "62487009",
        "T8": "11068009",
        "T9": "82687006",
        "T10": "7610001",
        "T11": "12989004",
        "T12": "23215003",
        "L1": "66794005",
        "L2": "14293000",
        "L3": "36470004",
        "L4": "11994002",
        "L5": "49668003",
    }.items()
}

DEGREE = Code("deg", "UCUM", "Degree")
MILLIMETRE = Code("mm", "UCUM", "mm")
MILLILITRE = Code("ml", "UCUM", "ml")

COBB_ANGLE = Code("285285000", "SCT", "Cobb angle")
PATH_LENGTH = Code("121211", "DCM", "Path length")
VOLUME = Code("118565006", "SCT", "Volume")

# A public code for a kyphosis or lordosis angle is missing, and "Cobb angle" beside a coronal image would mislead.
LATERAL_CURVE = Code("lateral-curve", SCHEME, "Lateral curve of the spine")
SAGITTAL_CURVE = Code("sagittal-curve", SCHEME, "Sagittal curve of the spine, inferred, not seen")
FERGUSON_ANGLE = Code("ferguson-angle", SCHEME, "Ferguson angle")
CONVEX_SIDE = Code("convex-side", SCHEME, "Side to which the curve is convex")
APEX = Code("apex-level", SCHEME, "Level of the apex, estimated")
UPPER_END = Code("upper-end-level", SCHEME, "Upper end vertebra, estimated")
LOWER_END = Code("lower-end-level", SCHEME, "Lower end vertebra, estimated")
KYPHOSIS = Code("kyphosis-t4-t12", SCHEME, "Kyphosis T4-T12, inferred, not seen")
LORDOSIS = Code("lordosis-l1-l5", SCHEME, "Lordosis L1-L5, inferred, not seen")
PLANE = Code("max-curv-plane", SCHEME, "Azimuth of the plane of maximal curvature, inferred")
LATERAL_DEVIATION = Code("max-lateral-dev", SCHEME, "Greatest lateral deviation")
BAND_CORONAL = Code("band-90-coronal", SCHEME, "90 % band of the centreline, mean half-width, coronal")
BAND_SAGITTAL = Code("band-90-sagittal", SCHEME, "90 % band of the centreline, mean half-width, sagittal")
CURVE_METHOD = Code("curve-based", SCHEME, "Tangents of the fitted centreline, without endplates")
INFERRED = Code("inferred", SCHEME, "Sagittal shape inferred by a network from a coronal image")
CENTRELINE_3D = Code("centreline-3d", SCHEME, "3D centreline, inferred, not seen")
ACCEPTED = Code("accepted", SCHEME, "Accepted by the checks of quality")
QUALITY_FLAG = Code("quality-flag", SCHEME, "Quality flag")
