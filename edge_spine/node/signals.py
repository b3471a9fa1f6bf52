"""Stop a service on a signal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def until_signal(end: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Call `end` on the first SIGINT or SIGTERM; a second signal has its default effect.

    What is yielded returns whether the signal was SIGINT.
    """
    interrupted = False
    before: dict[int, Any] = {}

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = number == signal.SIGINT
        restore()
        end()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    # The command ends its process soon after SIGTERM; a service may take longer, since it finishes its scan.
    wakeup = signal.set_wakeup_fd(-1)
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        if number := getattr(signal, name, None):
            before[number] = signal.signal(number, stop)
    try:
        yield lambda: interrupted
    finally:
        restore()
        signal.set_wakeup_fd(wakeup)
