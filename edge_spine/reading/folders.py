"""Search a folder for files that are scans by their content, or by their suffix."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from edge_spine.reading.kinds import HEAD_BYTES, ImageKind, is_own, kind_of
from edge_spine.reading.left_out import BROKEN_LINK, DIRECTORY, HIDDEN, LINK, NO_FILE, NO_IMAGE, OWN, LeftOut

SUFFIXES = (".dcm", ".dicom", ".png", ".npy")
# A preview from before version 0.4.2 lacks the text chunk that names edge-spine.
_PREVIEW, _RESULT = "preview.png", "result.json"


def walk(folder: Path, left_out: LeftOut) -> Iterator[Path]:
    """Yield the scans and zips below a folder, and the files and folders that cannot be opened, each once.

    Links are followed at the end. The names of all other files are added to `left_out`.
    """
    seen: set[str] = set()
    pending = [folder]
    while pending:
        path = pending.pop(0)
        if _is_link(path) and path != folder and os.path.realpath(path) in seen:
            left_out.add(LINK, path.name)
        elif os.path.isdir(path):  # noqa: PTH112  # False where a path cannot be looked at
            yield from _walk(path, seen, pending, left_out)
        elif is_scan(path, left_out):
            seen.add(os.path.realpath(path))
            yield path


def _walk(top: Path, seen: set[str], links: list[Path], left_out: LeftOut) -> Iterator[Path]:
    closed: list[Path] = []
    for parent, folders, files in os.walk(top, onerror=lambda error: closed.append(Path(error.filename))):
        yield from closed
        closed.clear()
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in sorted(files):
            path = Path(parent, name)
            if _is_link(path):
                links.append(path)
            elif (place := os.path.join(real, name)) in seen:  # noqa: PTH118
                left_out.add(LINK, name)
            elif is_scan(path, left_out):
                seen.add(place)
                yield path
        for name in [name for name in folders if name.startswith(".")]:
            folders.remove(name)
            left_out.add(HIDDEN, name)
        folders.sort()
        links += [path for name in folders if _is_link(path := Path(parent, name))]
    yield from closed


def _is_link(path: Path) -> bool:
    # False where a path cannot be looked at, unlike `Path.is_symlink`
    return os.path.islink(path)  # noqa: PTH114


def is_scan(path: Path, left_out: LeftOut) -> bool:
    """Return whether a file in a folder is to be read: a scan, a zip, or one that cannot be opened."""
    if path.name.startswith("."):
        left_out.add(HIDDEN, path.name)
        return False
    try:
        head = head_of(path)
    except FileNotFoundError:
        left_out.add(BROKEN_LINK, path.name)
        return False
    except (OSError, ValueError):
        return True
    if head is None:
        left_out.add(NO_FILE, path.name)
    elif path.name.upper() == "DICOMDIR":
        left_out.add(DIRECTORY, path.name)
    elif is_own(head) or (path.name == _PREVIEW and path.with_name(_RESULT).exists()):
        left_out.add(OWN, path.name)
    elif path.name.lower().endswith(SUFFIXES) or kind_of(head) is not None:
        return True
    else:
        left_out.add(NO_IMAGE, path.name)
    return False


def head_of(path: Path) -> bytes | None:
    """Return the first bytes of a file, None for a pipe or a device, which could block.

    Raise OSError or ValueError where it cannot be opened.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        return None
    with path.open("rb") as stream:
        return stream.read(HEAD_BYTES)


def kind_of_file(path: Path) -> ImageKind | None:
    """Return the kind of a file, None where it is unknown or cannot be opened."""
    try:
        head = head_of(path)
    except (OSError, ValueError):
        return None
    return None if head is None else kind_of(head)
