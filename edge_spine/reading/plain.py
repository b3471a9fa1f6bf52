"""Read PNG and NPY images, whose spacing the caller must give."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.errors import Refusal
from edge_spine.reading.checks import ACCEPTED_SPACING, check_extent, check_size, damage_refused
from edge_spine.reading.grey import grey_from_rgb
from edge_spine.reading.kinds import ImageFile
from edge_spine.reading.orientation import turn_from_exif
from edge_spine.scan import Scan, Turn

_PNG_SIGNATURE_BYTES = 8
# grey, RGB, palette, grey with alpha, RGB with alpha, and their numbers of bits
_PNG_KINDS = {0: (8, 16), 2: (8, 16), 3: (4, 8), 4: (8, 16), 6: (8, 16)}
_PALETTE = 3
_ACCEPTED_PNG = "grey or RGB PNG with 8 or 16 bits, or a palette of 16 or 256 colours, is accepted"
_ACCEPTED_NPY = "a two-dimensional array of finite numbers is accepted"


def scan_from_png(file: ImageFile) -> Scan:
    """Read a PNG image, turned as its Exif metadata say, without its alpha channel.

    Refuse a damaged one, other kinds, and one without spacing, which is that of the stored image.
    """
    import cv2

    header, essential, exif = _essential_png(file.data)
    turn = turn_from_exif(exif)
    columns, rows, bits, colour_type = struct.unpack(">IIBB", header[:10])
    check_size(*turn.shape((rows, columns)))
    if bits not in _PNG_KINDS.get(colour_type, ()):
        raise Refusal("unsupported-syntax", f"PNG with {bits} bits and colour type {colour_type}; {_ACCEPTED_PNG}")
    spacing = _checked_spacing(file, rows, columns, turn)
    try:
        decoded = cv2.imdecode(np.frombuffer(essential, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except (cv2.error, MemoryError):
        decoded = None
    if decoded is None or decoded.shape[:2] != (rows, columns):
        raise Refusal("unreadable", f"damaged PNG file; {_ACCEPTED_PNG}")
    grey = decoded if decoded.ndim == 2 else grey_from_rgb(decoded[..., 2::-1])
    return _scan(grey, file, spacing, turn)


def scan_from_npy(file: ImageFile) -> Scan:
    """Read a NumPy array file without unpickling.

    Its rows run from head to feet, its columns from patient right to left, and larger is denser. Refuse one that is
    damaged, no two-dimensional array of finite numbers, or has no spacing.
    """
    stream = io.BytesIO(file.data)
    with damage_refused("damaged NPY file", _ACCEPTED_NPY):
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read_header(stream)
    if dtype.kind not in "uif" or len(shape) != 2:
        raise Refusal("unreadable", f"NPY file of {len(shape)} dimensions and kind {dtype.kind!r}; {_ACCEPTED_NPY}")
    rows, columns = shape
    check_size(rows, columns)
    if len(file.data) - stream.tell() < rows * columns * dtype.itemsize:
        raise Refusal("unreadable", f"the NPY file is cut short; {_ACCEPTED_NPY}")
    spacing = _checked_spacing(file, rows, columns, Turn())
    with damage_refused("damaged NPY file", _ACCEPTED_NPY):
        array = np.load(io.BytesIO(file.data), allow_pickle=False)
    return _scan(array, file, spacing, Turn())


def _checked_spacing(file: ImageFile, rows: int, columns: int, turn: Turn) -> tuple[float, float]:
    if file.given_spacing is None:
        raise Refusal(
            "no-spacing",
            f"a PNG or NPY image holds no pixel spacing; give --pixel-spacing ROW,COL in mm ({ACCEPTED_SPACING})",
        )
    spacing = turn.shape(file.given_spacing)
    check_extent(*turn.shape((rows, columns)), spacing)
    return spacing


def _scan(array: NDArray[Any], file: ImageFile, spacing: tuple[float, float], turn: Turn) -> Scan:
    with np.errstate(over="ignore"):
        pixels = np.ascontiguousarray(turn.apply(array), dtype=np.float32)
    if not np.isfinite(pixels).all():
        raise Refusal("unreadable", f"the image holds numbers that are not finite; {_ACCEPTED_NPY}")
    flags = ("orientation-unknown", *turn.flags)
    return Scan(pixels, spacing, file.source, None, flags, turn, notes=turn.notes)


def _essential_png(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the IHDR content, the file without its ancillary chunks, and the content of the one with Exif metadata.

    Text, colour profiles and animation are not needed, and their decoders could be attacked.
    """
    header, kept, exif = b"", [data[:_PNG_SIGNATURE_BYTES]], b""
    position, palettes = _PNG_SIGNATURE_BYTES, 0
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        chunk = data[position : position + 12 + length]
        position += 12 + length
        if position > len(data) or (not header and (kind, length) != (b"IHDR", 13)):
            break
        header = header or chunk[8:-4]
        # a capital first letter marks a chunk that is needed for decoding (PNG specification, 5.4)
        needed = kind[:1].isupper()
        if (needed or kind == b"eXIf") and zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            break
        if needed:
            # libpng would print what it finds wrong
            if header[9] == _PALETTE and kind == b"PLTE":
                if palettes or length % 3 or not 0 < length <= 3 << header[8]:
                    break
                chunk, palettes = _whole_palette(chunk[4:-4], header[8]), 1
            elif header[9] == _PALETTE and kind == b"IDAT" and not palettes:
                raise Refusal("unsupported-syntax", f"PNG without the palette that it needs; {_ACCEPTED_PNG}")
            kept.append(chunk)
        elif kind == b"eXIf":
            exif = chunk[8:-4]
        if kind == b"IEND":
            return header, b"".join(kept), exif
    raise Refusal("unreadable", f"the PNG file is damaged or cut short; {_ACCEPTED_PNG}")


def _whole_palette(content: bytes, bits: int) -> bytes:
    """Return the chunk of a palette, filled up with black to the number of colours that pixels can name."""
    content = content.ljust(len(b"PLTE") + (3 << bits), b"\0")
    return struct.pack(">I", 3 << bits) + content + struct.pack(">I", zlib.crc32(content))
