"""Write to stdout and stderr, which may be closed, full or without a reader."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO


def open_streams() -> None:
    """Open the null device in place of standard streams that the process was started without.

    Otherwise the next file that is opened becomes stdout, and what libraries print there ends up in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # the lowest free number is taken, which is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        elif isinstance(stream, io.TextIOWrapper):
            # a file name outside the terminal's encoding must not end the run
            stream.reconfigure(errors="backslashreplace")


def close_streams() -> None:
    """Drop unwritten output, which the interpreter would try to write again at exit, with another exit status."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            try:
                stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(text: str, stream: TextIO | None = None, end: str = "\n") -> str | None:
    """Write a line at once to a stream, by default stdout; return why it could not be written, or None."""
    try:
        print(text, end=end, file=stream or sys.stdout, flush=True)
    except OSError as error:
        return error.strerror or type(error).__name__
    except ValueError:
        return "it is closed"
    return None
