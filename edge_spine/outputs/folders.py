"""Give the results of each scan a folder of their own, also when several runs write into one folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edge_spine.errors import OutputError
from edge_spine.outputs.registry import FORMATS, write_outputs
from edge_spine.version import __version__

if TYPE_CHECKING:
    from edge_spine.result import SpineResult
    from edge_spine.scan import Scan

# Names the scan that a folder belongs to: while files are written, and afterwards if result.json is not among them.
OWNER = ".scan.json"
_NOBODY: dict[str, str | None] = {}
_RESULT = FORMATS["json"].filename


def write_in_own_folder(
    result: SpineResult, parent: Path, name: str, formats: Sequence[str], *, show_date: bool = False
) -> tuple[SpineResult, list[Path]]:
    """Write a result into ``parent/name``, or with a hash after the name where that folder is another scan's.

    A folder is the scan's own where it holds results of the same path and content. Parameters, return values and errors
    are those of `edge_spine.outputs.write_outputs`.
    """
    with _own_folder(parent, name, result.scan, keep="json" not in formats) as folder:
        return write_outputs(result, folder, formats, show_date=show_date)


@contextmanager
def _own_folder(parent: Path, name: str, scan: Scan, *, keep: bool) -> Iterator[Path]:
    """Yield a folder that no other process gives to another scan."""
    wanted = {"path": scan.path, "sha256": scan.sha256}
    letters = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()
    for folder in (parent / part for part in (name, f"{name}-{letters[:8]}", f"{name}-{letters}")):
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            if not _claim(folder, wanted):
                continue
            yield folder
        except BaseException:
            if made:
                # nothing was written
                with suppress(OSError):
                    (folder / OWNER).unlink(missing_ok=True)
                    folder.rmdir()
            raise
        if not keep:
            (folder / OWNER).unlink(missing_ok=True)
        return
    raise OutputError(f"{name}: its folder and those with a hash in the name belong to other scans; give another --out")


def _claim(folder: Path, wanted: dict[str, str | None]) -> bool:
    """Claim a folder for a scan, unless it belongs to another one; return whether it is the scan's now."""
    if not _is_free(folder, wanted):
        return False
    software = {"name": "edge-spine", "version": __version__}
    content = json.dumps({"software": software, "scan": wanted}, ensure_ascii=False)
    try:
        with (folder / OWNER).open("x", encoding="utf-8") as stream:
            stream.write(content)
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


def _owner(record: Path) -> dict[str, str | None] | None:
    """Return path and content of a record's scan; `_NOBODY` for no JSON, which cannot be a result."""
    try:
        scan = json.loads(record.read_bytes())["scan"]
        return {"path": scan["path"], "sha256": scan["sha256"]}
    except ValueError:
        return _NOBODY
    except (OSError, KeyError, TypeError):
        return None
