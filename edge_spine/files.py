"""Write files so that they appear whole: results beside and renamed, records forced to the disk as well."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Write a file that only this user can read: beside its place, forced to the disk, then renamed.

    Parameters
    ----------
    path : Path
        A file that is there is replaced.
    content : bytes
        What goes into it.

    Raises
    ------
    OSError
        It cannot be written; then nothing is left beside it.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # private from its first byte on
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def move_durably(path: Path, place: Path) -> None:
    """Rename a file or folder within a file system, for good.

    Raises
    ------
    OSError
        FileNotFoundError where another process was first.
    """
    path.replace(place)
    sync_folder(place.parent)


def append_durably(path: Path, line: str) -> None:
    """Add one line to a file; what is there is never touched.

    Raises
    ------
    OSError
        It cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(descriptor, "ab") as stream:
        stream.write(line.encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Force a folder's names to the disk, where the system lets a folder be opened (not on Windows)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        # some network file systems cannot: they decide themselves when a name is safe
        pass
    finally:
        os.close(descriptor)


def write_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files into a folder: all beside their places first, then each renamed into its place.

    A process killed at any moment leaves whole files, of which some may be the ones from before, and
    perhaps hidden ``.NAME.*.partial`` files. An error leaves everything as it was.

    Parameters
    ----------
    folder : Path
        Made where it does not exist.
    contents : mapping of str to bytes
        File names, without folders, and what goes into the files. Files that exist are replaced.

    Returns
    -------
    list of Path
        The written files, in the order of `contents`.

    Raises
    ------
    OSError
        The folder or a file in it cannot be written.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(4)
    partial = {name: folder / f".{name}.{token}.partial" for name in contents}
    try:
        for name, content in contents.items():
            partial[name].write_bytes(content)
        for name, path in partial.items():
            path.replace(folder / name)
    except BaseException:
        for path in partial.values():
            path.unlink(missing_ok=True)
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    return [folder / name for name in contents]
