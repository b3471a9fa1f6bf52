"""Check by its header whether a DICOM file can be a whole-body DXA image."""

from __future__ import annotations

import re
from typing import Any

from pydicom.dataset import Dataset

from edge_spine.errors import Refusal
from edge_spine.reading.words import NO_REGION, OTHER_MODALITIES, OTHER_PARTS, OTHER_REGION, WHOLE_BODY

_RADIOGRAPH_MODALITIES = frozenset({"CR", "DX", "RG"})
_DENSITOMETER = re.compile(r"lunar|prodigy|hologic|norland|dxa|dexa|densito|absorptio", re.IGNORECASE)
_GE = re.compile(r"\bGE\b|general electric|lunar", re.IGNORECASE)
_ACCEPTED = "a whole-body DXA image is accepted"


def check_protocol(header: Dataset) -> None:
    """Refuse a header that cannot be of a whole-body DXA image.

    The first of ProtocolName, SeriesDescription and BodyPartExamined that names the whole body or a region decides.
    Another region is refused as 'not-whole-body'; another modality, a radiograph or a result of edge-spine as
    'not-dxa'. A header that names neither is accepted: only the words of `edge_spine.reading.words` refuse.
    """
    if "edge-spine" in (_text(header, "Manufacturer").lower(), _text(header, "ManufacturerModelName").lower()):
        raise Refusal("not-dxa", f"this is a result of edge-spine, not a scan; {_ACCEPTED}")
    modality = _text(header, "Modality").upper()
    if modality in OTHER_MODALITIES:
        raise Refusal("not-dxa", f"modality {modality} is not DXA; {_ACCEPTED}")
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
    for keyword in ("ProtocolName", "SeriesDescription", "BodyPartExamined"):
        text = _text(header, keyword).replace("_", " ")
        if WHOLE_BODY.search(text):
            return None
        if keyword == "BodyPartExamined" and text.upper() in OTHER_PARTS:
            return f"BodyPartExamined {text.upper()}"
        # free text may hold patient data: only the word from the list is shown
        if found := OTHER_REGION.search(NO_REGION.sub(" ", text)):
            return f"{keyword} names {found[1].lower()!r}"
    return None


def _is_densitometer(header: Dataset) -> bool:
    keywords = ("Manufacturer", "ManufacturerModelName", "StudyDescription", "SeriesDescription")
    return any(_DENSITOMETER.search(_text(header, keyword)) for keyword in keywords)


def _text(header: Dataset, keyword: str) -> str:
    value: Any = header.get(keyword)
    return "" if value is None else str(value).strip()
