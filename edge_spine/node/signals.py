"""Stop a service on a signal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def until_signal(end: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Call `end` on the first SIGINT or SIGTERM; a second signal has its default effect.

    Yields
    ------
    callable
        Returns whether the signal was SIGINT.
    """
    interrupted = False
    names = [name for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = number == signal.SIGINT
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
        end()

    before = {name: signal.getsignal(getattr(signal, name)) for name in names}
    for name in names:
        signal.signal(getattr(signal, name), stop)
    try:
        yield lambda: interrupted
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
