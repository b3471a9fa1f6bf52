"""Find how to turn a stored image so that the head is up and patient right is at image left."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from edge_spine.errors import Refusal
from edge_spine.scan import Turn


def turn_from_patient_orientation(patient_orientation: Any) -> Turn:
    r"""Find the turn from DICOM PatientOrientation (PS3.3 C.7.6.1.1.1), of which ``L\F`` needs none.

    Only the first letter of each of its two values, the main direction, is used. Where the attribute is absent or
    damaged, the image is not turned and has the flag "orientation-unknown". An image that is no frontal view is refused
    as 'not-whole-body'.
    """
    letters = _main_directions(patient_orientation)
    if set(letters) & {"A", "P"}:
        raise Refusal(
            "not-whole-body",
            f"this is no frontal view (PatientOrientation {letters[0]}\\{letters[1]}); "
            "an antero-posterior whole-body DXA image is accepted",
        )
    transpose = letters[:1] in (("H",), ("F",))
    across, down = letters[::-1] if transpose else letters or ("", "")
    if across not in ("L", "R") or down not in ("F", "H"):
        return Turn(flags=("orientation-unknown",))
    return _turn(transpose, across == "R", down == "H")


def turn_from_exif(content: bytes) -> Turn:
    """Find the turn from the Orientation of Exif metadata (TIFF 6.0); none where it is absent, damaged or normal."""
    # that of JPEG files, which some writers keep
    content = content.removeprefix(b"Exif\0\0")
    order = ">" if content.startswith(b"MM") else "<"
    try:
        (first,) = struct.unpack_from(f"{order}I", content, 4)
        (count,) = struct.unpack_from(f"{order}H", content, first)
        for place in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind, number, value = struct.unpack_from(f"{order}HHIH", content, place)
            if (tag, kind, number) == (0x0112, 3, 1):
                return _turn(value in (5, 6, 7, 8), value in (2, 3, 6, 7), value in (3, 4, 7, 8))
    except struct.error:
        pass
    return Turn()


def _turn(transpose: bool, flip_columns: bool, flip_rows: bool) -> Turn:
    flags: tuple[str, ...] = ()
    if transpose + flip_columns + flip_rows in (1, 3):
        flags = ("mirrored-put-right",)
    elif transpose or flip_columns:
        flags = ("rotated-put-right",)
    return Turn(transpose, flip_columns, flip_rows, flags)


def _main_directions(value: Any) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or len(value) != 2:
        return ()
    letters = tuple(str(item).strip().upper()[:1] for item in value)
    return letters if all(letter and letter in "APRLHF" for letter in letters) else ()
