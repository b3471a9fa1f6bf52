"""Two files that only ever grow: what happened (audit), what need not be done again (ledger). No patient in either."""

from __future__ import annotations

import hashlib
import json
import threading
from datetime import datetime, timezone
from pathlib import Path

from edge_spine.files import append_durably


class Audit:
    """What happened to every scan, as JSON lines.

    Parameters
    ----------
    path : Path
        The file; made with the first event.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def note(self, event: str, **fields: str | int | None) -> None:
        """Add one event.

        Parameters
        ----------
        event : str
            One word, such as "received" or "done".
        **fields
            What else is known of it: hashes, codes, counts; never what stands in a header.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        moment = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps({"time": moment, "event": event, **{k: v for k, v in fields.items() if v is not None}})
        with self._lock:
            append_durably(self._path, line)


class Ledger:
    """What has been finished: pairs of a scan's content and the model that it met.

    Parameters
    ----------
    path : Path
        The file. A last line that a power cut left incomplete is passed over.
    model : str
        SHA-256 of the model in use.
    """

    def __init__(self, path: Path, model: str) -> None:
        self._path, self._model = path, model
        self._done: set[str] = set()
        try:
            lines = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            lines = []
        for line in lines:
            try:
                content, finished_by = line.decode("ascii").split()
            except ValueError:
                continue
            if finished_by == model:
                self._done.add(content)
        # What follows a torn line must not be joined to it.
        if lines and lines[-1]:
            append_durably(path, "")

    def __contains__(self, content: str) -> bool:
        """Tell whether a scan of this SHA-256 has met this model."""
        return content in self._done

    def add(self, content: str) -> None:
        """Remember a scan by its SHA-256.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        if content not in self._done:
            append_durably(self._path, f"{content} {self._model}")
            self._done.add(content)


def uid_hash(uid: str) -> str:
    """Return the SHA-256 of a UID: whoever knows the UID finds its events, nobody finds the UID from them."""
    return hashlib.sha256(uid.encode("utf-8", "replace")).hexdigest()
