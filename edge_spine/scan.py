"""DXA scan in memory, with the turn from its stored image."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Turn:
    """Turn a stored image so that the head is up: first transpose, then flip.

    `transpose` exchanges rows and columns, `flip_columns` reverses left and right, `flip_rows` up and down; `flags` are
    remarks for the result.
    """

    transpose: bool = False
    flip_columns: bool = False
    flip_rows: bool = False
    flags: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence that says how the stored image was turned, to convert places back; empty without a turn."""
        steps = {
            "rows and columns exchanged": self.transpose,
            "then left and right reversed": self.flip_columns,
            "then up and down reversed": self.flip_rows,
        }
        turned = ", ".join(step for step, done in steps.items() if done).removeprefix("then ")
        return (f"coordinates are those of the stored image with {turned}",) if turned else ()

    def shape(self, pair: tuple[_Number, _Number]) -> tuple[_Number, _Number]:
        """Return a (row, column) pair of the stored image as one of the turned image."""
        return (pair[1], pair[0]) if self.transpose else pair

    def apply(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return the turned image, (rows, columns), as a view."""
        turned = pixels.T if self.transpose else pixels
        if self.flip_columns:
            turned = turned[:, ::-1]
        return turned[::-1] if self.flip_rows else turned

    def stored_points(self, points: ArrayLike, shape: tuple[int, int]) -> NDArray[np.float64]:
        """Convert points (N, 2) of the turned image, which has this shape (rows, columns), to the stored image.

        Points are column and row, pixels from the centre of the first pixel of their image.
        """
        column, row = np.asarray(points, dtype=np.float64).T
        if self.flip_columns:
            column = shape[1] - 1 - column
        if self.flip_rows:
            row = shape[0] - 1 - row
        return np.column_stack((row, column) if self.transpose else (column, row))


def study_date(header: Dataset | None) -> date | None:
    """Return the date of the study in a header; None where it has none."""
    text = "" if header is None else str(header.get("StudyDate") or "")
    try:
        return date.fromisoformat(f"{text[:4]}-{text[4:6]}-{text[6:8]}")
    except ValueError:
        return None


@dataclass(frozen=True, eq=False)
class Scan:
    """One whole-body DXA image, head up, patient right at image left.

    Attributes
    ----------
    pixels : ndarray of float32, (rows, columns)
        Larger is denser as stored, after modality and VOI LUTs and the inversion of MONOCHROME1. Turned
        already where the file was mirrored or rotated (see `flags`).
    pixel_spacing_mm : tuple of float
        Distance between rows, and between columns, in mm.
    source : str
        File name without its folder, or "zip name!entry name".
    sop_instance_uid : str or None
        DICOM identity, None where there is none.
    flags : tuple of str
        "orientation-unknown": no side of the patient is named; "mirrored-put-right", "rotated-put-right": the stored
        image was turned; "pixel-spacing-given": the caller's spacing is used for a DICOM file;
        "spacing-conflict": the file states two; "rescale-ignored", "window-ignored": a rescale or window that would
        leave no picture, or is damaged.
    path : str
        The file as it was named, with the entry of a zip after "!"; "" where there is none.
    sha256 : str or None
        Of the file's content, or of the zip's entry; None where there is none.
    notes : tuple of str
        Sentences with the figures behind flags.
    """

    pixels: NDArray[np.float32]
    pixel_spacing_mm: tuple[float, float]
    source: str
    sop_instance_uid: str | None
    flags: tuple[str, ...] = ()
    turn: Turn = field(default_factory=Turn)
    header: Dataset | None = field(default=None, repr=False)
    path: str = ""
    sha256: str | None = None
    notes: tuple[str, ...] = ()
