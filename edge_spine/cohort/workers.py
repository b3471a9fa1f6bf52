"""Interface of the workers of a run: a local process pool or a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from edge_spine.cohort.manifest import Scan
from edge_spine.cohort.rows import Row


@dataclass(frozen=True)
class Finished:
    """Outcome of a chunk of scans.

    Attributes
    ----------
    scans : tuple of Scan
        The chunk.
    rows : list of dict
        Their rows.
    lost : bool
        The worker died; there are no rows.
    """

    scans: tuple[Scan, ...]
    rows: list[Row] = field(default_factory=list)
    lost: bool = False


class Workers(ABC):
    """Workers that each hold a loaded model.

    Attributes
    ----------
    count : int
        Number of workers.
    """

    count: int

    @abstractmethod
    def submit(self, scans: tuple[Scan, ...]) -> None:
        """Submit a chunk; the caller keeps at most a few per worker pending."""

    @abstractmethod
    def wait(self, seconds: float) -> list[Finished]:
        """Return the finished chunks, after waiting at most this long for the first.

        Raises
        ------
        EdgeSpineError
            A worker has another version or model, or no engine runs there.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop the workers without waiting for running chunks; closing twice is harmless."""
