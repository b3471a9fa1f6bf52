"""Give the results of each scan a folder of their own, also when several runs write into one folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_spine.errors import OutputError
from edge_spine.files import beside, require_replaceable
from edge_spine.outputs.registry import FORMATS, write_outputs
from edge_spine.quantities import rounded
from edge_spine.version import __version__

if TYPE_CHECKING:
    from edge_spine.result import SpineResult

# Names the scan that a folder belongs to: while files are written, and afterwards if result.json is not among them.
OWNER = ".scan.json"
_NOBODY: dict[str, str | None] = {}
_RESULT = FORMATS["json"].filename
_log = logging.getLogger(__name__)


def write_in_own_folder(
    result: SpineResult, parent: Path, name: str, formats: Sequence[str], *, show_date: bool = False
) -> tuple[SpineResult, list[Path]]:
    """Write a result into ``parent/name``, or with a hash after the name where that folder is another scan's.

    A folder is the scan's own where it holds results of the same path and content. Files in it that another model,
    precision, spacing or version has made are deleted, and named in the log; where one of them cannot be, as on Windows
    while it is open, nothing is written (OSError). Parameters, return values and errors are those of
    `edge_spine.outputs.write_outputs`.
    """
    scan = result.scan
    spacing = [rounded(value, 6) for value in scan.pixel_spacing_mm]
    record = {
        "software": {"name": "edge-spine", "version": __version__},
        "scan": {"path": scan.path, "sha256": scan.sha256, "pixel_spacing_mm": spacing},
        "model": dict(result.model),
    }
    with _own_folder(parent, name, record, keep="json" not in formats) as folder:
        stale = _of_another_result(folder, record, formats)
        require_replaceable([folder / OWNER, *stale])
        result, paths = write_outputs(result, folder, formats, show_date=show_date)
        for path in stale:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        deleted, left = (", ".join(path.name for path in stale if path.exists() is there) for there in (False, True))
        if deleted:
            _log.warning("%s: %s of an earlier result with other options deleted", folder.name, deleted)
        if left:
            note = f"{left} of an earlier result with other options cannot be deleted: delete it yourself"
            result = replace(result, quality=replace(result.quality, notes=(*result.quality.notes, note)))
        return result, paths


@contextmanager
def _own_folder(parent: Path, name: str, record: dict[str, Any], *, keep: bool) -> Iterator[Path]:
    """Yield a folder that no other process gives to another scan."""
    letters = hashlib.sha256(json.dumps(_scan_of(record)).encode()).hexdigest()
    for folder in (parent / part for part in (name, f"{name}-{letters[:8]}", f"{name}-{letters}")):
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            if not _claim(folder, record):
                continue
            yield folder
            if keep:
                with beside(folder / OWNER) as partial:
                    partial.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
        except BaseException:
            if made:
                # nothing was written
                with suppress(OSError):
                    (folder / OWNER).unlink(missing_ok=True)
                    folder.rmdir()
            raise
        if not keep:
            with suppress(OSError):
                (folder / OWNER).unlink(missing_ok=True)
        return
    raise OutputError(f"{name}: its folder and those with a hash in the name belong to other scans; give another --out")


def _claim(folder: Path, record: dict[str, Any]) -> bool:
    """Claim a folder for a scan, unless it belongs to another one; return whether it is the scan's now."""
    wanted = _scan_of(record)
    if not _is_free(folder, wanted):
        return False
    try:
        with (folder / OWNER).open("x", encoding="utf-8") as stream:
            stream.write(json.dumps(record, ensure_ascii=False))
    except FileExistsError:
        return _owner(folder / OWNER) == wanted
    except OSError:
        # a file that a full disk cut short would close the folder to its own scan
        with suppress(OSError):
            (folder / OWNER).unlink(missing_ok=True)
        raise
    # Another process can have finished between the look and the claim.
    if _is_free(folder, wanted):
        return True
    (folder / OWNER).unlink(missing_ok=True)
    return False


def _is_free(folder: Path, wanted: dict[str, str | None]) -> bool:
    """Return whether no results, or those of this scan, are in a folder."""
    records = [folder / name for name in (OWNER, _RESULT) if (folder / name).exists()]
    if records:
        return all(_owner(record) in (wanted, _NOBODY) for record in records)
    ours = {known.filename for known in FORMATS.values()}
    return not any(entry.name in ours for entry in os.scandir(folder))


def _of_another_result(folder: Path, record: dict[str, Any], formats: Sequence[str]) -> list[Path]:
    """Return the files that are not written now, where another result of the scan has left any."""
    if all(_decided_by(folder / name) in (None, _decisive(record)) for name in (OWNER, _RESULT)):
        return []
    others = (folder / known.filename for name, known in FORMATS.items() if name not in formats)
    return [path for path in others if path.exists()]


def _decided_by(place: Path) -> tuple[Any, ...] | None:
    try:
        return _decisive(json.loads(place.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _decisive(record: dict[str, Any]) -> tuple[Any, ...]:
    model, spacing = record["model"], record["scan"]["pixel_spacing_mm"]
    return record["software"]["version"], model["sha256"], model["precision"], [*spacing]


def _scan_of(record: dict[str, Any]) -> dict[str, str | None]:
    return {key: record["scan"][key] for key in ("path", "sha256")}


def _owner(record: Path) -> dict[str, str | None] | None:
    """Return path and content of a record's scan; `_NOBODY` for no JSON, which cannot be a result."""
    try:
        return _scan_of(json.loads(record.read_bytes()))
    except ValueError:
        return _NOBODY
    except (OSError, KeyError, TypeError):
        return None
