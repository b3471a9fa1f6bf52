"""Read PNG and NPY images, whose spacing the caller must give."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.errors import Refusal
from edge_spine.reading.checks import ACCEPTED_SPACING, check_extent, check_size
from edge_spine.reading.grey import grey_from_rgb
from edge_spine.scan import Scan

_PNG_SIGNATURE_BYTES = 8
_PNG_COLOUR_TYPES = {0: "grey", 2: "RGB", 4: "grey with alpha", 6: "RGB with alpha"}
_ACCEPTED_PNG = "grey or RGB PNG with 8 or 16 bits is accepted"
_ACCEPTED_NPY = "a two-dimensional array of finite numbers is accepted"


def scan_from_png(data: bytes, source: str, spacing: tuple[float, float] | None) -> Scan:
    """Read a PNG image.

    Parameters
    ----------
    data : bytes
        The file. An alpha channel is ignored.
    source : str
        What the scan is called.
    spacing : tuple of float or None
        Row and column spacing in mm.

    Returns
    -------
    Scan

    Raises
    ------
    Refusal
        Where it is damaged, of a kind that is not accepted, or `spacing` is missing.
    """
    import cv2

    header, essential = _essential_png(data)
    columns, rows, bits, colour_type = struct.unpack(">IIBB", header[:10])
    check_size(rows, columns)
    if bits not in (8, 16) or colour_type not in _PNG_COLOUR_TYPES:
        raise Refusal(
            "unsupported-syntax",
            f"PNG with {bits} bits and colour type {colour_type}; {_ACCEPTED_PNG}",
        )
    checked = _need_spacing(spacing)
    check_extent(rows, columns, checked)
    try:
        decoded = cv2.imdecode(np.frombuffer(essential, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except (cv2.error, MemoryError):
        decoded = None
    if decoded is None or decoded.shape[:2] != (rows, columns):
        raise Refusal("unreadable", f"damaged PNG file; {_ACCEPTED_PNG}")
    grey = decoded if decoded.ndim == 2 else grey_from_rgb(decoded[..., 2::-1])
    return _scan(grey, source, checked)


def scan_from_npy(data: bytes, source: str, spacing: tuple[float, float] | None) -> Scan:
    """Read a NumPy array file; never unpickles.

    Parameters
    ----------
    data : bytes
        The file: rows from head to feet, columns from patient right to left, larger is denser.
    source : str
        What the scan is called.
    spacing : tuple of float or None
        Row and column spacing in mm.

    Returns
    -------
    Scan

    Raises
    ------
    Refusal
        Where it is damaged, not a two-dimensional array of finite numbers, or `spacing` is missing.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read_header(stream)
    except Exception as error:  # the parser of the header, a Python literal, raises many types
        raise Refusal("unreadable", f"damaged NPY file ({type(error).__name__}); {_ACCEPTED_NPY}") from None
    if dtype.kind not in "uif" or len(shape) != 2:
        raise Refusal(
            "unreadable",
            f"NPY file of {len(shape)} dimensions and kind {dtype.kind!r}; {_ACCEPTED_NPY}",
        )
    rows, columns = shape
    check_size(rows, columns)
    if len(data) - stream.tell() < rows * columns * dtype.itemsize:
        raise Refusal("unreadable", f"the NPY file is cut short; {_ACCEPTED_NPY}")
    checked = _need_spacing(spacing)
    check_extent(rows, columns, checked)
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # as above
        raise Refusal("unreadable", f"damaged NPY file ({type(error).__name__}); {_ACCEPTED_NPY}") from None
    return _scan(array, source, checked)


def _need_spacing(spacing: tuple[float, float] | None) -> tuple[float, float]:
    if spacing is None:
        raise Refusal(
            "no-spacing",
            f"a PNG or NPY image holds no pixel spacing; give --pixel-spacing ROW,COL in mm ({ACCEPTED_SPACING})",
        )
    return spacing


def _scan(array: NDArray[Any], source: str, spacing: tuple[float, float]) -> Scan:
    with np.errstate(over="ignore"):
        pixels = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(pixels).all():
        raise Refusal("unreadable", f"the image holds numbers that are not finite; {_ACCEPTED_NPY}")
    return Scan(pixels, spacing, source, None, ("orientation-unknown",))


def _essential_png(data: bytes) -> tuple[bytes, bytes]:
    """Return the IHDR content, and the file without its ancillary chunks.

    Text, colour profiles and animation are not needed, and their decoders could be attacked.
    """
    header = b""
    kept = [data[:_PNG_SIGNATURE_BYTES]]
    position = _PNG_SIGNATURE_BYTES
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(data):
            break
        if not header:
            if kind != b"IHDR" or length != 13:
                break
            header = data[position + 8 : end - 4]
        # a capital first letter marks a chunk that is needed for decoding (PNG specification, 5.4)
        if kind[:1].isupper():
            if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
                break
            kept.append(data[position:end])
        if kind == b"IEND":
            return header, b"".join(kept)
        position = end
    raise Refusal("unreadable", f"the PNG file is damaged or cut short; {_ACCEPTED_PNG}")
