"""Check sizes and spacing of images of every kind before pixels are allocated, and refuse damaged files."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from edge_spine.errors import InputUnavailable, Refusal, UsageError, reason_of

MAX_FILE_BYTES = 64 * 2**20
MIN_ROWS, MIN_COLUMNS = 100, 40
MAX_SIDE = 16_384
MAX_PIXELS = 25_000_000
MIN_SPACING_MM, MAX_SPACING_MM = 0.05, 20.0
# lower images show a region, not a body; higher ones have a wrong spacing, since a DXA table is about 2 m long
MIN_BODY_MM, MAX_BODY_MM = 900.0, 3000.0

ACCEPTED_SPACING = f"row and column spacing from {MIN_SPACING_MM:g} to {MAX_SPACING_MM:g} mm"


def printable(name: str) -> str:
    """Return a name for a one-line message, with '?' in place of unprintable characters."""
    return "".join(character if character.isprintable() else "?" for character in name)


def storable(text: str) -> str:
    """Return a text in which bytes that are not UTF-8, as names of files can hold, are written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


@contextmanager
def damage_refused(found: str, accepted: str) -> Iterator[None]:
    """Turn every exception of a parser into the refusal 'unreadable'.

    Parsers raise many types on damaged files, whose texts can quote patient data: only the type is shown. Raise
    InputUnavailable instead where the system is the reason: no rights, a share that is away, an error of the disk.
    """
    try:
        yield
    except (Refusal, InputUnavailable):
        raise
    except Exception as error:
        # a damaged zip leads to places that no file has, which is EINVAL; parsers' own errors have no number
        system = error if isinstance(error, OSError) else error.__context__
        if isinstance(system, OSError) and system.errno not in (None, errno.EINVAL):
            raise InputUnavailable(f"the file cannot be read now ({reason_of(system)})") from None
        raise Refusal("unreadable", f"{found} ({type(error).__name__}); {accepted}") from None


def is_plausible_spacing(spacing: Sequence[float]) -> bool:
    """Return whether (row, column) spacing in mm is finite and within the accepted range."""
    return len(spacing) == 2 and all(MIN_SPACING_MM <= value <= MAX_SPACING_MM for value in spacing)


def check_given_spacing(spacing: Sequence[float] | None) -> tuple[float, float] | None:
    """Return the row and column spacing (mm) that a caller gives, as two floats; None where none is given.

    Raise UsageError where it is not two finite numbers within the accepted range.
    """
    if spacing is None:
        return None
    try:
        row, column = (float(value) for value in spacing)
    except (TypeError, ValueError):
        raise UsageError(f"pixel spacing must be two numbers, row then column: {ACCEPTED_SPACING}") from None
    if not is_plausible_spacing((row, column)):
        raise UsageError(f"pixel spacing {row:g}, {column:g} is out of range: give {ACCEPTED_SPACING}")
    return row, column


def check_size(rows: int, columns: int) -> None:
    """Refuse an image with too few or too many pixels: 'unreadable' (none), 'too-small' or 'too-large'."""
    found = f"the image has {rows} rows and {columns} columns"
    if rows < 1 or columns < 1:
        raise Refusal("unreadable", f"{found}; give an image with pixels")
    if rows < MIN_ROWS or columns < MIN_COLUMNS:
        raise Refusal("too-small", f"{found}; at least {MIN_ROWS} rows and {MIN_COLUMNS} columns are accepted")
    if max(rows, columns) > MAX_SIDE or rows * columns > MAX_PIXELS:
        raise Refusal(
            "too-large", f"{found}; at most {MAX_SIDE} either way and {MAX_PIXELS // 10**6} million pixels are accepted"
        )


def check_extent(rows: int, columns: int, spacing: tuple[float, float]) -> None:
    """Refuse an image, its head up and its spacing (row, column) in mm, that cannot show a whole body.

    'not-whole-body' where it is too low, 'no-spacing' where it is larger than any scanner's image.
    """
    height, width = rows * spacing[0], columns * spacing[1]
    if max(height, width) > MAX_BODY_MM:
        raise Refusal(
            "no-spacing",
            f"{height:.0f} x {width:.0f} mm is larger than any DXA table, so the pixel spacing "
            f"{spacing[0]:g}, {spacing[1]:g} mm must be wrong; give the scan's true spacing",
        )
    if height < MIN_BODY_MM:
        raise Refusal(
            "not-whole-body",
            f"with the pixel spacing {spacing[0]:.4g}, {spacing[1]:.4g} mm the image is {height:.0f} mm high; a "
            f"whole-body DXA image of at least {MIN_BODY_MM:.0f} mm is accepted; "
            "if the spacing is wrong, give --pixel-spacing ROW,COL",
        )
