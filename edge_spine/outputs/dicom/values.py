"""Copy attributes of patient and study from a source image.

A value is copied where it is legal for its attribute (PS3.5, section 6.2, and the enumerated values of PS3.3). What
archives match by is copied also where it breaks a rule, such as the length, as long as it reads the same afterwards.
Other values are left empty and named; values are never corrected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from pydicom import config
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.valuerep import PersonName, validate_value

# Attributes of type 2: always present, and empty where the source has no legal value.
_REQUIRED = """
PatientName PatientID PatientBirthDate PatientSex
StudyDate StudyTime ReferringPhysicianName StudyID AccessionNumber
"""
# Copied where the source has a legal value. The copied dates and times refer to TimezoneOffsetFromUTC.
_OPTIONAL = """
IssuerOfPatientID TypeOfPatientID PatientBirthTime OtherPatientIDs OtherPatientNames EthnicGroup PatientComments
PatientIdentityRemoved DeidentificationMethod
StudyDescription ConsultingPhysicianName PhysiciansOfRecord NameOfPhysiciansReadingStudy
AdmittingDiagnosesDescription PatientAge PatientSize PatientWeight PatientBodyMassIndex MedicalAlerts Allergies
Occupation AdditionalPatientHistory PatientState AdmissionID ServiceEpisodeID ServiceEpisodeDescription
TimezoneOffsetFromUTC
"""
REQUIRED, OPTIONAL = tuple(_REQUIRED.split()), tuple(_OPTIONAL.split())
# Without them, an archive cannot match an object to its patient or order.
LINKS = ("PatientID", "IssuerOfPatientID", "AccessionNumber")
# Copied unchanged even where they are not legal, since archives and readers match by them.
_AS_THEY_CAME = (*LINKS, "PatientName", "StudyID", "StudyInstanceUID")
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
    # The order: General Series Module, Request Attributes Macro.
    "RequestAttributesSequence": (
        (),
        (
            *("RequestedProcedureID", "AccessionNumber", "StudyInstanceUID", "RequestedProcedureDescription"),
            *("ScheduledProcedureStepID", "ScheduledProcedureStepDescription"),
        ),
    ),
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

    The attribute is one of text, a number as text, a date, a time or a UID; where it allows several, they are a list.
    """
    try:
        value = dataset[keyword].value
    # pydicom raises many types on damaged values; all of them mean that the value is not legal.
    except Exception:
        return ""
    given = list(value) if isinstance(value, MultiValue) else [value]
    values = [_legal_text(keyword, item) for item in given]
    # among several values, some may be empty
    legal = all(text or (str(item or "") == "" and len(given) > 1) for text, item in zip(values, given, strict=True))
    if not legal or not any(values) or (len(values) > 1 and dictionary_VM(keyword) == "1"):
        return ""
    if dictionary_VR(keyword) == "PN":
        # pydicom writes no empty name among several
        values = [text for text in values if text]
    return values[0] if len(values) == 1 else values


@dataclass(frozen=True, eq=False)
class Copied:
    """Attributes of patient and study for the results.

    The `attributes` are Unicode text (ISO_IR 192); those of type 2 are present and may be empty, others are present
    only with a value. `dropped` are the keywords whose value could not be copied, `irregular` those whose value was
    copied although it is not legal, or has letters of a character set that the header does not name.
    """

    attributes: Dataset
    dropped: tuple[str, ...]
    irregular: tuple[str, ...]


def copied_attributes(header: Dataset) -> Copied:
    """Return the attributes of patient and study that results copy from the header of their source image."""
    copied = Dataset()
    dropped: list[str] = []
    irregular: list[str] = []
    guessed = not _names_character_set(header)
    for keyword in (*REQUIRED, *OPTIONAL):
        value = legal_value(header, keyword)
        if not value and _is_filled(header, keyword):
            value = _as_it_came(header, keyword)
            (irregular if value else dropped).append(keyword)
        elif guessed and not "".join(value).isascii():
            irregular.append(keyword)
        if value or keyword in REQUIRED:
            _add(copied, keyword, value)
    for keyword, (needed, also) in _SEQUENCES.items():
        items = _legal_items(header, keyword, needed, also)
        if items:
            setattr(copied, keyword, items)
        if len(items) < _count(header, keyword, (*needed, *also)):
            dropped.append(keyword)
    # The method is of type 1C: required where the identity was removed.
    if copied.get("PatientIdentityRemoved") == "YES" and not (
        "DeidentificationMethod" in copied or "DeidentificationMethodCodeSequence" in copied
    ):
        del copied.PatientIdentityRemoved
        dropped.append("PatientIdentityRemoved")
    if all(legal_value(header, keyword) for keyword in _TRIAL_NEEDED):
        for keyword in (*_TRIAL_NEEDED, *_TRIAL_EMPTY):
            setattr(copied, keyword, legal_value(header, keyword))
    else:
        dropped += [keyword for keyword in _TRIAL_NEEDED if _is_filled(header, keyword)]
    return Copied(copied, tuple(dropped), tuple(irregular))


def text_value(dataset: Dataset, keyword: str) -> str:
    r"""Return an attribute's value as the text that it came as, with ``\`` between several values.

    "" where it is absent, or no text of one line in the character set of the data set.
    """
    try:
        value = dataset[keyword].value
        text = "\\".join(map(str, value if isinstance(value, MultiValue) else [value or ""])).rstrip(" \0")
    # pydicom raises many types on damaged values; all of them mean that the value is no text.
    except Exception:
        return ""
    known = isinstance(value, str | int | float | Decimal | PersonName | MultiValue)
    return text if known and text.strip(" \\") and _ONE_LINE.fullmatch(text) else ""


def _as_it_came(dataset: Dataset, keyword: str) -> str:
    return text_value(dataset, keyword) if keyword in _AS_THEY_CAME else ""


def _names_character_set(header: Dataset) -> bool:
    """Return whether a header says which letters its bytes beyond ASCII are, by a term that pydicom knows."""
    terms = header.get("SpecificCharacterSet") or ""
    terms = terms if isinstance(terms, MultiValue) else [terms]
    return any(terms) and all(str(term) in python_encoding for term in terms)


def _add(dataset: Dataset, keyword: str, value: str | list[str]) -> None:
    dataset.add(DataElement(Tag(keyword), dictionary_VR(keyword), value, validation_mode=config.IGNORE))


def _is_filled(header: Dataset, keyword: str) -> bool:
    """Return whether an attribute is there with anything but padding and separators."""
    item: RawDataElement | DataElement | None = header.get_item(keyword) if keyword in header else None
    value = None if item is None else item.value
    if isinstance(value, MultiValue):
        return any(map(str, value))
    return bool(value.strip(b" \\\0") if isinstance(value, bytes) else value)


def _count(header: Dataset, keyword: str, keys: tuple[str, ...]) -> int:
    """Return the number of items of a sequence that hold anything of these keywords, 1 where it is damaged."""
    try:
        items = header[keyword].value if keyword in header else []
        return sum(any(_is_filled(item, key) for key in keys) for item in items)
    except Exception:
        return 1


def _legal_items(header: Dataset, keyword: str, needed: tuple[str, ...], also: tuple[str, ...]) -> list[Dataset]:
    try:
        items = list(header[keyword].value)
    except Exception:
        return []
    copies = []
    for item in items:
        values = {key: legal_value(item, key) or _as_it_came(item, key) for key in (*needed, *also)}
        if all(values[key] for key in needed) and any(values.values()):
            copy = Dataset()
            for key, value in values.items():
                if value:
                    _add(copy, key, value)
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
