"""Run decoders of compressed frames in a child process, so that a crash does not end the program."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_spine.errors import InputUnavailable
from edge_spine.reading import decoder_child
from edge_spine.reading.decoder_child import ANSWER, DECODED, OUT_OF_MEMORY, REQUEST

# of processor time, so that the load of other programs does not count; Windows limits the waiting time alone
FRAME_SECONDS = 4.0
# of waiting, for a decoder that does nothing
STALLED_SECONDS = 60.0
# decoders leak memory on damaged frames
FRAMES_PER_PROCESS = 1000
# of waiting for Python and its imports, which take minutes under emulation; if the child ends, the waiting ends at once
START_SECONDS = 300.0
_END_SECONDS = 5.0
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class UndecodableFrame(Exception):
    """A frame that cannot be decoded; the text says why, without patient data."""


class _Crash(UndecodableFrame):
    """The decoder has ended without an answer."""


class DecoderProcess:
    """Decode frames in a child process, which is started when it is needed.

    Several threads may share it; it decodes one frame at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._frames_left = 0

    @property
    def pid(self) -> int | None:
        """Process id of the running child, None where there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def decode(self, frame: bytes, length: int, **options: Any) -> bytearray:
        """Decode one compressed frame, one codestream, to pixels of `length` bytes: little endian, colour by pixel.

        `options` are those of pydicom's decoder (syntax, plugin, rows, columns, bits ...), values of JSON.
        Raise UndecodableFrame where the frame is damaged, takes too much time or memory, or makes the decoder crash;
        raise InputUnavailable where no decoder can be started now.
        """
        try:
            return self._decode(frame, length, **options)
        except _Crash:
            # Another program may have killed the decoder; only a second crash is blamed on the frame.
            return self._decode(frame, length, **options)

    def _decode(self, frame: bytes, length: int, **options: Any) -> bytearray:
        request = json.dumps(options).encode()
        with self._lock:
            try:
                process = self._started()
                with _time_limit(process, STALLED_SECONDS):
                    _write(process, REQUEST.pack(len(request), len(frame)) + request)
                    _write(process, frame)
                    status, found = ANSWER.unpack(_read(process, ANSWER.size))
                    if status == DECODED and found != length:
                        raise UndecodableFrame("it holds another number of pixels")
                    pixels = _read(process, found if status == DECODED else 0)
            # after any interruption the pipe may still hold the rest of an old answer
            except BaseException:
                self._stop()
                raise
            self._frames_left -= 1
            if self._frames_left == 0:
                self._stop()
        if status != DECODED:
            raise UndecodableFrame("it takes too much memory" if status == OUT_OF_MEMORY else "it is damaged")
        return pixels

    def close(self) -> None:
        """End the child; the next frame starts another."""
        with self._lock:
            self._stop()

    def forget(self) -> None:
        """Drop the child in a forked process, and leave it to the process that started it."""
        process, self._process, self._lock = self._process, None, threading.Lock()
        if process is not None:
            _close_pipes(process)
            process.returncode = 0

    def _started(self) -> subprocess.Popen[bytes]:
        if self.pid is None:
            self._stop()
            self._process, self._frames_left = _start(), FRAMES_PER_PROCESS
            try:
                with _time_limit(self._process, START_SECONDS):
                    _read(self._process, ANSWER.size)
            except UndecodableFrame:
                raise InputUnavailable("the process that decodes compressed frames does not start now") from None
        assert self._process is not None
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            _close_pipes(process)
            process.wait()


def _start() -> subprocess.Popen[bytes]:
    # isolated, so that no module in the working folder replaces a decoder
    folders = [folder for folder in sys.path if Path(folder).is_absolute()]
    program = [sys.executable, "-I", decoder_child.__file__, str(FRAME_SECONDS), str(STALLED_SECONDS + 1), *folders]
    try:
        return subprocess.Popen(
            program,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | _ONE_THREAD,
        )
    except OSError as error:
        raise InputUnavailable(
            f"the process that decodes compressed frames does not start now ({type(error).__name__})"
        ) from None


@contextmanager
def _time_limit(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    """Kill the process when the time is up, which ends all reads and writes."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        process.kill()

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, EOFError):
        if expired.is_set():
            raise UndecodableFrame(f"it takes more than {seconds:g} s") from None
        if _ended_by_its_limit(process):
            raise UndecodableFrame(f"it takes more than {FRAME_SECONDS:g} s of processor time") from None
        raise _Crash("it makes the decoder crash") from None
    finally:
        timer.cancel()
        timer.join()


def _ended_by_its_limit(process: subprocess.Popen[bytes]) -> bool:
    if not hasattr(signal, "SIGPROF"):
        return False
    try:
        return process.wait(_END_SECONDS) == -signal.SIGPROF
    except subprocess.TimeoutExpired:
        return False


def _write(process: subprocess.Popen[bytes], content: bytes) -> None:
    stream: Any = process.stdin
    rest = memoryview(content)
    while rest:
        rest = rest[stream.write(rest) :]


def _read(process: subprocess.Popen[bytes], length: int) -> bytearray:
    stream: Any = process.stdout
    content = bytearray(length)
    rest = memoryview(content)
    while rest:
        count = stream.readinto(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return content


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


decoder = DecoderProcess()
atexit.register(decoder.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=decoder.forget)
