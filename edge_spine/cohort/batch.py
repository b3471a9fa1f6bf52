"""The work that each worker of a cohort does, on every kind of worker."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_spine.cohort.manifest import COLUMN_SPACING, ID, PATH, ROW_SPACING, Scan
from edge_spine.cohort.rows import NAMES, Row, row_of
from edge_spine.engines import EngineName, runs_on_gpu
from edge_spine.engines.sharing import Shared
from edge_spine.errors import EdgeSpineError, UsageError
from edge_spine.reading.checks import storable
from edge_spine.reading.files import find_scans
from edge_spine.reading.left_out import LeftOut
from edge_spine.runner import Report, process
from edge_spine.version import __version__

if TYPE_CHECKING:
    from edge_spine.estimator import SpineEstimator
    from edge_spine.reading.files import ScanFile
    from edge_spine.result import SpineResult

# Two threads must not load the model twice.
_loading = threading.Lock()


@dataclass(eq=False)
class SpineBatch:
    """Estimate the spine in batches of scans; picklable, without the loaded model.

    A callable class as Ray Data's `map_batches` expects. The model is loaded by the first call, once in each process.

    `model`, `engine`, `threads` and `precision` are as in `edge_spine.SpineEstimator`, `imager_spacing` as in
    `edge_spine.read_scan`, and `formats` of `edge_spine.outputs.registry`.
    """

    model: str | Path | None = None
    engine: str = "auto"
    threads: int | None = None
    precision: str = "auto"
    _: KW_ONLY
    # required of the model's manifest on the worker
    model_sha256: str | None = None
    imager_spacing: bool = False
    # files to write for each scan in addition to its row, in a subfolder of `folder`
    formats: Sequence[str] = ()
    folder: str | None = None
    # engine of a process that holds the GPU, to use in place of opening `engine`
    shared: Shared | None = None
    # Pickled, so that a worker can compare it with its own version.
    version: str = field(init=False)

    def __post_init__(self) -> None:
        """Note the version, and check that there is a folder for the files."""
        # no default of the field, which on a worker would be the worker's own version
        self.version = __version__
        if self.formats and self.folder is None:
            raise UsageError("formats are given but no folder to write them to")

    @property
    def needs_gpu(self) -> bool:
        """Whether an engine on a GPU is named; "auto" takes processors on a cluster, whose nodes may differ."""
        return self.engine != EngineName.AUTO and runs_on_gpu(self.engine)

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Process a batch of scans.

        Parameters
        ----------
        batch : mapping
            Columns of equal length: "path", and where there are any "id", "row_spacing_mm" and "column_spacing_mm"
            (None or NaN where a file holds its own).

        Returns
        -------
        dict
            Column name to list, see `edge_spine.cohort.rows`: one row for each scan of a file. A refused or failed
            scan has a row with its code and message.

        Raises
        ------
        EdgeSpineError
            The worker's version or model differs from the sender's, or no engine runs there.
        """
        rows = self.rows(scans_of(batch))
        return {name: [row[name] for row in rows] for name in NAMES}

    def rows(self, scans: Sequence[Scan]) -> list[Row]:
        """Return the rows of scans; see `__call__`."""
        estimator = self.load()
        return [row | {"decided_by": self.decided_by(scan)} for scan in scans for row in self._rows_of(scan, estimator)]

    def decided_by(self, scan: Scan) -> str:
        """Return a hash of the model, precision and spacing with which a scan is processed."""
        whole = (self.model_sha256, self.precision, self.imager_spacing, scan.pixel_spacing_mm)
        return hashlib.sha256(repr(whole).encode()).hexdigest()[:16]

    def load(self) -> SpineEstimator:
        """Return the loaded model of this process after checking version and model hash."""
        if self.version != __version__:
            raise EdgeSpineError(f"a worker has edge-spine {__version__}, the run was started with {self.version}")
        with _loading:
            estimator = _estimator(self.model, self.shared or self.engine, self.threads, self.precision)
        if self.model_sha256 not in (None, estimator.model["sha256"]):
            raise EdgeSpineError(
                f"a worker's model {self.model or 'spine'} is not the one that the run was started with"
            )
        return estimator

    def _rows_of(self, scan: Scan, estimator: SpineEstimator) -> list[Row]:
        problem = scan.problem
        if problem is None:
            left_out = LeftOut()
            try:
                files = find_scans([scan.path], left_out)
            except (EdgeSpineError, OSError) as error:
                problem = said(error)
            else:
                rows = [self._row(scan, file, estimator) for file in files]
                if left_out:
                    rows[0]["message"] += f"; beside it left out: {left_out}"
                return rows
        return [row_of(scan.id, scan.path, None, Report(scan.path, message=problem), None)]

    def _row(self, scan: Scan, file: ScanFile, estimator: SpineEstimator) -> Row:
        done: list[SpineResult] = []

        def keep(result: SpineResult) -> tuple[SpineResult, list[Path]]:
            paths: list[Path] = []
            if self.formats and self.folder is not None:
                from edge_spine.outputs.folders import write_in_own_folder

                result, paths = write_in_own_folder(result, Path(self.folder), folder_name(scan, file), self.formats)
            done.append(result)
            return result, paths

        read = partial(file.read, scan.pixel_spacing_mm, self.imager_spacing)
        report = process(file.source, estimator, read, keep, path=file.whole_path)
        return row_of(scan.id, scan.path, entry_of(scan, file), report, done[0] if done else None)


def said(error: BaseException) -> str:
    """Return the message of an error of ours; of any other its type alone, since its message may quote a file."""
    return str(error) if isinstance(error, EdgeSpineError) else type(error).__name__


def entry_of(scan: Scan, file: ScanFile) -> str | None:
    """Return the name of a scan within the zip or the folder that a path names."""
    if str(file.path) == scan.path:
        return file.entry
    inside = file.path.relative_to(scan.path).as_posix()
    return inside if file.entry is None else f"{inside}!{file.entry}"


def folder_name(scan: Scan, file: ScanFile) -> str:
    """Return a unique folder name: the file's name and a hash of its path."""
    whole = f"{scan.path}\n{entry_of(scan, file)}"
    return f"{file.name}-{hashlib.sha256(storable(whole).encode()).hexdigest()[:8]}"


def scans_of(batch: Mapping[str, Sequence[Any]]) -> list[Scan]:
    """Convert columns to scans."""
    paths = [str(path) for path in batch[PATH]]
    ids = [str(scan_id) for scan_id in batch.get(ID, paths)]
    spacings = [batch.get(name, [None] * len(paths)) for name in (ROW_SPACING, COLUMN_SPACING)]
    return [
        Scan(scan_id, path, None if _missing(row) or _missing(column) else (float(row), float(column)))
        for scan_id, path, row, column in zip(ids, paths, *spacings, strict=True)
    ]


def _missing(value: Any) -> bool:
    return value is None or bool(np.isnan(value))


@functools.lru_cache(maxsize=1)
def _estimator(model: str | Path | None, engine: str | Shared, threads: int | None, precision: str) -> SpineEstimator:
    from edge_spine.estimator import with_threads

    return with_threads(engine if isinstance(engine, str) else engine.connect(), model, threads, precision)
