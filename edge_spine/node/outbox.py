"""Keep results on disk until they are delivered: one folder per scan with its objects and a record of the attempts.

Objects are sent as stored, so each attempt sends the same bytes under the same UIDs.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_spine.files import beside, move_durably, sync_folder, write_durably

_RECORD = "delivery.json"


@dataclass(frozen=True)
class Backoff:
    """When to retry a delivery and when to give up.

    The wait, `first_s` after the first failure, is doubled after each further one up to `cap_s`. Results become a dead
    letter when delivery was tried for `give_up_after_s`, or the archive has rejected them permanently `refusals` times.
    """

    first_s: float = 5.0
    cap_s: float = 900.0
    give_up_after_s: float = 72 * 3600.0
    refusals: int = 3


@dataclass(frozen=True)
class Record:
    """State of a delivery.

    `made`, `tried` and `not_before` are Unix times in s, `waited` is the time between attempts so far in s, `attempts`
    and `refusals` are counts, and `problem` is that of the last attempt.
    """

    made: float
    tried: float = 0.0
    waited: float = 0.0
    attempts: int = 0
    refusals: int = 0
    not_before: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Parcel:
    """Undelivered results of one scan."""

    folder: Path
    record: Record

    @property
    def key(self) -> str:
        """The scan's SHA-256."""
        return self.folder.name

    def objects(self) -> list[Path]:
        """Return the undelivered DICOM files, sorted by name."""
        return sorted(self.folder.glob("*.dcm"))


class Outbox:
    """Waiting parcels and dead letters, in ``outbox/`` and ``dead/`` of the spool's folder."""

    def __init__(self, root: Path, backoff: Backoff) -> None:
        self._waiting, self._dead = root / "outbox", root / "dead"
        self._backoff = backoff
        for folder in (self._waiting, self._dead):
            folder.mkdir(exist_ok=True, mode=0o700)
        # Incomplete folders of a killed process; their scans are still in the spool.
        for folder in self._waiting.glob(".*"):
            shutil.rmtree(folder, ignore_errors=True)

    def put(self, key: str, objects: Mapping[str, bytes], problem: str = "") -> None:
        """Add the results of a scan in place of earlier ones of it; none where one cannot be written (OSError).

        `key` is the scan's SHA-256; `objects` are DICOM files by name, sent in the order of the names. Those with a
        `problem` must not be sent: they become a dead letter at once.
        """
        with beside((self._dead if problem else self._waiting) / key, durable=True) as folder:
            folder.mkdir(mode=0o700)
            for name, content in objects.items():
                write_durably(folder / f"{name}.dcm", content)
            write_durably(folder / _RECORD, _to_json(Record(made=time.time(), problem=problem)))

    def due(self) -> Iterator[Parcel]:
        """Yield the parcels that are due, oldest first."""
        now = time.time()
        for parcel in sorted(self._parcels(), key=lambda parcel: parcel.record.made):
            wait = parcel.record.not_before - now
            # A clock that was set back must not delay a delivery.
            if wait <= 0 or wait > self._backoff.cap_s:
                yield parcel

    def delivered(self, path: Path) -> None:
        """Delete a delivered object."""
        path.unlink(missing_ok=True)
        sync_folder(path.parent)

    def close(self, parcel: Parcel) -> None:
        """Delete a completely delivered parcel."""
        self._remove(parcel.folder)

    def postpone(self, parcel: Parcel, problem: str, *, refused: bool) -> bool:
        """Record a failed attempt; return False if it was the last one, and the parcel is now a dead letter.

        To send it again, move its folder from ``dead/`` to ``outbox/`` and delete its ``delivery.json``. `problem` is
        one line without patient data, `refused` whether the archive rejected an object permanently.
        """
        before, now = parcel.record, time.time()
        # a clock that is set right meanwhile, as from 1970 on a device without a battery, must not age the results
        since_last = min(max(now - (before.tried or before.made), 0.0), 2 * self._backoff.cap_s)
        record = Record(
            made=before.made,
            tried=now,
            waited=before.waited + since_last,
            attempts=before.attempts + 1,
            refusals=before.refusals + refused,
            not_before=now + min(self._backoff.first_s * 2.0 ** min(before.attempts, 30), self._backoff.cap_s),
            problem=problem,
        )
        write_durably(parcel.folder / _RECORD, _to_json(record))
        if record.refusals < self._backoff.refusals and record.waited < self._backoff.give_up_after_s:
            return True
        place = self._dead / parcel.key
        if place.exists():
            self._remove(place)
        move_durably(parcel.folder, place)
        return False

    def counts(self) -> tuple[int, int]:
        """Return the numbers of waiting parcels and dead letters."""
        return sum(1 for _ in self._folders(self._waiting)), sum(1 for _ in self._folders(self._dead))

    def _parcels(self) -> Iterator[Parcel]:
        for folder in self._folders(self._waiting):
            try:
                record = Record(**json.loads((folder / _RECORD).read_bytes()))
                _check(record)
            except (OSError, ValueError, TypeError):
                # Moved back by hand or damaged: treated as new.
                record = Record(made=time.time())
            yield Parcel(folder, record)

    @staticmethod
    def _folders(place: Path) -> Iterator[Path]:
        with suppress(FileNotFoundError), os.scandir(place) as entries:
            yield from (place / entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))

    def _remove(self, folder: Path) -> None:
        """Delete a folder; it is renamed first, so that it disappears at once."""
        gone = self._waiting / f".{folder.name}.{secrets.token_hex(4)}"
        move_durably(folder, gone)
        shutil.rmtree(gone, ignore_errors=True)


def _check(record: Record) -> None:
    """Raise TypeError where a record holds text for a number."""
    for name in ("made", "tried", "waited", "attempts", "refusals", "not_before"):
        if not isinstance(getattr(record, name), int | float):
            raise TypeError(name)


def _to_json(record: Record) -> bytes:
    return json.dumps(asdict(record)).encode()
