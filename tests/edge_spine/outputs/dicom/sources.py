"""Sources with raw values, and the attributes that are always there."""

from __future__ import annotations

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)


def with_raw(source: Dataset, values: dict[str, str]) -> Dataset:
    """Return a header that holds values as a file may hold them, legal or not."""
    for keyword, value in values.items():
        tag = Tag(keyword)
        data = value.encode("latin-1")
        source[tag] = RawDataElement(tag, dictionary_VR(tag), len(data), data, 0, False, True, True)
    return source
