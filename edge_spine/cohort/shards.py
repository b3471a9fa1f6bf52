"""Write a cohort's results as Parquet shards, atomically, with a note of the last run's model and options."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_spine.cohort.rows import Row, schema
from edge_spine.errors import EdgeSpineError, UsageError, reason_of
from edge_spine.files import write_durably

if TYPE_CHECKING:
    import pyarrow

_NOTE, _LOCK, _SHARDS = "cohort.json", ".lock", "shards"
_ENDED = ("id", "path", "entry", "status", "code", "decided_by", "folder")
_NAME = re.compile(r"part-(\d{8})\.parquet")
ROWS_A_SHARD = 1000
# The most work that a crash can lose.
SECONDS_A_SHARD = 30.0


class Shards:
    """The results in a folder, created if missing and locked for one run at a time.

    `note` holds model and options of this run, and replaces that of an earlier one. Raise UsageError where another run
    holds the folder, or it cannot be written.
    """

    def __init__(self, folder: Path, note: Mapping[str, Any]) -> None:
        from filelock import FileLock, Timeout

        self.folder = folder / _SHARDS
        # The operating system releases this lock when the process ends.
        self._lock = FileLock(folder / _LOCK)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            write_durably(folder / _NOTE, (json.dumps(note, indent=1) + "\n").encode())
        except Timeout:
            raise UsageError(f"--out {folder.name}: another run is writing there") from None
        except OSError as error:
            self._lock.release()
            raise UsageError(f"--out {folder.name}: the folder cannot be used ({reason_of(error)})") from None
        self._next = 1 + max((int(_NAME.fullmatch(path.name)[1]) for path in shard_files(folder)), default=0)  # type: ignore[index]
        self._rows: list[Row] = []
        self._due = 0.0

    def ended(self) -> dict[tuple[str, str], list[Row]]:
        """Return the columns `_ENDED` of all scans with rows, by (id, path); a zip has several.

        "written" is added: when the row was, in seconds since 1970.
        """
        found: dict[tuple[str, str], list[Row]] = {}
        files = shard_files(self.folder.parent)
        for path, table in zip(files, _tables(self.folder.parent, [*_ENDED]), strict=True):
            written = {"written": path.stat().st_mtime}
            # A later shard holds a later attempt.
            latest: dict[tuple[str, str], list[Row]] = {}
            for row in table.to_pylist():
                latest.setdefault((row["id"], row["path"]), []).append(dict.fromkeys(_ENDED) | row | written)
            found |= latest
        return found

    def add(self, rows: list[Row]) -> None:
        """Add the rows of one file; they are written to the same shard."""
        if not self._rows:
            self._due = time.monotonic() + SECONDS_A_SHARD
        self._rows += rows
        if len(self._rows) >= ROWS_A_SHARD:
            self.write()

    def write_if_due(self) -> None:
        """Write the waiting rows if the oldest has waited `SECONDS_A_SHARD`."""
        if self._rows and time.monotonic() >= self._due:
            self.write()

    def write(self) -> None:
        """Write the waiting rows as one shard, atomically; they are kept where it cannot be written: EdgeSpineError."""
        if not self._rows:
            return
        import pyarrow as pa
        import pyarrow.parquet as parquet

        stream = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist(self._rows, schema()), stream, compression="zstd")
        try:
            write_durably(self.folder / f"part-{self._next:08d}.parquet", stream.getvalue())
        except OSError as error:
            raise EdgeSpineError(
                f"--out {self.folder.parent.name}: {len(self._rows)} results cannot be written ({reason_of(error)}); "
                "what was written before is kept, and the same command goes on from there"
            ) from None
        self._next += 1
        self._rows = []

    def close(self) -> None:
        """Write the waiting rows, also after an interruption, and release the folder."""
        try:
            self.write()
        finally:
            self._lock.release()


def read_cohort(folder: str | Path, columns: list[str] | None = None) -> pyarrow.Table:
    """Read the results of a cohort, complete or not, from the `--out` of `edge-spine batch`.

    Parameters
    ----------
    columns : list of str, optional
        Columns to read, "id", "path" and "model_sha256" among them; all by default.

    Returns
    -------
    pyarrow.Table
        One row for each scan; a later attempt replaces an earlier one, and what another model than that of the last
        run has computed is left out. measurements.json explains the columns.

    Raises
    ------
    UsageError
        The folder holds no results.
    """
    import pyarrow as pa

    tables = list(_tables(Path(folder), columns))
    if not tables:
        raise UsageError(f"{Path(folder).name}: no results of edge-spine batch in it")
    whole = pa.concat_tables(tables, promote_options="default")
    shard = [number for number, table in enumerate(tables) for _ in range(len(table))]
    keys = list(zip(whole["id"].to_pylist(), whole["path"].to_pylist(), strict=True))
    newest = dict(zip(keys, shard, strict=True))
    models, model = whole["model_sha256"].to_pylist(), _model(Path(folder))
    known = set(models) if model is None else {None, model}
    return whole.take([row for row, key in enumerate(keys) if newest[key] == shard[row] and models[row] in known])


def shard_files(folder: Path) -> list[Path]:
    """Return the shards of a cohort, oldest first."""
    return sorted(path for path in (folder / _SHARDS).glob("part-*.parquet") if _NAME.fullmatch(path.name))


def _tables(folder: Path, columns: list[str] | None = None) -> Iterator[pyarrow.Table]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    for path in shard_files(folder):
        try:
            # Read as bytes: Windows cannot replace a memory-mapped file. Without threads, as `read_table` starts some
            # in any case: a process that ends while one of them still starts is aborted.
            with parquet.ParquetFile(pa.BufferReader(path.read_bytes()), pre_buffer=False) as shard:
                yield shard.read(columns, use_threads=False)
        except (OSError, pa.ArrowException):
            raise UsageError(f"{path.name}: damaged; delete it and run again to repeat its scans") from None


def _model(folder: Path) -> str | None:
    """Return the SHA-256 of the model of the last run, None where it is unknown."""
    try:
        found = json.loads((folder / _NOTE).read_text(encoding="utf-8"))["model_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(found)
