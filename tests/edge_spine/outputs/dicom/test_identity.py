"""What all DICOM objects have in common: validity, whose they are, UIDs, and no clock."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from edge_spine.errors import EdgeSpineError, OutputError
from edge_spine.estimator import SpineEstimator
from edge_spine.outputs.dicom.identity import CAUTION, flagged, identify
from edge_spine.outputs.registry import DICOM_OBJECTS
from edge_spine.quality import Quality
from edge_spine.reading import read_scan
from edge_spine.reading.read import scan_from_bytes
from edge_spine.result import SpineResult
from tests.conftest import MakeDicom
from tests.edge_spine.fake_result import fake_curves, fake_pixels, fake_result
from tests.edge_spine.outputs.dicom.sources import TYPE_2, with_raw
from tests.edge_spine.outputs.dicom_checks import (
    KINDS,
    assert_valid,
    fake_dicom_result,
    header,
    read,
    render,
    stored,
    usual,
)

pytest.importorskip("highdicom", reason="pip install '.[dicom]'")


def uids(data: bytes) -> dict[str, str]:
    dataset = read(data)
    return {keyword: str(dataset[keyword].value) for keyword in ("SOPInstanceUID", "SeriesInstanceUID")}


@pytest.mark.parametrize("kind", KINDS)
def test_the_bundled_scan_gives_valid_objects(kind: str, demo_result: SpineResult, tmp_path: Path) -> None:
    assert_valid(render(kind, demo_result), tmp_path)


@pytest.fixture(scope="module")
def real_result(real_bone: Path, estimator: SpineEstimator) -> SpineResult:
    return estimator(read_scan(real_bone))


@pytest.mark.parametrize("kind", KINDS)
def test_a_real_scan_gives_valid_objects(kind: str, real_result: SpineResult, tmp_path: Path) -> None:
    assert_valid(render(kind, real_result), tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_straight_spine_without_bands_gives_valid_objects(kind: str, tmp_path: Path) -> None:
    result = fake_dicom_result(curves=fake_curves(lateral_mm=0.0), band_90=None)
    assert result.measurements.scoliosis_curves == ()
    assert_valid(render(kind, result), tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_complete_and_says_what_it_is(kind: str) -> None:
    data = usual(kind)
    dataset = read(data)
    assert data[128:132] == b"DICM"
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert dataset.file_meta.MediaStorageSOPClassUID == dataset.SOPClassUID
    assert dataset.Manufacturer == "edge-spine"
    assert dataset.ManufacturerModelName == "FAKE"
    assert dataset.SeriesDescription == f"3D spine, research only: {DICOM_OBJECTS[kind].title}"
    assert CAUTION == "CAUTION: Not for Diagnostic Use, for research use only."
    assert CAUTION in dataset.ContributingEquipmentSequence[-1].ContributionDescription
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    scanner, ours = dataset.ContributingEquipmentSequence
    assert scanner.Manufacturer == "GE Healthcare"
    assert scanner.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
    assert ours.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert ours.Manufacturer == "edge-spine" and ours.DeviceUID.startswith("2.25.")


@pytest.mark.hazard("unnamed-model")
def test_another_model_is_another_device() -> None:
    result = fake_dicom_result()
    other = replace(result, model={**result.model, "sha256": "1" * 64})
    first, second = (read(render("sc", r)).ContributingEquipmentSequence[1].DeviceUID for r in (result, other))
    again = read(render("stl-dcm", fake_dicom_result(header(PatientName="Other^Name")))).ContributingEquipmentSequence[
        1
    ]
    assert first != second
    assert again.DeviceUID == first


@pytest.mark.hazard("patient-lost")
@pytest.mark.parametrize("kind", KINDS)
def test_patient_and_study_are_copied(kind: str) -> None:
    issuer = Dataset()
    issuer.PatientID, issuer.IssuerOfPatientID, issuer.TypeOfPatientID = "X9", "elsewhere", "TEXT"
    source = header(
        IssuerOfPatientID="here",
        PatientAge="060Y",
        PatientSize="1.71",
        PatientWeight="70.5",
        StudyDescription="Total body",
        AdmissionID="adm",
        TimezoneOffsetFromUTC="+0100",
        OtherPatientIDsSequence=[issuer],
        PhysiciansOfRecord=["One^A", "Two^B"],
        ContentDate="20200103",
        ContentTime="111213",
    )
    found = read(render(kind, fake_dicom_result(source)))
    for element in source:
        if element.tag.group == 0x10 or element.keyword in (
            "StudyInstanceUID",
            "StudyDate",
            "StudyTime",
            "StudyID",
            "AccessionNumber",
            "ReferringPhysicianName",
            "StudyDescription",
            "AdmissionID",
            "TimezoneOffsetFromUTC",
            "PhysiciansOfRecord",
            "ContentDate",
            "ContentTime",
        ):
            assert found[element.tag].value == element.value, element.keyword
    assert found.OtherPatientIDsSequence[0].PatientID == "X9"
    assert found.SeriesInstanceUID != source.SeriesInstanceUID


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_anonymised_scan_lacks_stays_empty(kind: str, tmp_path: Path) -> None:
    data = render(kind, fake_dicom_result(header(**dict.fromkeys(TYPE_2), Manufacturer=None)))
    found = read(data)
    for keyword in TYPE_2:
        assert keyword in found and not found[keyword].value, keyword
    assert [item.Manufacturer for item in found.ContributingEquipmentSequence] == ["edge-spine"]
    assert_valid(data, tmp_path)


def test_only_a_report_without_any_date_gets_one_that_is_none() -> None:
    undated = fake_dicom_result(header(StudyDate=None, StudyTime=None))
    report = read(render("sr", undated))
    assert (report.ContentDate, report.ContentTime) == ("19000101", "000000")
    for kind in ("sc", "stl-dcm", "pdf-dcm"):
        assert read(render(kind, undated)).ContentDate == ""


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        ({}, ("20200102", "030405")),
        ({"SeriesDate": "20200103", "SeriesTime": "01"}, ("20200103", "01")),
        ({"SeriesDate": "20200103", "AcquisitionDate": "20200104", "AcquisitionTime": "0203"}, ("20200104", "0203")),
        (
            {"AcquisitionDate": "20200104", "ContentDate": "20200105", "ContentTime": "010203.5"},
            ("20200105", "010203.5"),
        ),
        ({"ContentDate": "20201332", "AcquisitionDate": "20200104"}, ("20200104", "")),
    ],
)
def test_the_content_is_dated_as_its_source(dates: dict[str, str], expected: tuple[str, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = read(render("stl-dcm", fake_dicom_result(header(**dates))))
    assert (found.ContentDate, found.ContentTime) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_scan_that_is_no_dicom_file_gives_no_dicom_object(kind: str) -> None:
    with pytest.raises(OutputError, match=r"^a DICOM result needs a DICOM scan$") as caught:
        render(kind, fake_result())
    assert isinstance(caught.value, EdgeSpineError)


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", [None, "", "1.2.3\\1.2.4", "1" * 65, "SECRET"])
def test_a_scan_without_a_uid_is_refused_by_name(keyword: str, value: str | None) -> None:
    source = header(**{keyword: None}) if value is None else with_raw(header(), {keyword: value})
    with pytest.raises(OutputError, match=f"valid {keyword}") as caught:
        identify(fake_dicom_result(source))
    assert "SECRET" not in str(caught.value) and "Doe" not in str(caught.value)


@pytest.mark.hazard("patient-lost")
@pytest.mark.parametrize("kind", KINDS)
def test_uids_are_carried_as_they_came(kind: str, recwarn: pytest.WarningsRecorder) -> None:
    """Scanners of several makers write components with leading zeros, such as a date and a time."""
    uids = {
        "SOPInstanceUID": "1.2.840.113619.2.110.20240105.090501.3",
        "StudyInstanceUID": "1.2.840.113619.2.110.20240105.090501.1",
        "SeriesInstanceUID": "1.02.00.2",
    }
    data = render(kind, fake_dicom_result(with_raw(header(), uids)))
    assert [str(warning.message) for warning in recwarn] == []
    assert uids["StudyInstanceUID"].encode() in data and uids["SOPInstanceUID"].encode() in data
    if kind in ("sr", "stl-dcm"):
        assert uids["SeriesInstanceUID"].encode() in data


def test_a_result_is_flagged_by_what_its_objects_lack_or_hold_against_the_rules() -> None:
    plain = fake_dicom_result()
    assert flagged(plain) is plain
    source = with_raw(header(), {"PatientID": "HOSP\\1", "AccessionNumber": "a\nb", "PatientSex": "X"})
    result = flagged(fake_dicom_result(source, quality=Quality(True, ("low-confidence",))))
    assert result.quality.flags == (
        "low-confidence",
        "dropped-PatientSex",
        "dropped-AccessionNumber",
        "irregular-PatientID",
    )
    assert identify(result).lost_links == ("AccessionNumber",)


@pytest.mark.slow
def test_nothing_differs_in_another_process_at_another_time() -> None:
    code = (
        "import datetime, hashlib, sys, time\n"
        "class Clock(datetime.datetime):\n"
        "    @classmethod\n"
        "    def now(cls, tz=None): return cls(int(sys.argv[1]), 5, 6, 7, 8, 9)\n"
        "datetime.datetime = Clock\n"
        "from tests.edge_spine.outputs.dicom_checks import KINDS, fake_dicom_result, read, render\n"
        "for kind in KINDS:\n"
        "    data = render(kind, fake_dicom_result())\n"
        "    assert f'{sys.argv[1]}0506' not in str(read(data)), kind\n"
        "    print(kind, hashlib.sha256(data).hexdigest())\n"
    )
    root = Path(__file__).resolve().parents[4]
    runs = [
        subprocess.run(
            [sys.executable, "-c", code, year], capture_output=True, text=True, cwd=root, timeout=120, check=False
        )
        for year in ("2031", "2044")
    ]
    assert [run.stderr for run in runs] == ["", ""]
    here = "".join(f"{kind} {hashlib.sha256(render(kind, fake_dicom_result())).hexdigest()}\n" for kind in KINDS)
    assert runs[0].stdout == runs[1].stdout == here


@pytest.mark.slow
def test_times_and_the_name_of_the_file_change_nothing() -> None:
    result = fake_dicom_result()
    other = fake_dicom_result(source="DOE_JANE.dcm").with_timing(infer=123.0)
    for kind in KINDS:
        assert render(kind, result) == render(kind, other), kind
        assert b"DOE_JANE" not in render(kind, other)


@pytest.mark.hazard("unnamed-model")
@pytest.mark.parametrize("kind", [pytest.param("sr", marks=pytest.mark.slow), "sc", "stl-dcm", "pdf-dcm"])
def test_whatever_else_changes_gives_other_uids(kind: str) -> None:
    result = fake_dicom_result()
    pixels = fake_pixels()
    pixels[400, 136] += 1
    changed = {
        "name": fake_dicom_result(header(PatientName="Doe^Janet")),
        "accession": fake_dicom_result(header(AccessionNumber="A2")),
        "source": fake_dicom_result(header(SOPInstanceUID="1.2.3.6")),
        "model": replace(result, model={**result.model, "sha256": "1" * 64}),
        "precision": replace(result, model={**result.model, "precision": "fp16"}),
        "pixels": fake_dicom_result(pixels=pixels),
        "spacing": fake_dicom_result(pixel_spacing_mm=(2.427, 2.418)),
        "curves": fake_dicom_result(curves=fake_curves(lateral_mm=14.5)),
    }
    expected = uids(usual(kind))
    for what, other in changed.items():
        found = uids(render(kind, other))
        for keyword, uid in expected.items():
            assert found[keyword] != uid, (what, keyword)


@pytest.mark.hazard("names-collide")
def test_no_two_things_share_a_uid() -> None:
    result = fake_dicom_result()
    objects = [read(usual(kind)) for kind in KINDS]
    shared = {
        str(result.scan.header[keyword].value)
        for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    }
    seen = [str(item[keyword].value) for item in objects for keyword in ("SOPInstanceUID", "SeriesInstanceUID")]
    seen.append(str(objects[0].ContributingEquipmentSequence[1].DeviceUID))
    seen.append(str(objects[2].FrameOfReferenceUID))
    seen += [str(e.value) for e in objects[0].iterall() if e.keyword == "UID" and "2.25" in str(e.value)][1:]
    assert len(set(seen)) == len(seen)
    assert not shared & set(seen)
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in seen)
    assert len({item.SeriesNumber for item in objects}) == len(objects)


@pytest.mark.slow
def test_the_transfer_syntax_of_the_source_changes_nothing(make_dicom: MakeDicom) -> None:
    given = {
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.4",
        "pixels": fake_pixels().astype("uint8"),
        "ExposedArea": [658, 1920],
    }
    results = []
    for syntax in (ExplicitVRLittleEndian, RLELossless):
        scan = scan_from_bytes(make_dicom(**given, syntax=syntax), "same.dcm")
        results.append(replace(fake_dicom_result(), scan=scan))
    for kind in KINDS:
        assert render(kind, results[0]) == render(kind, results[1]), kind


@pytest.mark.slow
def test_reading_a_header_twice_gives_the_same() -> None:
    source = stored(header(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg"))
    result = fake_dicom_result(source)
    assert render("sr", result) == render("sr", result)
