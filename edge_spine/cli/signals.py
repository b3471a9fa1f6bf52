"""Shut down cleanly on SIGTERM, also as process 1 of a container, and keep running when the terminal closes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Within this time a process ends after SIGTERM, also during a long call of a library; Docker waits for 10 s.
GRACE_S = 8.0
TERMINATED = 128 + 15


class Terminated(KeyboardInterrupt):
    """SIGTERM has arrived."""


@contextmanager
def orderly_signals() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM and ignore SIGHUP, within the block; in the main thread only.

    The kernel ignores SIGTERM for process 1 unless it has a handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    wanted: dict[int, Any] = {signal.SIGTERM: stop}
    if hangup := getattr(signal, "SIGHUP", None):
        wanted[hangup] = signal.SIG_IGN
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        with _watched():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def _watched() -> Iterator[None]:
    """End the process if the block goes on for `GRACE_S` after SIGTERM.

    Python calls a signal handler only between two bytecodes, and a call of a library can take minutes.
    """
    if os.name == "nt":
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    over = threading.Event()

    def watch() -> None:
        while number := os.read(reading, 1):
            if number[0] == signal.SIGTERM and not over.wait(GRACE_S):
                os._exit(TERMINATED)

    thread = threading.Thread(target=watch, name="signals", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        over.set()
        os.close(writing)
        thread.join()
        os.close(reading)
