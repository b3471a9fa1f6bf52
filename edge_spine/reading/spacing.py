"""Choose a DICOM image's pixel spacing among what its header and the caller state, and report where they disagree."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydicom.dataset import Dataset

from edge_spine.errors import Refusal
from edge_spine.reading.checks import ACCEPTED_SPACING, is_plausible_spacing
from edge_spine.reading.header import numbers
from edge_spine.reading.kinds import ImageFile
from edge_spine.reading.protocol import is_ge_densitometer

GIVEN, CONFLICT = "pixel-spacing-given", "spacing-conflict"
# natural logarithms of ratios of two statements: rounded alike, and too different for either to be trusted
_ALIKE, _GROSS = 0.02, 0.10


@dataclass(frozen=True)
class Spacing:
    """The spacing of a stored image: `mm` between rows and between columns.

    `flags` may hold "pixel-spacing-given", "imager-pixel-spacing", "spacing-conflict"; `notes` holds a sentence with
    the figures for each disagreement.
    """

    mm: tuple[float, float]
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def stated_spacing(header: Dataset, rows: int, columns: int, file: ImageFile) -> Spacing:
    """Return the spacing that the caller gives, else PixelSpacing, else that of GE's ExposedArea.

    ImagerPixelSpacing, measured at the detector and not in the patient, is used only on request. `rows` and `columns`
    are the size of the stored image. Refuse as 'no-spacing' where nothing states one, as 'implausible-geometry' where
    two statements disagree by more than a tenth and the caller gives none.
    """
    stated = _statements(header, rows, columns)
    if file.given_spacing is not None:
        unlike = [_text(name, mm) for name, mm in stated.items() if _difference(mm, file.given_spacing) > _ALIKE]
        note = f"{_text('the caller gives', file.given_spacing)} and the file states {' and '.join(unlike)}"
        return Spacing(file.given_spacing, (GIVEN,), (note,) if unlike else ())
    if not stated:
        return _last_resort(header, file)
    (chosen, spacing), *others = stated.items()
    for name, mm in others:
        if (difference := _difference(mm, spacing)) > _ALIKE:
            note = f"{_text(chosen, spacing)} and {_text(name, mm)} disagree"
            if difference > _GROSS:
                raise Refusal("implausible-geometry", f"{note}; give the true spacing with --pixel-spacing ROW,COL")
            return Spacing(spacing, (CONFLICT,), (note,))
    if unusable := _unusable(header):
        return Spacing(spacing, notes=(f"PixelSpacing is {unusable}, and {_text(chosen, spacing)} is used",))
    return _with_ratio(header, chosen, spacing)


def _statements(header: Dataset, rows: int, columns: int) -> dict[str, tuple[float, float]]:
    """Return the plausible spacings in a header by their attributes, the one to use first."""
    stated = {}
    stored = numbers(header.get("PixelSpacing"))
    if is_plausible_spacing(stored):
        stated["PixelSpacing"] = (stored[0], stored[1])
    # GE Lunar writes no PixelSpacing; its ExposedArea is the width and height of the image in mm
    area = numbers(header.get("ExposedArea")) if is_ge_densitometer(header) else []
    if len(area) == 2 and is_plausible_spacing(exposed := (area[1] / rows, area[0] / columns)):
        stated["ExposedArea"] = exposed
    return stated


def _unusable(header: Dataset) -> str | None:
    """Return why a PixelSpacing that is there cannot be used; None where it can, or there is none."""
    stored = header.get("PixelSpacing")
    found = numbers(stored)
    if not stored or is_plausible_spacing(found):
        return None
    return "implausible" if len(found) == 2 else "not two numbers"


def _with_ratio(header: Dataset, chosen: str, spacing: tuple[float, float]) -> Spacing:
    """Flag a spacing that disagrees with PixelAspectRatio; preprocessing then checks the proportions of the body."""
    ratio = numbers(header.get("PixelAspectRatio"))
    if len(ratio) == 2 and all(math.isfinite(part) and part > 0 for part in ratio):
        stated = ratio[0] / ratio[1]
        if abs(math.log(spacing[0] / spacing[1] / stated)) > _ALIKE:
            note = f"{_text(chosen, spacing)} and PixelAspectRatio {stated:.4g} (row over column) disagree"
            return Spacing(spacing, (CONFLICT,), (note,))
    return Spacing(spacing)


def _last_resort(header: Dataset, file: ImageFile) -> Spacing:
    imager = numbers(header.get("ImagerPixelSpacing")) if file.imager_spacing else []
    if is_plausible_spacing(imager):
        return Spacing((imager[0], imager[1]), ("imager-pixel-spacing",))
    unusable = _unusable(header)
    found = f"its PixelSpacing is {unusable}" if unusable else "it holds no PixelSpacing"
    raise Refusal(
        "no-spacing", f"{found} and no GE ExposedArea; give --pixel-spacing ROW,COL in mm ({ACCEPTED_SPACING})"
    )


def _difference(one: tuple[float, float], other: tuple[float, float]) -> float:
    return max(abs(math.log(a / b)) for a, b in zip(one, other, strict=True))


def _text(name: str, spacing: tuple[float, float]) -> str:
    return f"{name} {spacing[0]:.4g}, {spacing[1]:.4g} mm"
