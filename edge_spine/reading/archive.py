"""Read images from a zip in memory, as UK Biobank field 20158 delivers them."""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from edge_spine.errors import Refusal
from edge_spine.reading.checks import damage_refused, printable
from edge_spine.reading.folders import SUFFIXES
from edge_spine.reading.kinds import HEAD_BYTES, ImageKind, kind_of
from edge_spine.reading.left_out import DIRECTORY, HIDDEN, NESTED_ZIP, NO_IMAGE, LeftOut

MAX_ENTRIES = 2_000
MAX_ENTRY_BYTES = 64 * 2**20
# 1 KiB is ample for an entry
_MAX_DIRECTORY_BYTES = MAX_ENTRIES * 1024
_ENCRYPTED = 0x1
# zipfile limits the size of what it unpacks only for these two
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ACCEPTED_ZIP = f"a zip of at most {MAX_ENTRIES} files, images among them, is accepted"


class _BoundedReader(io.BufferedReader):
    """Limit the size of one read, since zipfile reads a whole central directory at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile("the central directory is too large")
        return super().read(size)


def image_entries(path: Path, left_out: LeftOut) -> list[str]:
    """List the images in a zip by their names in it, sorted; the names of its other files are added to `left_out`.

    An image is known by its content or its suffix, as in a folder; a file that cannot be unpacked counts as one. Of
    several files of one name the last has it, the others get a number: "11 (2).dcm".

    Refuse the zip as 'unreadable' where it is damaged, 'too-large' where it holds too many files; InputUnavailable
    where it is missing, or cannot be read now.
    """
    with _opened(path) as archive:
        count = len(archive.infolist())
        if count > MAX_ENTRIES:
            raise Refusal("too-large", f"the zip holds {count} files; {ACCEPTED_ZIP}")
        # names within a zip are looked up or shown, never used as paths
        return [entry for entry, info in sorted(_files(archive).items()) if _is_image(archive, entry, info, left_out)]


def read_entry(path: Path, entry: str) -> bytes:
    """Read one file of a zip, by a name from `image_entries`, into memory.

    Refuse it as 'unreadable' where it is damaged, 'too-large' where its content exceeds the limit.
    """
    with _opened(path) as archive:
        info = _files(archive)[entry]
        if info.flag_bits & _ENCRYPTED:
            raise Refusal("unreadable", "encrypted in the zip; give the file unpacked, or a zip without a password")
        if info.compress_type not in _METHODS:
            raise Refusal("unreadable", "unusual zip compression; stored or deflated is accepted")
        content = b""
        if info.file_size <= MAX_ENTRY_BYTES:
            with archive.open(info) as stream:
                content = stream.read(MAX_ENTRY_BYTES + 1)
        if max(info.file_size, len(content)) > MAX_ENTRY_BYTES:
            raise Refusal("too-large", f"larger than {MAX_ENTRY_BYTES >> 20} MiB, the most accepted in a zip")
        return content


def entry_source(path: Path, entry: str) -> str:
    """Return how results and messages name a file inside a zip: "zip name!entry name"."""
    return printable(f"{path.name}!{_entry_path(entry).name}")


def _entry_path(entry: str) -> PurePosixPath:
    return PurePosixPath(entry.replace("\\", "/"))


def _files(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the files of a zip by the names of `image_entries`."""
    infos = [info for info in archive.infolist() if not info.is_dir()]
    found = {info.filename: info for info in infos}
    numbers = dict.fromkeys(found, 1)
    for info in infos:
        if found[info.filename] is not info:
            root, suffix = posixpath.splitext(name := info.filename)
            while name in found:
                numbers[info.filename] += 1
                name = f"{root} ({numbers[info.filename]}){suffix}"
            found[name] = info
    return found


def _is_image(archive: zipfile.ZipFile, entry: str, info: zipfile.ZipInfo, left_out: LeftOut) -> bool:
    name = _entry_path(entry).name
    if name.startswith("."):
        left_out.add(HIDDEN, name)
    elif name.upper() == "DICOMDIR":
        left_out.add(DIRECTORY, name)
    elif name.lower().endswith(SUFFIXES) or (head := _head(archive, info)) is None:
        return True
    elif (kind := kind_of(head)) is ImageKind.ZIP:
        left_out.add(NESTED_ZIP, name)
    elif kind is not None:
        return True
    else:
        left_out.add(NO_IMAGE, name)
    return False


def _head(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes | None:
    """Return the first bytes of an entry, None where it cannot be unpacked."""
    if info.compress_type not in _METHODS:
        return None
    # parsers of damaged zips raise many types
    try:
        with archive.open(info) as stream:
            return stream.read(HEAD_BYTES)
    except Exception:
        return None


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    damage = damage_refused("the zip is damaged", ACCEPTED_ZIP)
    with damage, _BoundedReader(io.FileIO(path)) as stream, zipfile.ZipFile(stream) as archive:
        yield archive
