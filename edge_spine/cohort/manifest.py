"""Read the manifest of a cohort: a list of scan files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_spine.errors import UsageError
from edge_spine.reading.checks import check_given_spacing
from edge_spine.reading.files import find_scans

PATH, ID, ROW_SPACING, COLUMN_SPACING = COLUMNS = ("path", "id", "row_spacing_mm", "column_spacing_mm")
_LIMIT = 1 << 30


@dataclass(frozen=True)
class Scan:
    """One line of a manifest.

    Attributes
    ----------
    id : str
        The study's name of the scan; its path in the manifest where there is none.
    path : str
        Absolute path. A zip stands for all scans in it.
    pixel_spacing_mm : (row, column) or None
        For files that hold none.
    """

    id: str
    path: str
    pixel_spacing_mm: tuple[float, float] | None = None


def read_manifest(manifest: Path, pixel_spacing_mm: tuple[float, float] | None = None) -> list[Scan]:
    """Read a manifest; the scans themselves are not opened and need not exist yet.

    Parameters
    ----------
    manifest : Path
        A CSV or TSV file whose first line names the columns (`COLUMNS`; only "path" must be there), or a text file
        with one path a line. Relative paths start at the manifest's folder. A folder stands for all scans below it.
    pixel_spacing_mm : (row, column), optional
        For lines that give none.

    Returns
    -------
    list of Scan
        Each path once, in the order of the manifest.

    Raises
    ------
    UsageError
        The manifest cannot be read, a spacing is invalid, an id names two files, or there is no scan.
    """
    if manifest.is_dir():
        base = manifest.absolute()
        files = dict.fromkeys(found.path.absolute() for found in find_scans([manifest]))
        scans: Iterable[Scan] = (Scan(path.relative_to(base).as_posix(), str(path), pixel_spacing_mm) for path in files)
    else:
        scans = _lines(manifest, _text(manifest), pixel_spacing_mm)
    by_path: dict[str, Scan] = {}
    by_id: dict[str, str] = {}
    for scan in scans:
        if by_id.setdefault(scan.id, scan.path) != scan.path:
            raise UsageError(f"{manifest.name}: the id {scan.id!r} names two files; give each its own id")
        by_path.setdefault(scan.path, scan)
    if not by_path:
        raise UsageError(
            f"{manifest.name}: no scan in it; a CSV file with a column 'path', or one path a line, expected"
        )
    return list(by_path.values())


def _text(manifest: Path) -> str:
    try:
        if manifest.stat().st_size > _LIMIT:
            raise UsageError(f"{manifest.name}: larger than {_LIMIT >> 30} GiB, this is no manifest")
        return manifest.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{manifest.name}: {error.strerror or 'cannot be read'}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{manifest.name}: not a text in UTF-8") from None


def _lines(manifest: Path, text: str, spacing: tuple[float, float] | None) -> Iterator[Scan]:
    base = manifest.absolute().parent
    first = text.split("\n", 1)[0]
    mark = "\t" if "\t" in first else ","
    names = [name.strip().lower() for name in first.split(mark)]
    if PATH not in names:
        for line in text.splitlines():
            path = line.strip()
            if path and not path.startswith("#"):
                yield Scan(path, str(base / path), spacing)
        return
    try:
        for row in csv.DictReader(io.StringIO(text, newline=""), delimiter=mark):
            cells = {(name or "").strip().lower(): value for name, value in row.items() if isinstance(value, str)}
            path = cells.get(PATH, "").strip()
            if path:
                own = _spacing(manifest, path, cells.get(ROW_SPACING, ""), cells.get(COLUMN_SPACING, ""))
                yield Scan(cells.get(ID, "").strip() or path, str(base / path), own or spacing)
    except csv.Error as error:
        raise UsageError(f"{manifest.name}: not readable as CSV ({error})") from None


def _spacing(manifest: Path, path: str, row: str, column: str) -> tuple[float, float] | None:
    if not row.strip() and not column.strip():
        return None
    try:
        spacing = float(row), float(column)
        if all(map(math.isfinite, spacing)):
            check_given_spacing(spacing)
            return spacing
    except (ValueError, UsageError):
        pass
    raise UsageError(
        f"{manifest.name}: {path}: {ROW_SPACING} and {COLUMN_SPACING} must both be millimetres such as 2.4"
    ) from None
