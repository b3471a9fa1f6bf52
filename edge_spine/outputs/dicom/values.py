"""Copy attributes of patient and study from a source image.

A value is copied where it is legal for its attribute (PS3.5, section 6.2, and the enumerated values of PS3.3) and left
empty where it is not; values are never corrected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

from pydicom import config
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import PersonName, validate_value

# Attributes of type 2: always present, and empty where the source has no legal value.
REQUIRED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
OPTIONAL = (
    "IssuerOfPatientID",
    "TypeOfPatientID",
    "PatientBirthTime",
    "OtherPatientIDs",
    "OtherPatientNames",
    "EthnicGroup",
    "PatientComments",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "StudyDescription",
    "ConsultingPhysicianName",
    "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy",
    "AdmittingDiagnosesDescription",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientBodyMassIndex",
    "MedicalAlerts",
    "Allergies",
    "Occupation",
    "AdditionalPatientHistory",
    "PatientState",
    "AdmissionID",
    "ServiceEpisodeID",
    "ServiceEpisodeDescription",
    # The copied dates and times refer to it.
    "TimezoneOffsetFromUTC",
)
# Attributes of a clinical trial, of type 1 and of type 2; copied only where all those of type 1 are legal.
_TRIAL_NEEDED = ("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialSubjectID")
_TRIAL_EMPTY = ("ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName")
# Sequences that are copied: the attributes that an item must have, and those that it may have.
_SEQUENCES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "OtherPatientIDsSequence": (("PatientID", "TypeOfPatientID"), ("IssuerOfPatientID",)),
    "IssuerOfPatientIDQualifiersSequence": (("UniversalEntityID", "UniversalEntityIDType"), ()),
    "IssuerOfAccessionNumberSequence": (("LocalNamespaceEntityID",), ()),
    "IssuerOfAdmissionIDSequence": (("LocalNamespaceEntityID",), ()),
    "ProcedureCodeSequence": (("CodeValue", "CodingSchemeDesignator", "CodeMeaning"), ("CodingSchemeVersion",)),
    "DeidentificationMethodCodeSequence": (("CodeValue", "CodingSchemeDesignator", "CodeMeaning"), ()),
}
_ENUMERATED = {
    "PatientSex": ("M", "F", "O"),
    "PatientIdentityRemoved": ("YES", "NO"),
    "TypeOfPatientID": ("TEXT", "RFID", "BARCODE"),
    "UniversalEntityIDType": ("DNS", "EUI64", "ISO", "URI", "UUID", "X400", "X500"),
}
_ONE_LINE = re.compile(r"[^\x00-\x1f\x7f-\x9f\ufffd]*")
_SEVERAL_LINES = re.compile(r"[^\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufffd]*")
_OFFSET = re.compile(r"[+-][0-9]{4}")


def legal_value(dataset: Dataset, keyword: str) -> str | list[str]:
    """Return an attribute's value as text, or "" where it is absent or not legal.

    Parameters
    ----------
    dataset : Dataset
        The data set, whose character set is used.
    keyword : str
        DICOM keyword of an attribute of text, a number as text, a date, a time or a UID.

    Returns
    -------
    str or list of str
        A list where there are several values and the attribute allows them.
    """
    try:
        value = dataset[keyword].value
    # pydicom raises many types on damaged values; all of them mean that the value is not legal.
    except Exception:
        return ""
    values = [_legal_text(keyword, item) for item in (value if isinstance(value, MultiValue) else [value])]
    if not values or not all(values) or (len(values) > 1 and dictionary_VM(keyword) == "1"):
        return ""
    return values[0] if len(values) == 1 else values


def copied_attributes(header: Dataset) -> Dataset:
    """Return the attributes of patient and study that results copy from their source.

    Parameters
    ----------
    header : Dataset
        Header of the source image.

    Returns
    -------
    Dataset
        Unicode text (ISO_IR 192). Attributes of type 2 are present and may be empty, others are present only with a
        legal value.
    """
    copied = Dataset()
    for keyword in (*REQUIRED, *OPTIONAL):
        value = legal_value(header, keyword)
        if value or keyword in REQUIRED:
            setattr(copied, keyword, value)
    for keyword, (needed, also) in _SEQUENCES.items():
        if items := _legal_items(header, keyword, needed, also):
            setattr(copied, keyword, items)
    # The method is of type 1C: required where the identity was removed.
    if copied.get("PatientIdentityRemoved") == "YES" and not (
        "DeidentificationMethod" in copied or "DeidentificationMethodCodeSequence" in copied
    ):
        del copied.PatientIdentityRemoved
    if all(legal_value(header, keyword) for keyword in _TRIAL_NEEDED):
        for keyword in (*_TRIAL_NEEDED, *_TRIAL_EMPTY):
            setattr(copied, keyword, legal_value(header, keyword))
    return copied


def _legal_items(header: Dataset, keyword: str, needed: tuple[str, ...], also: tuple[str, ...]) -> list[Dataset]:
    try:
        items = list(header[keyword].value)
    except Exception:
        return []
    copies = []
    for item in items:
        values = {key: legal_value(item, key) for key in (*needed, *also)}
        if all(values[key] for key in needed):
            copy = Dataset()
            for key, value in values.items():
                if value:
                    setattr(copy, key, value)
            copies.append(copy)
    return copies


def _legal_text(keyword: str, value: object) -> str:
    """Return one value as text, or "" where it is not legal."""
    representation = dictionary_VR(keyword)
    if not isinstance(value, str | int | float | Decimal | PersonName):
        return ""
    text = str(value).rstrip(" \0")
    allowed = _SEVERAL_LINES if representation in ("LT", "ST", "UT") else _ONE_LINE
    legal = (
        allowed.fullmatch(text) is not None
        and text in _ENUMERATED.get(keyword, (text,))
        and (representation != "DA" or _is_date(text))
        # pydicom also accepts ranges, which are legal in queries only.
        and (representation != "TM" or "-" not in text)
        and (representation != "PN" or all(group.count("^") <= 4 for group in text.split("=")))
        and (keyword != "TimezoneOffsetFromUTC" or _OFFSET.fullmatch(text) is not None)
    )
    if not legal:
        return ""
    try:
        validate_value(representation, text, config.RAISE)
    except ValueError:
        return ""
    return text


def _is_date(text: str) -> bool:
    try:
        return bool(datetime.strptime(text, "%Y%m%d"))
    except ValueError:
        return False
