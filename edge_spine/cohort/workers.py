"""Interface of the workers of a run: a local process pool or a cluster."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from edge_spine.cohort.batch import SpineBatch
from edge_spine.cohort.manifest import Scan
from edge_spine.cohort.rows import Row
from edge_spine.errors import EngineLost


@dataclass(frozen=True)
class Finished:
    """Outcome of a chunk of scans; `lost` means that the worker died, and there are no rows then."""

    scans: tuple[Scan, ...]
    rows: list[Row] = field(default_factory=list)
    lost: bool = False


class Workers(ABC):
    """Workers, `count` of them, that each hold a loaded model."""

    count: int

    @abstractmethod
    def submit(self, scans: tuple[Scan, ...]) -> None:
        """Submit a chunk; the caller keeps at most a few per worker pending."""

    @abstractmethod
    def wait(self, seconds: float) -> list[Finished]:
        """Return the finished chunks, after waiting at most this long for the first.

        Raise EdgeSpineError where a worker has another version or model, or no engine runs there.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop the workers without waiting for running chunks; closing twice is harmless."""


def rows_or_end(batch: SpineBatch, scans: tuple[Scan, ...]) -> list[Row]:
    """Return the rows of scans; where the engine is lost, end this process, so that a new one does them again."""
    try:
        return batch.rows(scans)
    except EngineLost:
        os._exit(1)
