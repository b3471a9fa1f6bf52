"""Values copied from the scan: as they came where DICOM can hold them, else named as dropped."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from edge_spine.outputs.dicom.values import copied_attributes
from tests.edge_spine.outputs.dicom.sources import TYPE_2, with_raw
from tests.edge_spine.outputs.dicom_checks import (
    KINDS,
    assert_valid,
    fake_dicom_result,
    header,
    read,
    render,
)


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 100", "Müller^Jörg^Ä"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("ISO_IR 192", "Διονυσιος=王^小東"),
        (None, "Plain^Name"),
    ],
)
@pytest.mark.parametrize("kind", [pytest.param("sr", marks=pytest.mark.slow), "stl-dcm"])
def test_names_keep_their_letters(kind: str, character_set: Any, name: str, tmp_path: Path) -> None:
    data = render(kind, fake_dicom_result(header(SpecificCharacterSet=character_set, PatientName=name)))
    found = read(data)
    assert str(found.PatientName) == name
    assert name.encode() in data
    assert found.SpecificCharacterSet == "ISO_IR 192"
    assert_valid(data, tmp_path)


pytest.importorskip("highdicom", reason="pip install '.[dicom]'")

ILLEGAL = {
    "PatientName": "line\none",
    "PatientID": "\x1bescape",
    "PatientBirthDate": "19501332",
    "PatientSex": "X",
    "StudyDate": "yesterday",
    "StudyTime": "25h",
    "StudyID": "tab\tbed",
    "AccessionNumber": "line\none",
    "ReferringPhysicianName": "a=b=c=d",
    "PatientAge": "45",
    "PatientWeight": "heavy",
    "PatientIdentityRemoved": "MAYBE",
    "StudyDescription": "\x07bell",
    "TimezoneOffsetFromUTC": "UTC",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_that_is_not_legal_is_left_out(kind: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    source = with_raw(header(PatientComments="kept\r\nover lines"), ILLEGAL)
    data = render(kind, fake_dicom_result(source))
    found = read(data)
    for keyword in ILLEGAL:
        assert not found.get(keyword), keyword
        assert (keyword in found) == (keyword in TYPE_2), keyword
    assert found.PatientComments == "kept\r\nover lines"
    said = found.ContributingEquipmentSequence[-1].ContributionDescription
    assert all(keyword in said for keyword in ILLEGAL) and "PatientComments" not in said
    assert not any(value in said for value in ILLEGAL.values() if len(value) > 4)
    assert_valid(data, tmp_path)
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyDate", "20200231"),
        ("StudyDate", "20200101-20200102"),
        ("StudyDate", "2020.01.02"),
        ("StudyTime", "0102-0304"),
        ("ReferringPhysicianName", "a^b^c^d^e^f"),
        ("ReferringPhysicianName", "A=" + "B" * 65),
        ("AccessionNumber", "\\"),
    ],
)
def test_what_only_a_query_or_nobody_may_send_is_left_out(keyword: str, value: str, tmp_path: Path) -> None:
    data = render("stl-dcm", fake_dicom_result(with_raw(header(), {keyword: value})))
    assert read(data)[keyword].value in ("", None)
    assert_valid(data, tmp_path)


# Nonconformant, but every reader gets from the result what it gets from the scan.
IRREGULAR = {
    "PatientID": ("HOSP\\12345", "4" * 65, "a\\\\b"),
    "IssuerOfPatientID": ("I" * 70, "A\\B"),
    "AccessionNumber": ("20240105-0905-000017", "A\\1"),
    "StudyID": ("S" * 17,),
    "PatientName": ("A" * 65, "a=b=c=d", "a^b^c^d^e^f", "Doe\\Jane"),
}


@pytest.mark.hazard("patient-lost")
@pytest.mark.parametrize("kind", [pytest.param("sr", marks=pytest.mark.slow), *KINDS[1:]])
@pytest.mark.parametrize(("keyword", "value"), [(key, value) for key, values in IRREGULAR.items() for value in values])
def test_what_archives_match_by_is_carried_as_it_came(
    kind: str, keyword: str, value: str, recwarn: pytest.WarningsRecorder
) -> None:
    source = with_raw(header(), {keyword: value})
    data = render(kind, fake_dicom_result(source))
    assert [str(warning.message) for warning in recwarn] == []
    assert value.encode() in data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read(data)[keyword].value == source[keyword].value
    copied = copied_attributes(source)
    assert (copied.dropped, copied.irregular) == ((), (keyword,))


def test_nothing_is_said_of_what_is_carried_or_was_never_there() -> None:
    for source in (
        header(),
        header(**dict.fromkeys(TYPE_2)),
        with_raw(header(), {"PatientID": " \0", "StudyID": "\\"}),
    ):
        copied = copied_attributes(source)
        assert copied.dropped == copied.irregular == ()


def test_several_values_of_which_one_is_empty_are_carried() -> None:
    source = with_raw(header(), {"OtherPatientIDs": "A\\\\B", "PhysiciansOfRecord": "One^A\\"})
    found = read(render("stl-dcm", fake_dicom_result(source)))
    assert list(found.OtherPatientIDs) == ["A", "", "B"] and found.PhysiciansOfRecord == "One^A"


def test_bytes_that_are_no_text_are_left_out() -> None:
    source = with_raw(header(SpecificCharacterSet="ISO_IR 192"), {"PatientName": "M\xfcller", "StudyDescription": "ok"})
    found = read(render("stl-dcm", fake_dicom_result(source)))
    assert found.PatientName == "" and found.StudyDescription == "ok"


def test_an_attribute_of_another_kind_is_left_out() -> None:
    source = header()
    source.add(DataElement(Tag("StudyDescription"), "OB", b"\1\2"))
    source.add(DataElement(Tag("PatientID"), "SQ", [Dataset()]))
    found = read(render("stl-dcm", fake_dicom_result(source)))
    assert "StudyDescription" not in found and found.PatientID == ""


def test_an_item_that_lacks_what_it_must_hold_is_left_out(tmp_path: Path) -> None:
    whole, bare = Dataset(), Dataset()
    whole.PatientID, whole.TypeOfPatientID = "X9", "TEXT"
    bare.PatientID = "X8"
    code = Dataset()
    code.CodeValue = "only a value"
    source = header(
        OtherPatientIDsSequence=[bare, whole],
        ProcedureCodeSequence=[code],
        PatientIdentityRemoved="YES",
        ClinicalTrialSponsorName="sponsor without protocol",
    )
    data = render("sr", fake_dicom_result(source))
    found = read(data)
    assert [item.PatientID for item in found.OtherPatientIDsSequence] == ["X9"]
    for keyword in ("ProcedureCodeSequence", "PatientIdentityRemoved", "ClinicalTrialSponsorName"):
        assert keyword not in found
    assert_valid(data, tmp_path)


def test_a_trial_and_a_removed_identity_are_copied_whole(tmp_path: Path) -> None:
    source = header(
        PatientIdentityRemoved="YES",
        DeidentificationMethod="PS3.15 basic profile",
        ClinicalTrialSponsorName="sponsor",
        ClinicalTrialProtocolID="protocol",
        ClinicalTrialSubjectID="subject",
    )
    data = render("stl-dcm", fake_dicom_result(source))
    found = read(data)
    assert found.PatientIdentityRemoved == "YES" and found.ClinicalTrialSubjectID == "subject"
    assert found.ClinicalTrialSiteID == ""
    assert_valid(data, tmp_path)


@pytest.mark.hazard("patient-lost")
@pytest.mark.parametrize("kind", [pytest.param("sr", marks=pytest.mark.slow), *KINDS[1:]])
def test_the_order_is_carried(kind: str, tmp_path: Path) -> None:
    order, empty = Dataset(), Dataset()
    order.RequestedProcedureID, order.ScheduledProcedureStepID, order.AccessionNumber = "RP1", "SPS1", "A1"
    empty.RequestedProcedureID = ""
    source = header(RequestAttributesSequence=[order, empty])
    data = render(kind, fake_dicom_result(source))
    (found,) = read(data).RequestAttributesSequence
    assert (found.RequestedProcedureID, found.ScheduledProcedureStepID, found.AccessionNumber) == ("RP1", "SPS1", "A1")
    assert_valid(data, tmp_path)
    assert copied_attributes(source).dropped == ()


@pytest.mark.hazard("patient-lost")
def test_what_archives_match_by_is_carried_as_it_came_in_an_item_too() -> None:
    order = Dataset()
    order.RequestedProcedureID, order.AccessionNumber = "RP1", "short"
    source = header(RequestAttributesSequence=[order])
    with_raw(source.RequestAttributesSequence[0], {"AccessionNumber": "20240105-0905-000017"})
    (found,) = copied_attributes(source).attributes.RequestAttributesSequence
    assert found.AccessionNumber == "20240105-0905-000017"


@pytest.mark.hazard("patient-lost")
@pytest.mark.parametrize(("named", "irregular"), [(None, True), ("ISO_IR 999", True), ("ISO_IR 144", False)])
def test_letters_of_no_known_character_set_are_called_a_guess(named: str | None, irregular: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copied = copied_attributes(with_raw(header(SpecificCharacterSet=named), {"PatientName": "\xbc\xee"}))
    assert copied.attributes.PatientName != "" and copied.irregular == ("PatientName",) * irregular
