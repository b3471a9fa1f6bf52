"""Check by its header whether a DICOM file can be a whole-body DXA image."""

from __future__ import annotations

import re
from typing import Any

from pydicom.dataset import Dataset

from edge_spine.errors import Refusal

# GE Lunar writes CR, Hologic BMD or OT; converters leave the attribute empty
_ACCEPTED_MODALITIES = frozenset({"", "CR", "DX", "RG", "OT", "BMD", "SC"})
_RADIOGRAPH_MODALITIES = frozenset({"CR", "DX", "RG"})
_WHOLE_BODY = re.compile(r"\b(whole|total|full)[\s_-]*body\b|^body$|\bskeleton\b", re.IGNORECASE)
# names of other scans of densitometers; "LVA", "IVA" and "VFA" are lateral views of the vertebrae
_REGION = re.compile(
    r"\b((?:l|t|c)?spine|spinal|lumbar|thoracic|lva|iva|vfa|dva|vertebral|lateral|femur|femora|femoral|hips?|"
    r"pelvis|forearm|radius|wrist|hand|fingers?|elbow|shoulder|humerus|ortho|knee|ankle|foot|heel|calcaneus|"
    r"tibia|legs?|chest|thorax|abdomen|skull|head|neck)\b",
    re.IGNORECASE,
)
_DENSITOMETER = re.compile(r"lunar|prodigy|hologic|norland|dxa|dexa|densito|absorptio", re.IGNORECASE)
_GE = re.compile(r"\bGE\b|general electric|lunar", re.IGNORECASE)
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")
_ACCEPTED = "a whole-body DXA image is accepted"


def check_protocol(header: Dataset) -> None:
    """Refuse a header that cannot be of a whole-body DXA image.

    The first of ProtocolName, SeriesDescription and BodyPartExamined that names the whole body or a region decides.
    A header that names neither is accepted.

    Raises
    ------
    Refusal
        'not-dxa' for another modality, a radiograph or a result of edge-spine, 'not-whole-body' for DXA of a region.
    """
    if "edge-spine" in (_text(header, "Manufacturer").lower(), _text(header, "ManufacturerModelName").lower()):
        raise Refusal("not-dxa", f"this is a result of edge-spine, not a scan; {_ACCEPTED}")
    modality = _text(header, "Modality").upper()
    if modality not in _ACCEPTED_MODALITIES:
        shown = modality if _CODE_STRING.fullmatch(modality) else "unknown"
        raise Refusal("not-dxa", f"modality {shown} is not DXA; {_ACCEPTED}")
    region = _region(header)
    if region is None:
        return
    if modality in _RADIOGRAPH_MODALITIES and not _is_densitometer(header):
        raise Refusal("not-dxa", f"this is a radiograph ({region}), not DXA; {_ACCEPTED}")
    raise Refusal("not-whole-body", f"this scan shows another region ({region}); {_ACCEPTED}")


def is_ge_densitometer(header: Dataset) -> bool:
    """Return whether the image comes from a GE (Lunar) densitometer."""
    maker = f"{_text(header, 'Manufacturer')} {_text(header, 'ManufacturerModelName')}"
    return _is_densitometer(header) and _GE.search(maker) is not None


def _region(header: Dataset) -> str | None:
    """Return the region named in the header, for a message; None for the whole body or none."""
    for keyword in ("ProtocolName", "SeriesDescription"):
        text = _text(header, keyword).replace("_", " ")
        if _WHOLE_BODY.search(text):
            return None
        # free text may hold patient data: only the word from the list above is shown
        if found := _REGION.search(text):
            return f"{keyword} names {found[1].lower()!r}"
    part = _text(header, "BodyPartExamined").upper()
    if not part or _WHOLE_BODY.search(part):
        return None
    return f"BodyPartExamined {part}" if _CODE_STRING.fullmatch(part) else "BodyPartExamined names a part"


def _is_densitometer(header: Dataset) -> bool:
    keywords = ("Manufacturer", "ManufacturerModelName", "StudyDescription", "SeriesDescription")
    return any(_DENSITOMETER.search(_text(header, keyword)) for keyword in keywords)


def _text(header: Dataset, keyword: str) -> str:
    value: Any = header.get(keyword)
    return "" if value is None else str(value).strip()
