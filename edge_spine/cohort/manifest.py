"""Read the manifest of a cohort: a list of scan files."""

from __future__ import annotations

import codecs
import csv
import io
import logging
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_spine.errors import UsageError
from edge_spine.reading.checks import check_given_spacing
from edge_spine.reading.files import find_scans
from edge_spine.reading.left_out import LeftOut

PATH, ID, ROW_SPACING, COLUMN_SPACING = COLUMNS = ("path", "id", "row_spacing_mm", "column_spacing_mm")
_DELIMITERS = (",", ";", "\t", "|")
_LIMIT = 1 << 30
_EXPECTED = "a CSV file with a column 'path', or one path a line, expected"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scan:
    """One line of a manifest."""

    # the study's name of the scan; its path in the manifest where there is none
    id: str
    # absolute; a zip stands for all scans in it
    path: str
    # (row, column), for files that hold none
    pixel_spacing_mm: tuple[float, float] | None = None
    # why this line cannot be used; the scan fails with it
    problem: str | None = None
    # names and values of the manifest's own columns, which workers do not get
    others: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)

    def __reduce__(self) -> tuple[type[Scan], tuple[object, ...]]:
        """Pickle what workers need."""
        return type(self), (self.id, self.path, self.pixel_spacing_mm, self.problem)


def read_manifest(manifest: Path, pixel_spacing_mm: tuple[float, float] | None = None) -> list[Scan]:
    """Read a manifest; the scans themselves are not opened and need not exist yet.

    Parameters
    ----------
    manifest : Path
        A CSV file whose first line names the columns (`COLUMNS`; only "path" must be there), delimited by commas,
        semicolons, tabs or vertical bars, or a text file with one path a line. Relative paths start at the manifest's
        folder. A folder stands for all scans below it.
    pixel_spacing_mm : (row, column), optional
        For lines that give none.

    Returns
    -------
    list of Scan
        Each path once, in the order of the manifest. A line that cannot be used has a `Scan.problem`.

    Raises
    ------
    UsageError
        The manifest cannot be read, its columns are unknown, an id names two files, no line can be used, or there is
        no scan.
    """
    scans = _folder(manifest, pixel_spacing_mm) if manifest.is_dir() else _lines(manifest, pixel_spacing_mm)
    by_path: dict[str, Scan] = {}
    by_id: dict[str, str] = {}
    repeated = []
    for scan in scans:
        if by_id.setdefault(scan.id, scan.path) != scan.path:
            raise UsageError(f"{manifest.name}: the id {scan.id!r} names two files; give each its own id")
        if by_path.setdefault(scan.path, scan) is not scan:
            repeated.append(scan.id)
    if not by_path:
        raise UsageError(f"{manifest.name}: no scan in it; {_EXPECTED}")
    if all(scan.problem for scan in by_path.values()):
        raise UsageError(f"{manifest.name}: {next(iter(by_path.values())).problem}")
    if repeated:
        _log.warning(
            "%s: %d lines name a path again and are left out (%s)",
            *(manifest.name, len(repeated), ", ".join(repeated[:3]) + (", ..." if len(repeated) > 3 else "")),
        )
    return list(by_path.values())


def _folder(folder: Path, spacing: tuple[float, float] | None) -> Iterator[Scan]:
    base, left_out = folder.absolute(), LeftOut()
    files = dict.fromkeys(found.path.absolute() for found in find_scans([folder], left_out))
    if left_out:
        _log.warning("left out: %s", left_out)
    for path in files:
        yield Scan(path.relative_to(base).as_posix(), str(path), spacing)


def _text(manifest: Path) -> str:
    try:
        if manifest.stat().st_size > _LIMIT:
            raise UsageError(f"{manifest.name}: larger than {_LIMIT >> 30} GiB, this is no manifest")
        content = manifest.read_bytes()
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            text = content.decode("utf-16")
        else:
            # file names that are not UTF-8 are kept as surrogate escapes, as in `os.fsdecode`
            text = content.decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise UsageError(f"{manifest.name}: {error.strerror or 'cannot be read'}") from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UsageError(f"{manifest.name}: not a text in UTF-8; {_EXPECTED}")
    return text


def _lines(manifest: Path, spacing: tuple[float, float] | None) -> Iterator[Scan]:
    base, text = manifest.absolute().parent, _text(manifest)
    # what comes before the header: empty lines, comments, and Excel's note of the delimiter
    head = re.match(r"(?:[ \t]*(?:(?:#|sep=.)[^\r\n]*)?(?:\r\n|\r|\n))*", text)
    start = head.end() if head else 0
    first = re.split(r"[\r\n]", text[start:], maxsplit=1)[0]
    for delimiter in _DELIMITERS:
        names = _cells(first, delimiter)
        if PATH in map(str.lower, names):
            yield from _table(manifest, text[start:], text.count("\n", 0, start), delimiter, names, spacing)
            return
    if first and not _is_path(base, first):
        found = max((_cells(first, delimiter) for delimiter in _DELIMITERS), key=len)
        raise UsageError(
            f"{manifest.name}: no column 'path' (the first line has {', '.join(map(repr, found[:8]))}); name the "
            "column of the files 'path', or give one path a line without a header"
        )
    for line in re.split(r"\r\n|\r|\n", text):
        path = _unquoted(line)
        if path and not path.startswith("#"):
            yield Scan(path, str(base / path), spacing)


def _cells(line: str, delimiter: str) -> list[str]:
    cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    return [cell.strip() for cell in cells]


def _unquoted(line: str) -> str:
    line = line.strip()
    return line[1:-1].replace('""', '"') if len(line) > 1 and line[0] == line[-1] == '"' else line


def _is_path(base: Path, line: str) -> bool:
    """Return whether the first line of a text is a path and no header: it exists, or looks like one path."""
    path = _unquoted(line)
    if os.path.exists(base / path):  # noqa: PTH110  # False where a path cannot be looked at
        return True
    return not any(delimiter in path for delimiter in _DELIMITERS) and any(mark in path for mark in "./\\")


def _table(
    manifest: Path, text: str, before: int, delimiter: str, names: list[str], spacing: tuple[float, float] | None
) -> Iterator[Scan]:
    names = [name.lower() if name.lower() in COLUMNS else name for name in names]
    for name in filter(None, names):
        if names.count(name) > 1:
            raise UsageError(f"{manifest.name}: {names.count(name)} columns are named {name!r}; one is expected")
    if unused := [name for name in names if "spacing" in name.lower() and name not in COLUMNS]:
        _log.warning(
            "%s: %s not used; the spacing of a scan is read from %s and %s",
            *(manifest.name, " and ".join(map(repr, unused)), ROW_SPACING, COLUMN_SPACING),
        )
    base = manifest.absolute().parent
    rows = _rows(manifest, text, before, delimiter)
    next(rows)
    for number, row in rows:
        cells = dict(zip(names, map(str.strip, row), strict=False))
        if not any(map(str.strip, row)):
            continue
        path = cells.get(PATH, "")
        own, problem = _spacing(cells.get(ROW_SPACING, ""), cells.get(COLUMN_SPACING, ""))
        if any(row[len(names) :]):
            problem = f"line {number} has more cells than the header; quote what holds a delimiter"
        elif not path or "\n" in path or "\r" in path:
            problem = f"line {number} names no file in its column 'path'"
        place = str(base / path) if path and "\n" not in path else f"{manifest.absolute()}, line {number}"
        others = tuple((name, cells.get(name, "")) for name in names if name and name not in COLUMNS)
        yield Scan(cells.get(ID) or path or f"line {number}", place, own or spacing, problem, others)


def _rows(manifest: Path, text: str, before: int, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Return the cells of each row with the number of its last line."""
    # a cell as long as the manifest may be; the limit is one of the whole process, so that all rows are read at once
    usual = csv.field_size_limit(_LIMIT)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        return iter([(before + reader.line_num, row) for row in reader])
    except csv.Error as error:
        raise UsageError(f"{manifest.name}: not readable as CSV (line {before + reader.line_num}: {error})") from None
    finally:
        csv.field_size_limit(usual)


def _spacing(row: str, column: str) -> tuple[tuple[float, float] | None, str | None]:
    """Return the spacing of a line, or what is wrong with it."""
    if not row and not column:
        return None, None
    try:
        # some countries write a decimal comma
        spacing = float(row.replace(",", ".")), float(column.replace(",", "."))
        if all(map(math.isfinite, spacing)):
            check_given_spacing(spacing)
            return spacing, None
    except (ValueError, UsageError):
        pass
    return None, f"{ROW_SPACING} and {COLUMN_SPACING} must both be millimetres such as 2.4"
