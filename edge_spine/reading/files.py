"""Find scans in the files, folders and zips that a user names."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_spine.errors import EdgeSpineError, InputUnavailable, Refusal, UsageError, named_refusals
from edge_spine.reading.archive import ACCEPTED_ZIP, entry_source, image_entries, read_entry
from edge_spine.reading.checks import printable
from edge_spine.reading.folders import kind_of_file, walk
from edge_spine.reading.kinds import ImageKind
from edge_spine.reading.left_out import EMPTY_ZIP, LeftOut
from edge_spine.reading.read import read_scan, scan_from_bytes
from edge_spine.scan import Scan

_NAME_LENGTH = 80
_WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


@dataclass(frozen=True)
class ScanFile:
    """File of a scan, not yet read.

    Attributes
    ----------
    path : Path
        The image file, or the zip that holds it; or a folder that cannot be listed.
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
        """Read the scan, with the parameters and errors of `edge_spine.reading.read_scan`.

        Raise EdgeSpineError where it is a folder that cannot be listed.
        """
        if os.path.isdir(self.path):  # noqa: PTH112  # False where it cannot be looked at
            raise EdgeSpineError(f"{self.source}: the folder cannot be listed; check its rights")
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
            if kind_of_file(self.path) is ImageKind.ZIP:
                # A zip is listed itself only where no image was found in it; `image_entries` raises the reason.
                image_entries(self.path, LeftOut())
                raise Refusal("unreadable", f"the zip holds no .dcm file and no other image; {ACCEPTED_ZIP}")
        return read_scan(self.path, pixel_spacing=pixel_spacing, imager_spacing=imager_spacing)


def find_scans(inputs: Sequence[str | os.PathLike[str]], left_out: LeftOut | None = None) -> list[ScanFile]:
    """Find the scans in files, folders and zips, without reading their pixels.

    Parameters
    ----------
    inputs : sequence of path-like
        A file is listed whatever it is, and refused when it is read. Folders are searched recursively for DICOM, PNG
        and NPY files and zips of them, by content or by suffix. Links are followed, once. Hidden files, DICOMDIR and
        what edge-spine wrote are left out. A folder that cannot be listed is listed itself, and fails when it is read.
    left_out : LeftOut, optional
        Takes the names of everything in folders and zips that is not listed.

    Returns
    -------
    list of ScanFile
        In the order of `inputs`, sorted within each folder and zip with links at the end, each file once.

    Raises
    ------
    UsageError
        Where nothing is found.
    """
    left_out = LeftOut() if left_out is None else left_out
    found: dict[tuple[str, str | None], tuple[Path, str | None]] = {}
    for item in map(Path, inputs):
        for path in walk(item, left_out) if os.path.isdir(item) else (item,):  # noqa: PTH112
            for entry in _entries(path, left_out, explicit=path is item):
                found.setdefault((os.path.realpath(path), entry), (path, entry))
    if not found:
        given = ", ".join(printable(Path(item).name or str(item)) for item in inputs) or "no input"
        among = f" (left out: {left_out})" if left_out else ""
        raise UsageError(f"{given}: no scan found{among}; give DICOM, PNG or NPY images, folders or zips of them")
    return _named([ScanFile(path, entry, _result_name(path, entry)) for path, entry in found.values()])


def _entries(path: Path, left_out: LeftOut, *, explicit: bool) -> list[str | None]:
    """Return the entries of a zip, or None for the file itself, to be read or refused later."""
    if kind_of_file(path) is not ImageKind.ZIP:
        return [None]
    try:
        entries = image_entries(path, left_out)
    except (Refusal, InputUnavailable):
        return [None]
    if not entries and not explicit:
        left_out.add(EMPTY_ZIP, path.name)
    # a zip without images is left out of a folder, and refused where the user named it
    return [*entries] or ([None] if explicit else [])


def _result_name(path: Path, entry: str | None) -> str:
    parts = [path.name] if entry is None else entry_source(path, entry).split("!")
    stems = [re.sub(r"\.(dcm|dicom|png|npy|zip)$", "", part, flags=re.IGNORECASE) for part in parts]
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(stems)).strip("._-")[:_NAME_LENGTH].rstrip(".") or "scan"
    return f"scan-{safe}" if _WINDOWS_DEVICES.match(safe) else safe


def _named(files: list[ScanFile]) -> list[ScanFile]:
    """Add a hash to each repeated name; upper and lower case are equal on many disks.

    It is of the name within a zip, which stays when the zip is moved, and where that is repeated of the whole path.
    """
    for place in (os.path.basename, os.path.abspath):
        counts = Counter(file.name.lower() for file in files)
        files = [file if counts[file.name.lower()] == 1 else _hashed(file, place(file.path)) for file in files]
    return files


def _hashed(file: ScanFile, place: str) -> ScanFile:
    letters = hashlib.sha256(os.fsencode(f"{place}!{file.entry}")).hexdigest()[:8]
    return replace(file, name=f"{_result_name(file.path, file.entry)}-{letters}")
