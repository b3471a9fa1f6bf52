"""What the header calls another examination is refused."""

from __future__ import annotations

import pytest

from edge_spine.reading.read import scan_from_bytes
from edge_spine.scan import Scan
from tests.edge_spine.reading.samples import MakeDicom, pydicom_file
from tests.edge_spine.refusing import refused


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "reportsi.dcm",
        "JPEG2000.dcm",
        "rtdose.dcm",
        "waveform_ecg.dcm",
    ],
)
def test_real_files_of_other_modalities(name: str) -> None:
    assert "DXA" in refused(pydicom_file(name), "not-dxa")


@pytest.mark.parametrize("name", ["RG1_UNCR.dcm", "RG3_UNCR.dcm", "RG1_J2KR.dcm"])
def test_real_radiographs(name: str) -> None:
    assert "radiograph" in refused(pydicom_file(name), "not-dxa")


@pytest.mark.parametrize("modality", ["US", "PT", "NM", "MG", "XA", "RF", "PR", "DOC", "PX", "XC", "SEG"])
def test_other_modalities(make_dicom: MakeDicom, modality: str) -> None:
    refused(make_dicom(Modality=modality), "not-dxa")


@pytest.mark.parametrize("modality", ["CR", "DX", "OT", "BMD", "DEXA", "DXA", "XR", "unheard of", None])
def test_modalities_of_densitometers_and_words_that_name_none(make_dicom: MakeDicom, modality: str | None) -> None:
    assert isinstance(scan_from_bytes(make_dicom(Modality=modality), "file.dcm"), Scan)


@pytest.mark.parametrize(
    "protocol", ["AP Spine", "LVA", "Left Femur", "Right Femur", "Left Ortho Knee", "AP_SPINE", "Dual Hips"]
)
def test_dxa_of_another_region(make_dicom: MakeDicom, protocol: str) -> None:
    refused(make_dicom(ProtocolName=protocol), "not-whole-body")
    refused(make_dicom(ProtocolName=None, SeriesDescription=protocol), "not-whole-body")


def test_the_protocol_decides_before_the_description(make_dicom: MakeDicom) -> None:
    data = make_dicom(ProtocolName="AP Spine", SeriesDescription="Total body, spine and hip")
    refused(data, "not-whole-body")
    data = make_dicom(ProtocolName="Whole Body", SeriesDescription="spine", BodyPartExamined="HEAD")
    assert isinstance(scan_from_bytes(data, "file.dcm"), Scan)


@pytest.mark.parametrize("part", ["WHOLEBODY", "WHOLE BODY", "BODY", "", None])
def test_whole_body_parts(make_dicom: MakeDicom, part: str | None) -> None:
    assert isinstance(scan_from_bytes(make_dicom(ProtocolName=None, BodyPartExamined=part), "file.dcm"), Scan)


def test_a_body_part_of_a_densitometer_and_of_a_radiograph(make_dicom: MakeDicom) -> None:
    refused(make_dicom(ProtocolName=None, BodyPartExamined="LSPINE"), "not-whole-body")
    radiograph = {"Manufacturer": "Some X-ray", "ManufacturerModelName": None, "ProtocolName": None}
    refused(make_dicom(BodyPartExamined="CHEST", **radiograph), "not-dxa")


def test_free_text_never_reaches_a_message(make_dicom: MakeDicom) -> None:
    refused(make_dicom(ProtocolName="SECRET^NAME spine"), "not-whole-body")
    refused(make_dicom(ProtocolName=None, BodyPartExamined="SECRET^NAME\nhip"), "not-whole-body")


@pytest.mark.parametrize("keyword", ["Manufacturer", "ManufacturerModelName"])
def test_our_own_results_are_no_scans(make_dicom: MakeDicom, keyword: str) -> None:
    assert "result of edge-spine" in refused(make_dicom(**{keyword: "Edge-Spine"}), "not-dxa")


@pytest.mark.parametrize(
    "text",
    [
        *("Ganzkörper", "DXA Ganzkoerper", "Corps entier", "Cuerpo completo", "全身骨密度", "Helkropp", "Всё тело"),
        *("Auto Whole Body", "Infant Whole Body", "DXA BONE DENSITY HIP SPINE TOTAL BODY", "Total Body Spine Hip"),
        *("Body Composition", "Body composition less head", "WB subtotal (TBLH: total body less head)", "TBLH"),
        *(
            "TBLH body composition, head excluded",
            "DXA w/o legs",
            "Densitometry, head first",
            "head to toe, hands seen",
        ),
        *("Osteoporosis", "Routine 3", "Handheld export"),
    ],
)
def test_words_that_name_no_other_region(make_dicom: MakeDicom, text: str) -> None:
    unicode = {"SpecificCharacterSet": "ISO_IR 192"}
    for keyword in ("ProtocolName", "SeriesDescription"):
        data = make_dicom(**{**unicode, "ProtocolName": None, keyword: text})
        assert isinstance(scan_from_bytes(data, "file.dcm"), Scan)


@pytest.mark.parametrize("part", ["GANZKOERPER", "WB", "OTHER", "UNKNOWN", "TRUNK", "SKELETON", "BONE DENSITY"])
def test_body_parts_that_name_no_other_region(make_dicom: MakeDicom, part: str) -> None:
    assert isinstance(scan_from_bytes(make_dicom(ProtocolName=None, BodyPartExamined=part), "file.dcm"), Scan)


@pytest.mark.parametrize("part", ["LSPINE", "HIP", "chest", "L SPINE", "PELVISLOWEXTREMT", "Hip_Left"])
def test_body_parts_that_name_another_region(make_dicom: MakeDicom, part: str) -> None:
    refused(make_dicom(ProtocolName=None, BodyPartExamined=part), "not-whole-body")
