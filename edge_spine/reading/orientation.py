"""How a stored image is turned so that the head is up and patient right is at image left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_spine.errors import Refusal

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Turn:
    """What to do to the stored image: first transpose, then flip.

    Attributes
    ----------
    transpose, flip_columns, flip_rows : bool
        Exchange rows and columns; reverse left and right; reverse up and down.
    flags : tuple of str
        What a reader of the result should know of it.
    """

    transpose: bool = False
    flip_columns: bool = False
    flip_rows: bool = False
    flags: tuple[str, ...] = ()

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
        """Find points of the turned image in the stored one.

        Parameters
        ----------
        points : (N, 2) array
            Column and row in the turned image; 0, 0 is the centre of its first pixel.
        shape : tuple of int
            Rows and columns of the turned image.

        Returns
        -------
        ndarray of float64, (N, 2)
            Column and row in the stored image, from the centre of its first pixel.
        """
        column, row = np.asarray(points, dtype=np.float64).T
        if self.flip_columns:
            column = shape[1] - 1 - column
        if self.flip_rows:
            row = shape[0] - 1 - row
        return np.column_stack((row, column) if self.transpose else (column, row))


def turn_from_patient_orientation(source: str, patient_orientation: Any) -> Turn:
    r"""Find the turn from DICOM PatientOrientation.

    Parameters
    ----------
    source : str
        File name for messages.
    patient_orientation : sequence of str, or anything where the attribute is absent or damaged
        Patient direction of increasing columns, then of increasing rows (DICOM PS3.3 C.7.6.1.1.1);
        only the first letter of each counts, which names the main direction. ``L\F`` needs no turn.

    Returns
    -------
    Turn
        With the flag "orientation-unknown" where nothing is known: the image is taken as stored.

    Raises
    ------
    Refusal
        'not-whole-body' where the image is not a frontal view.
    """
    letters = _main_directions(patient_orientation)
    if set(letters) & {"A", "P"}:
        raise Refusal(
            "not-whole-body",
            f"{source}: this is no frontal view (PatientOrientation {letters[0]}\\{letters[1]}); "
            "an antero-posterior whole-body DXA image is accepted",
        )
    transpose = letters[:1] in (("H",), ("F",))
    across, down = letters[::-1] if transpose else letters or ("", "")
    if across not in ("L", "R") or down not in ("F", "H"):
        return Turn(flags=("orientation-unknown",))
    flip_columns, flip_rows = across == "R", down == "H"
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
