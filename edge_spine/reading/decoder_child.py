"""The decoder process: decodes one compressed frame after the other, and may crash without harm.

Run by its path, never imported by the parent for more than its constants, and independent of the rest of
edge-spine. It reads requests from stdin and writes answers to stdout until stdin ends, which also happens when the
parent is killed.

A request is `REQUEST` (two lengths), the options as JSON, and the frame; an answer is `ANSWER` (a status and a
length) and the pixels: little endian, as wide as the header says, colour by pixel. The patient's header never gets
here.

Memory is limited by RLIMIT_AS where the system has it. Windows has no such limit: there the checks of the header and
of the codestream bound what a decoder can be asked for, and the time limit holds as everywhere.
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
# Of address space: 165 MiB of it are Python, NumPy and the decoders.
_MEMORY_BYTES = 512 * 2**20


def main() -> None:
    """Serve the parent until it closes the pipe."""
    sys.path[:] = sys.argv[2:]
    seconds = float(sys.argv[1])
    requests, answers = _channel()
    _limit_memory()
    # Ctrl-C in a terminal reaches the whole group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    import pydicom.pixels  # noqa: F401  # before the first frame, whose time is limited

    _answer(answers, DECODED, b"")
    while head := requests.read(REQUEST.size):
        options_length, frame_length = REQUEST.unpack(head)
        options, frame = json.loads(requests.read(options_length)), requests.read(frame_length)
        # A hung decoder ends itself too: the parent may have been killed meanwhile.
        faulthandler.dump_traceback_later(seconds, exit=True)
        status, pixels = _decode(options, frame)
        faulthandler.cancel_dump_traceback_later()
        _answer(answers, status, pixels)


def _decode(options: dict[str, Any], frame: bytes) -> tuple[int, bytes]:
    try:
        return DECODED, _pixels(frame, **options)
    except MemoryError:
        return OUT_OF_MEMORY, b""
    # The panics of decoders written in Rust are no Exception.
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
    """Return stdin and stdout, after whatever a decoder prints has been sent elsewhere."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return sys.stdin.buffer, answers


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, limit in ((resource.RLIMIT_AS, _MEMORY_BYTES), (resource.RLIMIT_CORE, 0)):
        # macOS accepts no limit on address space.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (limit, limit))


def _answer(stream: BinaryIO, status: int, content: bytes) -> None:
    for piece in (ANSWER.pack(status, len(content)), content):
        rest = memoryview(piece)
        while rest:
            rest = rest[stream.write(rest) :]


if __name__ == "__main__":
    main()
