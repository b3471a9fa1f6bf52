"""Watch a folder for scans and write their results to another.

The folder is polled, because network shares send no notifications.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge_spine.errors import EdgeSpineError, InputUnavailable, Refusal, UsageError, reason_of
from edge_spine.estimator import SpineEstimator
from edge_spine.files import beside, sync_folder
from edge_spine.node.records import Audit, Ledger
from edge_spine.node.spool import Claim, Spool, files_in
from edge_spine.node.worker import Worker
from edge_spine.outputs.registry import FORMATS, write_outputs
from edge_spine.reading.checks import printable, storable
from edge_spine.reading.files import ScanFile, find_scans
from edge_spine.reading.folders import is_scan
from edge_spine.reading.left_out import LeftOut
from edge_spine.result import SpineResult
from edge_spine.runner import Report, process
from edge_spine.scan import Scan

# A file that stays incomplete for this long is processed all the same, and is refused with a reason.
_STALLED_S = 120.0
# An unreadable file is tried at least every so many polls.
_MOST_POLLS = 256
# Scans of one file that stay in memory between the check that it is complete and its processing.
_MOST_KEPT = 16
# Hexadecimal digits of the content's SHA-256 in the name of a result's folder.
_HASH_LETTERS = 16
_OWN_FOLDERS = ("work", "done", "failed", "quarantine", "records")
_log = logging.getLogger(__name__)


@dataclass
class _Seen:
    identity: tuple[str, int, int]
    since: float = field(default_factory=time.monotonic)
    polls: int = 0
    unavailable: bool = False


class Arrivals:
    """Find complete files in a folder: unchanged for two polls, and readable by `read`.

    `on_unavailable` is called once with each file that cannot be opened, and why. It stays where it is and is tried
    again.
    """

    def __init__(
        self,
        folder: Path,
        read: Callable[[ScanFile], Scan] = ScanFile.read,
        on_unavailable: Callable[[Path, str], None] = lambda _path, _why: None,
    ) -> None:
        self._folder, self._read, self._on_unavailable = folder, read, on_unavailable
        self._seen: dict[str, _Seen] = {}
        self._left_out = LeftOut()
        self._kept: dict[tuple[tuple[str, int, int], str | None], tuple[Scan, float]] = {}

    def poll(self) -> Iterator[Path]:
        """Yield the complete files, oldest first; each is read just before it is yielded."""
        seen, left_out = {}, _not_searched(self._folder)
        for path in files_in(self._folder):
            if not is_scan(path, left_out):
                continue
            try:
                identity = _identity(path)
            except OSError:
                continue
            known = self._seen.get(path.name)
            if known is None or known.identity != identity:
                known = _Seen(identity)
            else:
                known.polls += 1
            seen[path.name] = known
            stalled = time.monotonic() - known.since > _STALLED_S
            # An unreadable file is tried at growing intervals.
            growing = known.polls >= 2 and known.polls & (known.polls - 1) == 0
            if not (stalled or growing or known.polls % _MOST_POLLS == _MOST_POLLS - 1) or self._is_closed(path, known):
                continue
            if stalled or self._is_whole(path):
                yield path
        self._seen = seen
        if left_out.names != self._left_out.names:
            self._left_out = left_out
            if left_out:
                _log.warning("left where they are: %s", left_out)

    def _is_closed(self, path: Path, known: _Seen) -> bool:
        """Return whether a file cannot be opened now; its content may still be good."""
        try:
            with path.open("rb") as stream:
                stream.read(1)
        except OSError as error:
            if not known.unavailable and known.polls >= 2:
                known.unavailable = True
                self._on_unavailable(path, reason_of(error))
            return True
        return False

    @property
    def pending(self) -> bool:
        """Whether a file may still become ready."""
        return any(known.polls < 2 for known in self._seen.values())

    @property
    def incomplete(self) -> list[Path]:
        """The files that the last `poll` left, without those of `on_unavailable`."""
        return [self._folder / name for name, known in self._seen.items() if not known.unavailable]

    def read(self, scan_file: ScanFile) -> tuple[Scan, float]:
        """Return a scan, and the time that reading it took (ms); what `poll` has read is not read again."""
        return self._kept.pop((_identity(scan_file.path), scan_file.entry), None) or self._timed(scan_file)

    def _timed(self, scan_file: ScanFile) -> tuple[Scan, float]:
        started = time.perf_counter()
        scan = self._read(scan_file)
        return scan, (time.perf_counter() - started) * 1000

    def _is_whole(self, path: Path) -> bool:
        """Return whether all scans in a file can be read, or are refused for another reason than damage."""
        self._kept.clear()
        try:
            identity = _identity(path)
            for scan_file in find_scans([path]):
                read = self._timed(scan_file)
                if len(self._kept) < _MOST_KEPT:
                    self._kept[identity, scan_file.entry] = read
        except Refusal as refusal:
            return refusal.code != "unreadable"
        except (UsageError, InputUnavailable, OSError):
            return False
        return True


def _not_searched(folder: Path) -> LeftOut:
    """Return the links and folders in a watched folder, except the folders of the spool."""
    left_out = LeftOut()
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_symlink():
                left_out.add("link", entry.name)
            elif entry.is_dir() and entry.name not in _OWN_FOLDERS and not entry.name.startswith("."):
                left_out.add("folder", entry.name)
    return left_out


def _identity(path: Path) -> tuple[str, int, int]:
    """Return name, size and time of modification, which change when a file is written, not when it is moved."""
    found = path.stat()
    return path.name, found.st_size, found.st_mtime_ns


class WatchFolder:
    """A running watch folder.

    Parameters
    ----------
    folder : Path
        Folder of new scans; ``work/``, ``done/``, ``failed/``, ``quarantine/`` and ``records/`` are created in it.
    out : Path
        Folder of the results, one subfolder per scan, named by file name and start of the content's SHA-256.
    formats : sequence of str
        Keys of `edge_spine.outputs.registry.FORMATS`.
    read, on_report : callable
        Read a scan, with the spacing of the command line; take the report of a scan.
    options : object
        What else decides about a result, such as the spacing of the command line: a text by `repr`.

    Raises
    ------
    EdgeSpineError
        A folder cannot be used, or another process works on it.
    UsageError
        The folder does not exist, or both are the same.
    """

    def __init__(
        self,
        folder: Path,
        out: Path,
        estimator: SpineEstimator,
        formats: Sequence[str],
        read: Callable[[ScanFile], Scan],
        on_report: Callable[[Report], None],
        options: object = None,
    ) -> None:
        if not folder.is_dir():
            raise UsageError(f"{folder}: there is no such folder")
        if out.absolute() == folder.absolute():
            raise UsageError("results need a folder of their own: IN and OUT are the same")
        self._folder, self._out, self._estimator, self._formats = folder, out, estimator, formats
        self._spool = Spool(folder, keep_done=True)
        try:
            out.mkdir(parents=True, exist_ok=True)
            records = folder / "records"
            records.mkdir(exist_ok=True)
            decided_by = repr((estimator.model["sha256"], tuple(formats), options))
            self._ledger = Ledger(records / "ledger.txt", hashlib.sha256(decided_by.encode()).hexdigest())
        except OSError as error:
            self._spool.close()
            raise EdgeSpineError(f"{error.filename}: the folder cannot be used ({reason_of(error)})") from None

        def unavailable(path: Path, why: str) -> None:
            message = f"{path.name}: the file cannot be read now ({why}); it is tried again"
            on_report(Report(printable(path.name), message=printable(message)))

        self._on_report = on_report
        self._arrivals = Arrivals(folder, read, unavailable)
        self._worker = Worker(self._spool, Audit(records / "audit.jsonl"), self._handle, on_report)

    def run(self, *, poll_s: float, once: bool = False) -> None:
        """Process scans until `end` is called or, with `once`, until only incomplete ones are left: reported."""

        def waiting() -> Iterator[Path]:
            while True:
                found = False
                for path in self._arrivals.poll():
                    found = True
                    yield path
                if found or not once or not self._arrivals.pending or self._worker.stop.wait(poll_s):
                    return

        self._worker.run(waiting, idle_s=poll_s, once=once)
        if once and not self._worker.stop.is_set():
            for path in self._arrivals.incomplete:
                name = printable(path.name)
                message = f"{name}: the file is incomplete, damaged or encrypted; it stays where it is"
                self._on_report(Report(name, message=message, path=storable(str(path))))

    def end(self) -> None:
        """Stop after the current scan."""
        self._worker.end()

    def close(self) -> None:
        """Release the folder."""
        self._spool.close()

    def _handle(self, claim: Claim, content: str) -> list[Report]:
        scan_files = find_scans([claim.path])
        if content in self._ledger:
            names = [FORMATS[name].filename for name in self._formats]
            outputs = [self._place(scan_file, content) / name for scan_file in scan_files for name in names]
            if all(path.is_file() for path in outputs):
                name = printable(claim.name)
                message = f"{name}: already processed with this model and these options"
                return [Report(name, "done", message=message, outputs=[storable(str(path)) for path in outputs])]
        # Partial results of this content that a killed process left.
        for left in self._out.glob(f".*-{content[:_HASH_LETTERS]}.*"):
            shutil.rmtree(left, ignore_errors=True)
        reports = [self._process(scan_file, content) for scan_file in scan_files]
        ends = {report.status for report in reports}
        if "done" in ends and "failed" not in ends:
            self._ledger.add(content)
        return reports

    def _place(self, scan_file: ScanFile, content: str) -> Path:
        return self._out / f"{scan_file.name}-{content[:_HASH_LETTERS]}"

    def _process(self, scan_file: ScanFile, content: str) -> Report:
        place = self._place(scan_file, content)
        # where the user has put it, not where the spool keeps it meanwhile
        as_put = replace(scan_file, path=self._folder / scan_file.path.name).whole_path
        read_ms = 0.0

        def read() -> Scan:
            nonlocal read_ms
            scan, read_ms = self._arrivals.read(scan_file)
            return replace(scan, path=storable(as_put))

        def write(result: SpineResult) -> tuple[SpineResult, list[Path]]:
            with beside(place, durable=True) as folder:
                result, paths = write_outputs(result.with_timing(read=read_ms), folder, self._formats)
                for path in paths:
                    with path.open("rb+") as stream:
                        os.fsync(stream.fileno())
                sync_folder(folder)
            return result, [place / path.name for path in paths]

        return process(scan_file.source, self._estimator, read, write, path=as_put, raise_storage=True)
