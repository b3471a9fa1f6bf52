"""Scans on disk between their arrival and their end; every step is one rename, so that a killed process loses nothing.

A spool holds ``work/`` (claimed, in a folder named by the number of the attempt), ``done/``, ``failed/`` (refused or
failed, each with a reason) and ``quarantine/`` (whatever ended the process three times). Scans wait in ``queue/`` for
the node, and in the spool itself for the watch folder.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from edge_spine.errors import EdgeSpineError
from edge_spine.files import move_durably, sync_folder, write_durably

MAX_ATTEMPTS = 3
_ATTEMPTS = tuple(f"work/{number}" for number in range(MAX_ATTEMPTS + 1))
_ENDS = ("done", "failed", "quarantine")
_REASON = ".reason.json"


@dataclass(frozen=True)
class Claim:
    """A scan that this process works on.

    Attributes
    ----------
    path : Path
        Where it lies now.
    name : str
        What it was called when it waited.
    attempt : int
        1 the first time, more where earlier attempts ended with the process.
    """

    path: Path
    name: str
    attempt: int


class Spool:
    """The folders, held by one process at a time; a context manager.

    Parameters
    ----------
    root : Path
        Made where it does not exist, for this user alone.
    keep_done : bool
        Keep scans in ``done/`` after their end instead of deleting them.

    Raises
    ------
    EdgeSpineError
        The folder cannot be made or written to, or another process holds it.
    """

    def __init__(self, root: Path, *, keep_done: bool) -> None:
        self.root = root
        self._keep_done = keep_done
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for folder in ("work", *_ATTEMPTS, *_ENDS):
                (root / folder).mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise EdgeSpineError(f"{root}: the folder cannot be used ({error.strerror}); choose another") from None
        self._lock = FileLock(root / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise EdgeSpineError(f"{root}: another process works on this folder; stop it or choose another") from None

    def claim(self, path: Path) -> Claim | None:
        """Take a waiting scan; None where it is gone or cannot be moved now."""
        return self._claim(path, path.name, 1)

    def interrupted(self) -> Iterator[Claim]:
        """Take again what an earlier process had claimed and not ended; the third death is the last.

        Yields
        ------
        Claim
            To be processed before anything new. What has died three times goes to ``quarantine/`` instead.
        """
        for attempt in range(MAX_ATTEMPTS, -1, -1):
            for path in files_in(self.root / _ATTEMPTS[attempt]):
                claim = Claim(path, path.name, attempt)
                if attempt == MAX_ATTEMPTS:
                    self.quarantine(claim)
                elif again := self.retry(claim):
                    yield again

    def retry(self, claim: Claim) -> Claim | None:
        """Count a new attempt; None where there is none left."""
        return self._claim(claim.path, claim.name, claim.attempt + 1) if claim.attempt < MAX_ATTEMPTS else None

    def give_back(self, claim: Claim) -> None:
        """Leave a scan to the next process, without counting this attempt."""
        with suppress(OSError):
            move_durably(claim.path, self.root / _ATTEMPTS[claim.attempt - 1] / claim.name)

    def finish(self, claim: Claim) -> None:
        """End a scan well."""
        if self._keep_done:
            self._put(claim, "done")
        else:
            claim.path.unlink(missing_ok=True)
            sync_folder(claim.path.parent)

    def reject(self, claim: Claim, status: str, code: str | None, message: str) -> None:
        """End a scan badly: into ``failed/``, beside a file that says why.

        Parameters
        ----------
        claim : Claim
            The scan.
        status : str
            "refused" or "failed".
        code : str or None
            The refusal's code.
        message : str
            One line, without patient data.
        """
        self._put(claim, "failed", {"status": status, "code": code, "message": message})

    def quarantine(self, claim: Claim) -> None:
        """Put aside a scan that has ended the process too often."""
        message = f"the process ended {MAX_ATTEMPTS} times while it worked on this file; it is left alone now"
        self._put(claim, "quarantine", {"status": "failed", "code": None, "message": message})

    def purge(self, days: float) -> int:
        """Delete what ended more than so many days ago; return how many files went."""
        oldest, gone = time.time() - days * 86_400, 0
        for folder in _ENDS:
            for path in files_in(self.root / folder):
                with suppress(OSError):
                    if path.stat().st_mtime < oldest:
                        path.unlink()
                        gone += 1
        return gone

    def count(self, folder: str) -> int:
        """Count the scans in a folder of the spool."""
        return sum(not path.name.endswith(_REASON) for path in files_in(self.root / folder))

    def close(self) -> None:
        """Let another process have the folders; closing twice is harmless."""
        self._lock.release()

    def _claim(self, path: Path, name: str, attempt: int) -> Claim | None:
        place = self.root / _ATTEMPTS[attempt] / name
        try:
            # Where a scan of this name is in work already, it waits for that one's end.
            if place.exists():
                return None
            move_durably(path, place)
        except OSError:
            return None
        return Claim(place, name, attempt)

    def _put(self, claim: Claim, folder: str, reason: dict[str, str | None] | None = None) -> None:
        place = _free(self.root / folder / claim.name)
        if reason is not None:
            text = json.dumps({**reason, "attempt": claim.attempt}, ensure_ascii=False, indent=1)
            write_durably(place.with_name(place.name + _REASON), text.encode())
        # The age in the spool counts from here.
        with suppress(OSError):
            os.utime(claim.path)
        with suppress(FileNotFoundError):
            move_durably(claim.path, place)


def files_in(folder: Path) -> list[Path]:
    """List the files of a folder that are neither hidden nor still being written, oldest first."""
    found = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.endswith((".part", ".tmp")):
                continue
            with suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name))
    return [folder / name for _, name in sorted(found)]


def _free(place: Path) -> Path:
    """Return the place, or one beside it: an earlier scan of the same name is never overwritten."""
    candidate, number = place, 2
    while candidate.exists():
        candidate = place.with_name(f"{place.stem}-{number}{place.suffix}")
        number += 1
    return candidate
