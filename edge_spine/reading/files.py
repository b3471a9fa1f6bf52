"""Find scans in the files, folders and zips that a user names."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_spine.errors import InputUnavailable, Refusal, UsageError, named_refusals
from edge_spine.reading.archive import ACCEPTED_ZIP, dicom_entries, entry_source, read_entry
from edge_spine.reading.checks import printable
from edge_spine.reading.kinds import HEAD_BYTES, ImageKind, kind_of
from edge_spine.reading.read import read_scan, scan_from_bytes
from edge_spine.scan import Scan

_SUFFIXES = (".dcm", ".dicom", ".png", ".npy")
_RESULT_FILE = "result.json"
_NAME_LENGTH = 80
_WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


@dataclass(frozen=True)
class ScanFile:
    """File of a scan, not yet read.

    Attributes
    ----------
    path : Path
        The image file, or the zip that holds it.
    entry : str or None
        Its name within the zip.
    name : str
        A folder name for its results: safe on every system, and unique in the list it comes from.
    """

    path: Path
    entry: str | None
    name: str

    @property
    def source(self) -> str:
        """File name without its folder, or "zip name!entry name", for messages."""
        return printable(self.path.name) if self.entry is None else entry_source(self.path, self.entry)

    @property
    def whole_path(self) -> str:
        """The file as it was named, with the entry of a zip after "!"."""
        return str(self.path) if self.entry is None else f"{self.path}!{self.entry}"

    def read(self, pixel_spacing: Sequence[float] | None = None, imager_spacing: bool = False) -> Scan:
        """Read the scan, with the parameters and errors of `edge_spine.reading.read_scan`."""
        with named_refusals(self.source):
            if self.entry is not None:
                content = read_entry(self.path, self.entry)
                return scan_from_bytes(
                    content,
                    self.source,
                    pixel_spacing=pixel_spacing,
                    imager_spacing=imager_spacing,
                    path=self.whole_path,
                )
            if _kind(self.path) is ImageKind.ZIP:
                # A zip itself is listed only where no image was found in it: `dicom_entries` raises the reason.
                dicom_entries(self.path)
                raise Refusal("unreadable", f"the zip holds no .dcm file; {ACCEPTED_ZIP}")
        return read_scan(self.path, pixel_spacing=pixel_spacing, imager_spacing=imager_spacing)


def find_scans(inputs: Sequence[str | os.PathLike[str]]) -> list[ScanFile]:
    """Find the scans in files, folders and zips, without reading their pixels.

    Parameters
    ----------
    inputs : sequence of path-like
        A file is listed whatever it is, and refused when it is read. Folders are searched recursively for DICOM, PNG
        and NPY files, by content or by suffix, and for zips of DICOM files; hidden files, DICOMDIR and folders with
        results of edge-spine are left out.

    Returns
    -------
    list of ScanFile
        In the order of `inputs`, sorted within each folder and zip, each file once.

    Raises
    ------
    UsageError
        Where nothing is found, or a folder cannot be listed.
    """
    found: dict[tuple[Path, str | None], tuple[Path, str | None]] = {}
    for item in map(Path, inputs):
        for path in _walk(item) if item.is_dir() else (item,):
            for entry in _entries(path, explicit=path is item):
                found.setdefault((path.absolute(), entry), (path, entry))
    if not found:
        given = ", ".join(printable(Path(item).name or str(item)) for item in inputs) or "no input"
        raise UsageError(f"{given}: no scan found; give DICOM, PNG or NPY images, folders or zips of them")
    return _named([ScanFile(path, entry, _result_name(path, entry)) for path, entry in found.values()])


def _walk(folder: Path) -> Iterator[Path]:
    def stop(error: OSError) -> None:
        name = printable(Path(error.filename or folder).name)
        raise UsageError(f"{name}: the folder cannot be listed ({type(error).__name__})") from None

    for parent, folders, files in os.walk(folder, onerror=stop):
        if _RESULT_FILE in files:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            if name.startswith(".") or name.upper() == "DICOMDIR":
                continue
            if looks_like_scan(path):
                yield path


def looks_like_scan(path: Path) -> bool:
    """Return whether a file is, by content or suffix, a scan or a zip of scans."""
    return path.name.lower().endswith(_SUFFIXES) or _kind(path) is not None


def _entries(path: Path, *, explicit: bool) -> list[str | None]:
    """Return the entries of a zip, or None for the file itself, to be read or refused later."""
    if _kind(path) is not ImageKind.ZIP:
        return [None]
    try:
        entries = dicom_entries(path)
    except (Refusal, InputUnavailable):
        return [None]
    # a zip without images is left out of a folder, and refused where the user named it
    return [*entries] or ([None] if explicit else [])


def _kind(path: Path) -> ImageKind | None:
    try:
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            return kind_of(stream.read(HEAD_BYTES))
    except (OSError, ValueError):
        return None


def _result_name(path: Path, entry: str | None) -> str:
    parts = [path.name] if entry is None else entry_source(path, entry).split("!")
    stems = [re.sub(r"\.(dcm|dicom|png|npy|zip)$", "", part, flags=re.IGNORECASE) for part in parts]
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(stems)).strip("._-")[:_NAME_LENGTH].rstrip(".") or "scan"
    return f"scan-{safe}" if _WINDOWS_DEVICES.match(safe) else safe


def _named(files: list[ScanFile]) -> list[ScanFile]:
    """Add a hash to each repeated name; upper and lower case are equal on many disks.

    It is of the name within a zip, which stays when the zip is moved, and where that is repeated of the whole path.
    """
    for whole in (_within, _whole):
        counts = Counter(file.name.lower() for file in files)
        files = [file if counts[file.name.lower()] == 1 else _hashed(file, whole(file)) for file in files]
    return files


def _within(file: ScanFile) -> str:
    return f"{file.path.name}!{file.entry}"


def _whole(file: ScanFile) -> str:
    return f"{os.path.abspath(file.path)}!{file.entry}"  # noqa: PTH100


def _hashed(file: ScanFile, whole: str) -> ScanFile:
    letters = hashlib.sha256(os.fsencode(whole)).hexdigest()[:8]
    return replace(file, name=f"{_result_name(file.path, file.entry)}-{letters}")
