"""Read the header of a compressed frame, before it is given to a decoder."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_SOI = b"\xff\xd8"
_SOC_SIZ = b"\xff\x4f\xff\x51"
# markers without a length (ITU-T T.81, B.1.1.3)
_LONE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
JPEG_LOSSLESS_FRAME, JPEG_LS_FRAME = 0xC3, 0xF7
# a decoder allocates some kilobytes for each tile before it decodes a pixel
_MAX_TILES = 4096


@dataclass(frozen=True)
class Codestream:
    """Rows, columns, samples per pixel and bits in the header of a compressed frame."""

    rows: int
    columns: int
    samples: int
    bits: int


def read_jpeg(frame: bytes, frame_header: int) -> Codestream:
    """Read the frame header of a JPEG or JPEG-LS stream, whose marker is `JPEG_LOSSLESS_FRAME` or `JPEG_LS_FRAME`.

    Raise ValueError where there is no such header, or one of another JPEG process.
    """
    if not frame.startswith(_SOI):
        raise ValueError("no JPEG stream")
    position = len(_SOI)
    while position + 4 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF or marker in _LONE_MARKERS:
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAME_HEADERS:
            if marker != frame_header or position + 10 > len(frame):
                break
            bits, rows, columns, samples = struct.unpack_from(">BHHB", frame, position + 4)
            return Codestream(rows, columns, samples, bits)
        position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    raise ValueError("no frame header of the kind that the transfer syntax names")


def read_jpeg_2000(frame: bytes) -> Codestream:
    """Read the SIZ marker of a JPEG 2000 codestream (ITU-T T.800, A.5.1).

    Raise ValueError where it is missing, or describes subsampling, components that differ or very many tiles.
    """
    if not frame.startswith(_SOC_SIZ) or len(frame) < 42:
        raise ValueError("no JPEG 2000 codestream")
    right, bottom, left, top, tile_width, tile_height, _, _, samples = struct.unpack_from(">8IH", frame, 8)
    components = {frame[42 + 3 * number : 45 + 3 * number] for number in range(min(samples, 4))}
    if len(components) != 1:
        raise ValueError("JPEG 2000 components that differ")
    (component,) = components
    if component[1:] != b"\1\1":
        raise ValueError("JPEG 2000 components that are subsampled or cut short")
    tiles = -(-right // max(tile_width, 1)) * -(-bottom // max(tile_height, 1))
    if tiles > _MAX_TILES:
        raise ValueError("JPEG 2000 with very many tiles")
    return Codestream(bottom - top, right - left, samples, (component[0] & 0x7F) + 1)
