"""Keep scans on disk during processing; each step is one rename, so that a killed process loses no scan.

A spool has the folders ``work/`` (claimed scans, in a subfolder for each number of attempts), ``done/``, ``failed/``
(refused or failed, each with a reason) and ``quarantine/`` (scans during which the process died three times). Scans
wait in ``queue/`` for the node, and in the spool itself for the watch folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from edge_spine.errors import EdgeSpineError, reason_of
from edge_spine.files import move_durably, sync_folder, write_durably
from edge_spine.reading.checks import storable

MAX_ATTEMPTS = 3
_ATTEMPTS = tuple(f"work/{number}" for number in range(MAX_ATTEMPTS + 1))
_ENDS = ("done", "failed", "quarantine")
_REASON = ".reason.json"
# most bytes of a name, of the 255 that file systems allow: a number, `_REASON` and what `beside` adds need the others
_NAME_BYTES = 210
# 2020: an earlier time is that of a clock that was not set yet
_CLOCK_IS_SET_S = 1_577_836_800


@dataclass(frozen=True)
class Claim:
    """A scan that this process works on: where it is now, its file name before, and the attempt's number from 1."""

    path: Path
    name: str
    attempt: int


class Spool:
    """The folders, made if missing for this user alone, and locked by one process at a time.

    With `keep_done`, processed scans are moved to ``done/`` instead of being deleted. Raise EdgeSpineError where the
    folder cannot be created or written, or another process holds it.
    """

    def __init__(self, root: Path, *, keep_done: bool) -> None:
        self.root = root
        self._keep_done = keep_done
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for folder in ("work", *_ATTEMPTS, *_ENDS):
                (root / folder).mkdir(exist_ok=True, mode=0o700)
            self._lock = FileLock(root / ".lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise EdgeSpineError(f"{root}: another process works on this folder; stop it or choose another") from None
        except OSError as error:
            raise EdgeSpineError(f"{root}: the folder cannot be used ({reason_of(error)}); choose another") from None

    def claim(self, path: Path) -> Claim | None:
        """Claim a waiting scan; return None if it is gone or cannot be moved now."""
        return self._claim(path, path.name, 1)

    def interrupted(self) -> Iterator[Claim]:
        """Claim again the scans that a killed process had claimed, to be processed before new ones.

        After three attempts a scan goes to ``quarantine/`` instead.
        """
        for attempt in range(MAX_ATTEMPTS, -1, -1):
            for path in files_in(self.root / _ATTEMPTS[attempt]):
                claim = Claim(path, path.name, attempt)
                if attempt == MAX_ATTEMPTS:
                    message = f"the process died {MAX_ATTEMPTS} times while processing this file; it is not tried again"
                    self._put(claim, "quarantine", {"status": "failed", "code": None, "message": message})
                elif again := self.retry(claim):
                    yield again

    def retry(self, claim: Claim) -> Claim | None:
        """Start the next attempt; return None if there is none left."""
        return self._claim(claim.path, claim.name, claim.attempt + 1) if claim.attempt < MAX_ATTEMPTS else None

    def give_back(self, claim: Claim) -> Claim:
        """Return a scan, without counting this attempt, for a later `retry` or for the next process."""
        attempt = claim.attempt - 1
        place = self.root / _ATTEMPTS[attempt] / claim.name
        try:
            move_durably(claim.path, place)
        except OSError:
            return claim
        return Claim(place, claim.name, attempt)

    def finish(self, claim: Claim) -> None:
        """Move a processed scan to ``done/``, or delete it."""
        if self._keep_done:
            self._put(claim, "done")
        else:
            claim.path.unlink(missing_ok=True)
            sync_folder(claim.path.parent)

    def reject(self, claim: Claim, status: str, code: str | None, message: str) -> None:
        """Move a scan to ``failed/``, with its reason in a file beside it: "refused" or "failed", and a message.

        The message is one line without patient data.
        """
        self._put(claim, "failed", {"status": status, "code": code, "message": message})

    def purge(self, days: float) -> int:
        """Delete files that ended more than `days` ago; return their number.

        Files that ended before the clock was set, as on a device without a battery, count from now.
        """
        oldest, gone = time.time() - days * 86_400, 0
        for folder in _ENDS:
            for path in files_in(self.root / folder):
                with suppress(OSError):
                    ended = path.stat().st_mtime
                    if ended < _CLOCK_IS_SET_S:
                        os.utime(path)
                    elif ended < oldest:
                        path.unlink()
                        gone += 1
        return gone

    def count(self, folder: str) -> int:
        """Count the scans in a folder of the spool."""
        return sum(not path.name.endswith(_REASON) for path in files_in(self.root / folder))

    def close(self) -> None:
        """Release the folders; closing twice is harmless."""
        self._lock.release()

    def _claim(self, path: Path, name: str, attempt: int) -> Claim | None:
        place = self.root / _ATTEMPTS[attempt] / name
        try:
            # A scan of the same name is being processed; this one waits.
            if place.exists():
                return None
            move_durably(path, place)
        except OSError:
            return None
        return Claim(place, name, attempt)

    def _put(self, claim: Claim, folder: str, reason: dict[str, str | None] | None = None) -> None:
        place = _free(self.root / folder / _short(claim.name))
        if reason is not None:
            known = {"name": storable(claim.name)} if _short(claim.name) != claim.name else {}
            text = json.dumps({**known, **reason, "attempt": claim.attempt}, ensure_ascii=False, indent=1)
            write_durably(place.with_name(place.name + _REASON), text.encode())
        # `purge` counts the age from now.
        with suppress(OSError):
            os.utime(claim.path)
        with suppress(FileNotFoundError):
            move_durably(claim.path, place)


def files_in(folder: Path) -> list[Path]:
    """Return the files of a folder that are neither hidden nor temporary, oldest first."""
    found = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.endswith((".part", ".tmp")):
                continue
            with suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name))
    return [folder / name for _, name in sorted(found)]


def _short(name: str) -> str:
    """Return a name that leaves room for `_REASON`, with a hash where it is shortened."""
    if len(os.fsencode(name)) <= _NAME_BYTES:
        return name
    end = f"-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}{Path(name).suffix[:8]}"
    while len(os.fsencode(name + end)) > _NAME_BYTES:
        name = name[:-1]
    return name + end


def _free(place: Path) -> Path:
    """Return a path that does not exist yet, with a number added to the name if necessary."""
    candidate, number = place, 2
    while candidate.exists():
        candidate = place.with_name(f"{place.stem}-{number}{place.suffix}")
        number += 1
    return candidate
