"""Progress bar and final summary of a long run, on stderr."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter

from edge_spine.runner import Report
from edge_spine.streams import say

_BAR_WIDTH = 24


class Progress:
    """Progress bar, shown where stderr is a terminal, and summary; both for several scans only, neither if `quiet`."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self.begin(0)

    def begin(self, count: int) -> None:
        """Start with a number of scans."""
        self._count = count
        self._summarised = count > 1 and not self._quiet
        self._shown = self._summarised and sys.stderr.isatty()
        self._started = time.perf_counter()
        self._length = 0
        self._ends: Counter[tuple[str, str]] = Counter()

    def show(self, name: str) -> None:
        """Draw the bar with the name of the current scan."""
        if not self._shown:
            return
        done, seconds = self._ends.total(), time.perf_counter() - self._started
        filled = _BAR_WIDTH * done // self._count
        text = f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {done}/{self._count}"
        if done:
            text += f" {done / seconds:.1f} scans/s, {_duration(seconds / done * (self._count - done))} left,"
            ends = self._ends.most_common()
            text += "".join(f" {_share(n, done)} {code}," for (status, code), n in ends if status == "refused")
        # A longer line would wrap and could not be erased.
        text = f"{text} {name}"[: shutil.get_terminal_size().columns - 1]
        self.clear()
        self._length = len(text)
        say(f"\r{text}", sys.stderr, end="")

    def clear(self) -> None:
        """Erase the bar."""
        if self._length:
            say("\r" + " " * self._length + "\r", sys.stderr, end="")
            self._length = 0

    def count(self, report: Report) -> None:
        """Count a finished scan."""
        code = (report.code or "") if report.code != report.status else ""
        self._ends[report.status, code] += 1

    def summarise(self) -> None:
        """Print the number and share of scans by status and refusal code, and the speed."""
        if not self._summarised:
            return
        seconds = time.perf_counter() - self._started
        total = self._ends.total()
        rows = [(f"{status} {code}".strip(), number) for (status, code), number in sorted(self._ends.items())]
        width = max(len(name) for name, _ in rows) if rows else 0
        for name, number in rows:
            say(f"{name:{width}} {number:8} {_share(number, total):>6}", sys.stderr)
        say(f"{total} scans in {_duration(seconds)}, {total / seconds:.1f} a second", sys.stderr)


def _share(number: int, total: int) -> str:
    return f"{100 * number / total:.1f} %"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole // 60 % 60:02} h"
