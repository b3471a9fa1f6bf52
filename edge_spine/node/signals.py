"""How a service ends: well, on the first signal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def until_signal(end: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Call `end` on the first SIGINT or SIGTERM; a second one interrupts as usual.

    Yields
    ------
    callable
        Tells whether it was SIGINT: the user's, not the service manager's.
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
