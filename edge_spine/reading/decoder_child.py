"""Decode compressed frames in a separate process, so that a decoder's crash ends this process only.

Run by its path and independent of the rest of edge-spine; the parent imports its constants only. It reads requests
from stdin and writes answers to stdout until stdin ends, as it also does when the parent is killed.

A request is `REQUEST` (two lengths), the options as JSON, and the frame; an answer is `ANSWER` (a status and a
length) and the pixels: little endian, of the width in the header, colour by pixel. The header with the patient's data
is not sent.

Where the system has ITIMER_PROF, a frame that takes too much processor time ends the process by SIGPROF; the time that
other programs take does not count. Memory is limited by RLIMIT_AS where the system has it. Windows has neither: there
only the checks of header and codestream limit what a decoder allocates.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import struct
import sys
import warnings
from typing import Any, BinaryIO

REQUEST, ANSWER = struct.Struct("<II"), struct.Struct("<BI")
DECODED, DAMAGED, OUT_OF_MEMORY = range(3)
# of address space, of which Python, NumPy and the decoders take 165 MiB
_MEMORY_BYTES = 512 * 2**20


def main() -> None:
    """Answer requests until the parent closes the pipe."""
    sys.path[:] = sys.argv[3:]
    processor_seconds, waiting_seconds = float(sys.argv[1]), float(sys.argv[2])
    requests, answers = _channel()
    _limit_memory()
    # Ctrl-C in a terminal reaches the whole process group, and the parent ends this process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    import pydicom.pixels  # noqa: F401  # imported before the first frame, whose time is limited

    _answer(answers, DECODED, b"")
    while head := requests.read(REQUEST.size):
        options_length, frame_length = REQUEST.unpack(head)
        options, frame = json.loads(requests.read(options_length)), requests.read(frame_length)
        # ends a hung decoder even where its parent has been killed
        faulthandler.dump_traceback_later(waiting_seconds, exit=True)
        _limit_time(processor_seconds)
        status, pixels = _decode(options, frame)
        _limit_time(0)
        faulthandler.cancel_dump_traceback_later()
        _answer(answers, status, pixels)


def _decode(options: dict[str, Any], frame: bytes) -> tuple[int, bytes]:
    try:
        return DECODED, _pixels(frame, **options)
    except MemoryError:
        return OUT_OF_MEMORY, b""
    # panics of decoders written in Rust are not derived from Exception
    except BaseException:
        return DAMAGED, b""


def _pixels(frame: bytes, *, syntax: str, plugin: str, **options: Any) -> bytes:
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder

    options |= {"number_of_frames": 1, "pixel_keyword": "PixelData"}
    frames = encapsulate([frame])
    array, _ = get_decoder(syntax).as_array(frames, index=0, raw=True, decoding_plugin=plugin, **options)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _channel() -> tuple[BinaryIO, BinaryIO]:
    """Return stdin and stdout, and send what decoders print to the null device."""
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return sys.stdin.buffer, answers


def _limit_time(seconds: float) -> None:
    """Limit the processor time of this process from now on, also inside native code; 0 removes the limit."""
    if sys.platform != "win32":
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, limit in ((resource.RLIMIT_AS, _MEMORY_BYTES), (resource.RLIMIT_CORE, 0)):
        # macOS accepts no limit on address space
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (limit, limit))


def _answer(stream: BinaryIO, status: int, content: bytes) -> None:
    stream.write(ANSWER.pack(status, len(content)))
    stream.write(content)
    stream.flush()


if __name__ == "__main__":
    main()
