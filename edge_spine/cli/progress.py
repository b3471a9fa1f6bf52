"""What a person at a terminal sees of a long run: a bar while it lasts, and a table at its end. All on stderr."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter

from edge_spine.runner import Report

_BAR_WIDTH = 24


class Progress:
    """A bar, where stderr is a terminal and there are several scans, and the summary of several.

    Parameters
    ----------
    count : int
        How many scans there are.
    quiet : bool
        Show neither.
    """

    def __init__(self, count: int, *, quiet: bool) -> None:
        self._count = count
        self._summarised = count > 1 and not quiet
        self._shown = self._summarised and sys.stderr.isatty()
        self._started = time.perf_counter()
        self._length = 0
        self._ends: Counter[tuple[str, str]] = Counter()

    def show(self, name: str) -> None:
        """Draw the bar with the scan that is in work."""
        if not self._shown:
            return
        done, seconds = self._ends.total(), time.perf_counter() - self._started
        filled = _BAR_WIDTH * done // self._count
        text = f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {done}/{self._count}"
        if done:
            text += f" {done / seconds:.1f} scans/s, {_duration(seconds / done * (self._count - done))} left,"
        # A longer line would wrap, and could not be taken back.
        text = f"{text} {name}"[: shutil.get_terminal_size().columns - 1]
        self.clear()
        self._length = len(text)
        print(f"\r{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the bar off its line, so that a result can stand there."""
        if self._length:
            print("\r" + " " * self._length + "\r", end="", file=sys.stderr, flush=True)
            self._length = 0

    def count(self, report: Report) -> None:
        """Note what became of a scan."""
        self._ends[report.status, report.code or ""] += 1

    def summarise(self) -> None:
        """Print how many scans were done, refused for which reason, and failed."""
        if not self._summarised:
            return
        seconds = time.perf_counter() - self._started
        total = self._ends.total()
        rows = [(f"{status} {code}".strip(), number) for (status, code), number in sorted(self._ends.items())]
        width = max(len(name) for name, _ in rows) if rows else 0
        for name, number in rows:
            print(f"{name:{width}} {number:8}", file=sys.stderr)
        print(f"{total} scans in {_duration(seconds)}, {total / seconds:.1f} a second", file=sys.stderr)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole // 60 % 60:02} h"
