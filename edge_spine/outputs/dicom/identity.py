"""Attributes that all DICOM objects of a result share: patient, study, equipment and UIDs.

Every UID is a hash of content, and no attribute holds the time of writing. The SOP Instance UID hashes the whole
encoded object: the same UID means the same bytes, and a corrected patient name, another model or another version of a
drawing library gives another instance. The UIDs of series, tracking and frame of reference hash the source, the
attributes copied from it, its pixels, the model and the measurements.
"""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from dataclasses import dataclass, replace

import pydicom.uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from edge_spine.errors import OutputError
from edge_spine.outputs.dicom import codes
from edge_spine.outputs.dicom.codes import coded_item
from edge_spine.outputs.dicom.values import LINKS, copied_attributes, legal_value, text_value
from edge_spine.outputs.registry import DICOM_OBJECTS
from edge_spine.reading.dicom import UID_TEXT, quiet_pydicom
from edge_spine.result import SpineResult
from edge_spine.version import __version__

# `edge_spine.reading` refuses objects of this manufacturer, since they are results.
MANUFACTURER = "edge-spine"
CAUTION = "CAUTION: Not for Diagnostic Use, for research use only."
_SERIES = "3D spine, research only"
CHARACTER_SET = "ISO_IR 192"
# Where a date is required and the source has none; no DXA scan is that old.
UNKNOWN_DATE, UNKNOWN_TIME = "19000101", "000000"

_NAMESPACE = uuid.UUID("6e1b0d52-9d0c-4f57-8f0a-3f3e6a5d7c21")
_DATES = (
    ("ContentDate", "ContentTime"),
    ("AcquisitionDate", "AcquisitionTime"),
    ("SeriesDate", "SeriesTime"),
    ("StudyDate", "StudyTime"),
)
_OF_THE_FILE = ("source", "path", "sha256")
# Attributes that hold the time of writing.
_CLOCK = ("InstanceCreationDate", "InstanceCreationTime", "DateOfSecondaryCapture", "TimeOfSecondaryCapture")


@dataclass(frozen=True, eq=False)
class Identity:
    """Attributes that the DICOM objects of one result share.

    Attributes
    ----------
    source : Dataset
        UIDs and size of the source image, without attributes of the patient.
    copied : Dataset
        Attributes of patient and study; see `copied_attributes`.
    equipment : tuple of Dataset
        Items of Contributing Equipment Sequence: the scanner, where it is known, and edge-spine.
    content_date, content_time : str
        Date and time of the source; "" where it has none.
    dropped, irregular : tuple of str
        As in `edge_spine.outputs.dicom.values.Copied`.
    key : str
        SHA-256 of the source, the copied attributes, the pixels, the model and the measurements.
    """

    source: Dataset
    copied: Dataset
    equipment: tuple[Dataset, ...]
    content_date: str
    content_time: str
    dropped: tuple[str, ...]
    irregular: tuple[str, ...]
    key: str

    @property
    def lost_links(self) -> tuple[str, ...]:
        """Keywords of the dropped attributes that tie an object to its patient or order."""
        return tuple(keyword for keyword in self.dropped if keyword in LINKS)

    def uid(self, *names: str) -> str:
        """Return the UID of a part of this result, such as ("series", "sr")."""
        return derived_uid(*names, self.key)


def derived_uid(*names: str) -> str:
    """Return a UID (2.25, PS3.5 B.2) that is a hash of names."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps(names)).int}"


def device_uid(result: SpineResult) -> str:
    """Return the UID of the model as a device: other weights are another device (IHE AIR 6.5.3.1)."""
    return derived_uid("device", result.model["sha256"])


def identify(result: SpineResult) -> Identity:
    """Return the attributes that the DICOM objects of a result share.

    OutputError where the scan is no DICOM file, or lacks a UID that results have to refer to.
    """
    return result.derived(_identify)


def _identify(result: SpineResult) -> Identity:
    header = result.scan.header
    if header is None:
        raise OutputError("a DICOM result needs a DICOM scan")
    with quiet_pydicom():
        source = Dataset()
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            value = text_value(header, keyword)
            if not UID_TEXT.fullmatch(value):
                raise OutputError(f"a DICOM result needs a scan with a valid {keyword}; give it as the scanner sent it")
            setattr(source, keyword, UID(value))
        rows, columns = result.scan.pixels.shape
        source.Rows, source.Columns = result.scan.turn.shape((rows, columns))
        copied = copied_attributes(header)
        date, time = _content_date(header)
        equipment = (*_scanner(header), _edge_spine(result, copied.dropped))
    key = _key(result, source, copied.attributes, date, time)
    return Identity(source, copied.attributes, equipment, date, time, copied.dropped, copied.irregular, key)


def flagged(result: SpineResult) -> SpineResult:
    """Return a result with a flag for each value of its scan that its DICOM objects cannot carry as it came.

    The flag ``dropped-KEYWORD`` means that the objects lack the value, ``irregular-KEYWORD`` that they hold it although
    it breaks a rule of DICOM. Errors are those of `identify`.
    """
    identity = identify(result)
    flags = [f"dropped-{keyword}" for keyword in identity.dropped]
    flags += [f"irregular-{keyword}" for keyword in identity.irregular]
    if not flags:
        return result
    return replace(result, quality=replace(result.quality, flags=(*result.quality.flags, *flags)))


def finished(dataset: Dataset, identity: Identity, result: SpineResult, kind: str) -> bytes:
    """Add the shared attributes to an object, in place, and return it as a file (PS3.10), Explicit VR Little Endian.

    `kind` is a key of `edge_spine.outputs.registry.DICOM_OBJECTS`.
    """
    described = DICOM_OBJECTS[kind]
    for keyword in _CLOCK:
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.SpecificCharacterSet = CHARACTER_SET
    for element in identity.copied:
        dataset[element.tag] = element
    dataset.SOPClassUID = getattr(pydicom.uid, described.storage_class)
    dataset.StudyInstanceUID = identity.source.StudyInstanceUID
    dataset.SeriesInstanceUID = identity.uid("series", kind)
    dataset.SeriesNumber = described.series_number
    dataset.SeriesDescription = f"{_SERIES}: {described.title}"
    dataset.InstanceNumber = 1
    # An SR document must be dated (PS3.3 C.17.2); the other objects may leave both empty.
    dataset.ContentDate = identity.content_date or (UNKNOWN_DATE if kind == "sr" else "")
    dataset.ContentTime = identity.content_time or (UNKNOWN_TIME if kind == "sr" else "")
    _describe_device(dataset, result)
    dataset.ContributingEquipmentSequence = list(identity.equipment)
    dataset.SOPInstanceUID = UID("2.25.0")
    blank = _encoded(dataset)
    dataset.SOPInstanceUID = UID(derived_uid("instance", kind, hashlib.sha256(blank).hexdigest()))
    return _encoded(dataset)


def source_reference(identity: Identity) -> Dataset:
    """Return an item of Referenced SOP Sequence with the source image."""
    item = Dataset()
    item.ReferencedSOPClassUID = identity.source.SOPClassUID
    item.ReferencedSOPInstanceUID = identity.source.SOPInstanceUID
    return item


def source_series(identity: Identity) -> Dataset:
    """Return an item of Referenced Series Sequence (Common Instance Reference Module) with the source image."""
    item = Dataset()
    item.SeriesInstanceUID = identity.source.SeriesInstanceUID
    item.ReferencedInstanceSequence = [source_reference(identity)]
    return item


def _encoded(dataset: Dataset) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(derived_uid("implementation"))
    meta.ImplementationVersionName = f"EDGE-SPINE {__version__}"[:16]
    dataset.file_meta = meta
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _key(result: SpineResult, source: Dataset, copied: Dataset, date: str, time: str) -> str:
    # The name and the bytes of the file and the time that it took are no part of the finding.
    measured = {name: value for name, value in result.to_dict().items() if name not in ("timing_ms", "timing")}
    measured["scan"] = {name: value for name, value in measured["scan"].items() if name not in _OF_THE_FILE}
    described = {
        "version": __version__,
        "source": source.to_json_dict(),
        "copied": copied.to_json_dict(),
        "dated": [date, time],
        "result": measured,
        "pixels": hashlib.sha256(result.scan.pixels.tobytes()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _content_date(header: Dataset) -> tuple[str, str]:
    for date_keyword, time_keyword in _DATES:
        date, time = legal_value(header, date_keyword), legal_value(header, time_keyword)
        if isinstance(date, str) and isinstance(time, str) and date:
            return date, time
    return "", ""


def _describe_device(item: Dataset, result: SpineResult) -> None:
    model = result.model
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = _long_string(model["name"])
    item.SoftwareVersions = [
        f"edge-spine {__version__}",
        _long_string(f"model {model['version']}"),
        _long_string(f"{model['engine']} {model['precision']}"),
    ]
    item.DeviceSerialNumber = model["sha256"]


def _edge_spine(result: SpineResult, dropped: tuple[str, ...]) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [coded_item(codes.PROCESSING_EQUIPMENT)]
    _describe_device(item, result)
    item.DeviceUID = UID(device_uid(result))
    lacking = (
        f" Not carried from the image, since DICOM cannot hold the value: {', '.join(dropped)}." if dropped else ""
    )
    # VR ST holds 1024 characters
    item.ContributionDescription = f"Estimation of a 3D spine from one DXA image. {CAUTION}{lacking}"[:1024]
    return item


def _scanner(header: Dataset) -> tuple[Dataset, ...]:
    manufacturer = legal_value(header, "Manufacturer")
    if not manufacturer:
        return ()
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [coded_item(codes.ACQUISITION_EQUIPMENT)]
    item.Manufacturer = manufacturer
    keywords = ("ManufacturerModelName", "StationName", "DeviceSerialNumber", "SoftwareVersions", "InstitutionName")
    for keyword in keywords:
        if value := legal_value(header, keyword):
            setattr(item, keyword, value)
    return (item,)


def _long_string(text: str) -> str:
    """Return a text that is legal in an attribute of VR LO."""
    return text.replace("\\", "/").strip()[:64]
