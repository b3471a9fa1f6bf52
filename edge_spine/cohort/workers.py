"""What a run asks of whoever does the work: a process pool here, or a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from edge_spine.cohort.manifest import Scan
from edge_spine.cohort.rows import Row


@dataclass(frozen=True)
class Finished:
    """What became of a chunk of scans.

    Attributes
    ----------
    scans : tuple of Scan
        The chunk.
    rows : list of dict
        Their rows.
    lost : bool
        Whoever had them is gone; there are no rows.
    """

    scans: tuple[Scan, ...]
    rows: list[Row] = field(default_factory=list)
    lost: bool = False


class Workers(ABC):
    """Workers that each hold a loaded model; a context manager.

    Attributes
    ----------
    count : int
        How many there are.
    """

    count: int

    @abstractmethod
    def submit(self, scans: tuple[Scan, ...]) -> None:
        """Hand a chunk over; at most a few for each worker at a time."""

    @abstractmethod
    def wait(self, seconds: float) -> list[Finished]:
        """Return what has finished, waiting so long for the first.

        Raises
        ------
        EdgeSpineError
            A worker cannot work at all: another version, another model, no engine.
        """

    @abstractmethod
    def close(self) -> None:
        """Give everything back, and wait for nothing that still runs; closing twice is harmless."""
