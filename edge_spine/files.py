"""Write files and folders beside their place and rename them, so that a reader finds them whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


@contextlib.contextmanager
def beside(place: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a hidden path in the same folder, to write a file or a folder at; rename it to `place` at the end.

    A file is replaced by a file, and a folder by a folder as in `replace_folder`; `durable` forces the new name to the
    disk as well. Raise OSError where it cannot be renamed; as after every exception, nothing is left beside `place`. A
    process killed before the end leaves ``.NAME.*.partial`` and what was at `place` before.
    """
    partial = place.with_name(f".{place.name}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        if partial.is_dir():
            replace_folder(place, partial)
        else:
            partial.replace(place)
    except BaseException:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(place.parent)


def replace_folder(place: Path, by: Path) -> None:
    """Replace a folder, if it exists, by another one of the same parent folder, and delete the old one.

    No system renames a folder over one with content, so the earlier one is renamed to ``BY.old`` first. A process
    killed between the two renames leaves both folders whole, and nothing at `place`. A symbolic link is replaced
    itself, not the folder it leads to. Raise OSError where `by` cannot be renamed; then `place` is as before.
    """
    old = by.with_name(f"{by.name}.old")
    if place.is_dir():
        place.replace(old)
    try:
        by.replace(place)
    except BaseException:
        if old.is_dir():
            old.replace(place)
        raise
    if old.is_symlink():
        old.unlink()
    else:
        shutil.rmtree(old, ignore_errors=True)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file that only this user can read, in place of any earlier one, and force it to the disk.

    Where it cannot be written (OSError), nothing is left beside it.
    """
    with beside(path, durable=True) as partial:
        _append_private(partial, content)


def append_durably(path: Path, line: str) -> None:
    """Add one line to a file that only this user can read, and force it to the disk."""
    _append_private(path, line.encode() + b"\n")


def move_durably(path: Path, place: Path) -> None:
    """Rename a file or folder within a file system, and force the new name to the disk.

    FileNotFoundError where another process was first.
    """
    path.replace(place)
    sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Force a folder's names to the disk, where the system lets a folder be opened (not on Windows)."""
    # some network file systems cannot: they decide themselves when a name is safe
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files into a folder, all beside their places first, then each renamed, and return their paths.

    A process killed at any moment leaves whole files, of which some may be the ones from before, and
    perhaps hidden ``.NAME.*.partial`` files. An error while writing leaves everything as it was;
    where a name cannot be replaced, such as that of a file held open on Windows, no file is replaced. Both raise
    OSError. The folder is made where it does not exist; `contents` are by file names, without folders.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.ExitStack() as stack:
            # the stack renames the last one entered first
            for name in reversed(list(contents)):
                stack.enter_context(beside(folder / name)).write_bytes(contents[name])
            require_replaceable(folder / name for name in contents)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    return [folder / name for name in contents]


def require_replaceable(places: Iterable[Path]) -> None:
    """Raise OSError where a file that exists cannot be replaced or deleted, as on Windows while it is open."""
    for place in filter(Path.exists, places):
        # changes nothing, and fails as a replacement would; another process may have deleted it
        with contextlib.suppress(FileNotFoundError):
            place.replace(place)


def _append_private(path: Path, content: bytes) -> None:
    # private from its first byte on
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(descriptor, "ab") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
