"""Append-only files without patient data: the audit of events and the ledger of processed scans."""

from __future__ import annotations

import hashlib
import json
import threading
from datetime import datetime, timezone
from pathlib import Path

from edge_spine.files import append_durably


class Audit:
    """Log of events as JSON lines; the file is created with the first event."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def note(self, event: str, **fields: str | int | None) -> None:
        """Append an event, a word such as "received"; `fields` are hashes, codes and counts, no values of a header."""
        moment = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps({"time": moment, "event": event, **{k: v for k, v in fields.items() if v is not None}})
        with self._lock:
            append_durably(self._path, line)


class Ledger:
    """Processed scans: the SHA-256 of each, beside that of the model and the options that decide about its result.

    An incomplete last line of the file is ignored.
    """

    def __init__(self, path: Path, decided_by: str) -> None:
        self._path, self._decided_by = path, decided_by
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
            if finished_by == decided_by:
                self._done.add(content)
        # The next entry must not be appended to an incomplete line.
        if lines and lines[-1]:
            append_durably(path, "")

    def __contains__(self, content: str) -> bool:
        """Return whether a scan with this SHA-256 was processed with this model and these options."""
        return content in self._done

    def add(self, content: str) -> None:
        """Record a scan by its SHA-256."""
        if content not in self._done:
            append_durably(self._path, f"{content} {self._decided_by}")
            self._done.add(content)


def uid_hash(uid: str) -> str:
    """Return the SHA-256 of a UID, which identifies events of a known UID without revealing it."""
    return hashlib.sha256(uid.encode("utf-8", "replace")).hexdigest()
