"""Codes, public and private."""

from __future__ import annotations

import pytest
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from edge_spine.quantities import CURVE_QUANTITIES, QUANTITIES, SCHEME
from edge_spine.vertebrae import LEVELS
from tests.edge_spine.outputs.dicom_checks import (
    read,
    usual,
)


def test_the_codes_of_vertebrae_are_snomeds() -> None:
    from edge_spine.outputs.dicom.codes import VERTEBRAE

    thoracic = (
        "64864005 53733008 1626008 73071006 56401006 45296009 62487009 11068009 82687006 7610001 12989004 23215003"
    )
    lumbar = "66794005 14293000 36470004 11994002 49668003"
    assert tuple(VERTEBRAE) == LEVELS
    for (level, code), value in zip(VERTEBRAE.items(), f"{thoracic} {lumbar}".split(), strict=True):
        assert (code.value, code.scheme_designator, code.meaning) == (value, "SCT", f"{level} vertebra")


def test_every_public_code_is_as_the_standard_has_it() -> None:
    from edge_spine.outputs.dicom import codes as report_codes

    known = {
        "SPINE": codes.SCT.Spine,
        "CENTERLINE": codes.DCM.Centerline,
        "REPORT_TITLE": codes.DCM.ImagingMeasurementReport,
        "COMMENT": codes.DCM.Comment,
        "DEVICE": codes.DCM.Device,
        "ACQUISITION_EQUIPMENT": codes.DCM.AcquisitionEquipment,
        "PROCESSING_EQUIPMENT": codes.DCM.ProcessingEquipment,
        "SOURCE_IMAGE": codes.DCM.SourceImageForImageProcessingOperation,
        "DEGREE": codes.UCUM.Degree,
        "MILLIMETRE": codes.UCUM.Millimeter,
        "YES": codes.SCT.Yes,
        "NO": codes.SCT.No,
        "PROCEDURE": codes.cid7000.DEXASkeletalSystemStudyReport,
    }
    measured = {
        "max_cobb_deg": codes.SCT.CobbAngle,
        "cobb_deg": codes.SCT.CobbAngle,
        "centreline_length_mm": codes.DCM.PathLength,
        "volume_ml": codes.SCT.Volume,
    }
    quantities = {**QUANTITIES, **CURVE_QUANTITIES}
    assert measured.keys() == {name for name, quantity in quantities.items() if quantity.code[1] != SCHEME}
    for name, code in (known | measured).items():
        ours = Code(*quantities[name].code) if name in measured else getattr(report_codes, name)
        assert (ours.value, ours.scheme_designator) == (code.value, code.scheme_designator), name
        assert ours.meaning.lower() == code.meaning.lower(), name


def test_the_private_scheme_is_declared_and_its_codes_fit() -> None:
    pytest.importorskip("highdicom", reason="pip install '.[dicom]'")
    report = read(usual("sr"))
    schemes = {str(e.value) for e in report.iterall() if e.keyword == "CodingSchemeDesignator"}
    declared = {item.CodingSchemeDesignator for item in report.CodingSchemeIdentificationSequence}
    assert {scheme for scheme in schemes if scheme.startswith("99")} == declared == {"99EDGESPINE"}
    values = [str(e.value) for e in report.iterall() if e.keyword in ("CodeValue", "LongCodeValue")]
    assert values and all(len(value) <= 16 for value in values)
