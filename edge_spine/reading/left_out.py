"""Count and name what a search for scans leaves out."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_spine.reading.checks import printable

_MOST_NAMES = 3

HIDDEN, NO_IMAGE, OWN, DIRECTORY = "hidden", "no image", "written by edge-spine", "index of a DICOM medium"
NO_FILE, BROKEN_LINK, LINK = "not a file", "broken link", "link to a listed file or folder"
NESTED_ZIP, EMPTY_ZIP = "zip in a zip", "zip without an image"


@dataclass
class LeftOut:
    """Names of the files, folders and entries of zips that are no scans: `names` maps a reason to a list of them."""

    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        """Count a name."""
        self.names.setdefault(reason, []).append(printable(name))

    def __len__(self) -> int:
        return sum(map(len, self.names.values()))

    def __str__(self) -> str:
        """Return the counts and the first names of each reason, in one line."""
        return "; ".join(
            f"{len(names)} {reason} ({', '.join(names[:_MOST_NAMES])}{', ...' if len(names) > _MOST_NAMES else ''})"
            for reason, names in self.names.items()
        )
