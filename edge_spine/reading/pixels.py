"""Decode DICOM pixel data to float32 pixels in which larger is denser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame, parse_basic_offsets
from pydicom.uid import RLELossless

from edge_spine.errors import Refusal
from edge_spine.reading.codestream import JPEG_LOSSLESS_FRAME, JPEG_LS_FRAME, Codestream, read_jpeg, read_jpeg_2000
from edge_spine.reading.decoder_process import UndecodableFrame, decoder
from edge_spine.reading.grey import grey_from_rgb
from edge_spine.reading.lookup import StoredValues, grey_table, padding_table, palette_table
from edge_spine.reading.syntaxes import COMPRESSED, JPEG_2000, JPEG_LS, plugin_for

# decoders of JPEG 2000 convert the last two themselves
_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_RCT", "YBR_ICT"})
_ONE_SAMPLE = frozenset({"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"})
_ACCEPTED = "MONOCHROME1, MONOCHROME2, PALETTE COLOR, RGB and YBR_FULL are accepted"
_EXPORT = "give it as the scanner exported it"
_UNDEFINED_LENGTH = 0xFFFFFFFF
# decoding needs a multiple of it, here and in the decoder process
MAX_PIXEL_BYTES = 32 * 2**20
# largest size of a compressed frame over that of its pixels; no scanner's encoder expands more
_MAX_EXPANSION, _MIN_BYTES = 2, 4096
# two bytes of RLE can encode 128
_RLE_MAX_COMPRESSION = 64
_RLE_HEADER_BYTES = 64


@dataclass(frozen=True)
class PixelFormat:
    """Checked storage format of the pixels of a file.

    Rows and columns as stored, PhotometricInterpretation in capitals, SamplesPerPixel, BitsAllocated, BitsStored, and
    whether PixelRepresentation is 1.
    """

    rows: int
    columns: int
    photometric: str
    samples: int
    allocated: int
    stored: int
    signed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the pixels, colour by pixel."""
        return (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels, little endian."""
        return np.dtype(f"<{'i' if self.signed else 'u'}{self.allocated // 8}")

    @property
    def byte_count(self) -> int:
        """Number of bytes of the uncompressed pixels."""
        return self.rows * self.columns * self.samples * self.allocated // 8


def whole_number(header: Dataset, keyword: str, default: int | None = None) -> int:
    """Return an integer attribute, or `default` where it is absent.

    Refuse as 'unreadable' one that is absent without a default, or not one whole number.
    """
    value: Any = header.get(keyword)
    if value is None and default is not None:
        return default
    if not isinstance(value, int):
        found = "no" if value is None else "a damaged"
        raise Refusal("unreadable", f"DICOM file with {found} {keyword}; an image is needed")
    return int(value)


def pixel_format(header: Dataset) -> PixelFormat:
    """Read and check the storage format of the pixels, before they are allocated.

    Refuse several frames as 'not-dxa', encodings that are not accepted as 'unsupported-syntax', and too many bytes as
    'too-large'.
    """
    frames = whole_number(header, "NumberOfFrames", default=1)
    # some writers count the further frames
    if frames not in (0, 1):
        raise Refusal("not-dxa", f"the file holds {frames} frames; a single DXA image is accepted")
    # some writers use small letters
    photometric = str(header.get("PhotometricInterpretation") or "").strip().upper()
    samples = whole_number(header, "SamplesPerPixel", default=1)
    if photometric not in {1: _ONE_SAMPLE, 3: _COLOUR}.get(samples, frozenset()):
        shown = photometric if photometric.replace("_", "").replace(" ", "").isalnum() else "unknown"
        raise Refusal(
            "unsupported-syntax", f"photometric interpretation {shown[:16]} with {samples} samples a pixel; {_ACCEPTED}"
        )
    allocated = whole_number(header, "BitsAllocated")
    stored = whole_number(header, "BitsStored", default=allocated)
    high = whole_number(header, "HighBit", default=stored - 1)
    signed = whole_number(header, "PixelRepresentation", default=0)
    if allocated not in (8, 16) or not 8 <= stored <= allocated or high != stored - 1 or signed not in (0, 1):
        raise Refusal(
            "unsupported-syntax",
            f"pixels of {stored} bits in {allocated} (high bit {high}); 8 to 16 bits in 8 or 16, "
            "with the high bit below their number, are accepted",
        )
    rows, columns = whole_number(header, "Rows"), whole_number(header, "Columns")
    found = PixelFormat(rows, columns, photometric, samples, allocated, stored, signed == 1)
    if found.byte_count > MAX_PIXEL_BYTES:
        raise Refusal(
            "too-large", f"{found.byte_count >> 20} MiB of pixels; at most {MAX_PIXEL_BYTES >> 20} MiB are accepted"
        )
    return found


def decode(
    header: Dataset, syntax: str, element: RawDataElement | None, found: PixelFormat
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Decode the pixels of a file that has passed all other checks.

    `syntax` is one that `check_syntax` accepts, `element` what `read_pixel_data` found, `found` from `pixel_format`.

    Returns
    -------
    pixels : ndarray of float32, (rows, columns)
        As stored, after modality LUT (or rescale), VOI LUT (or window) and the inversion of MONOCHROME1.
    flags : tuple of str
        "rescale-ignored" or "window-ignored", see `edge_spine.reading.lookup.grey_table`.

    Raises
    ------
    Refusal
        'unreadable' where the pixel data are missing, damaged or give no finite numbers, 'too-large' where a
        compressed frame is far larger than the image.
    Exception
        Any type that pydicom raises on damaged data.
    """
    if element is None or element.value is None:
        raise Refusal("unreadable", "the DICOM file holds no pixel data, or is cut short")
    stored = _decompressed(syntax, element, found) if syntax in COMPRESSED else _uncompressed(header, element, found)
    return _values(header, stored, found)


def _values(header: Dataset, stored: NDArray[Any], found: PixelFormat) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    if found.photometric == "YBR_FULL":
        return stored[..., 0].astype(np.float32), ()
    if found.samples == 3:
        return grey_from_rgb(stored).astype(np.float32), ()
    held = StoredValues(found.stored, found.signed)
    flags: tuple[str, ...] = ()
    if found.photometric == "PALETTE COLOR":
        table = palette_table(header, held)
    else:
        table, flags = grey_table(header, held, found.photometric)
    if held.bits == found.allocated and np.array_equal(table, held.table()):
        grey = stored.astype(np.float32)
    else:
        with np.errstate(over="ignore"):
            grey = np.take(table.astype(np.float32), held.patterns(stored))
        if not np.isfinite(grey).all():
            raise Refusal("unreadable", "the rescaled pixels are not finite numbers")
    padding = padding_table(header, held)
    return (grey if padding is None else _without_padding(grey, np.take(padding, held.patterns(stored)))), flags


def _without_padding(grey: NDArray[np.float32], padding: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Make pixels around the picture no brighter than its darkest, as air is."""
    if padding.all() or not padding.any():
        return grey
    import cv2

    # The same value within the picture is a part of it: only what reaches an edge is padding.
    count, labels = cv2.connectedComponents(padding.astype(np.uint8), connectivity=4)
    outside = np.zeros(count, dtype=bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        outside[edge] = True
    outside[0] = False
    around = outside[labels]
    darkest = grey[~padding].min()
    return np.where(around, np.minimum(grey, darkest), grey)


def _uncompressed(header: Dataset, element: RawDataElement, found: PixelFormat) -> NDArray[Any]:
    """Return uncompressed pixels (PS3.5 8.2 and A.3); pydicom would import every codec for it."""
    content, expected = element.value or b"", found.byte_count
    if len(content) < expected or element.length == _UNDEFINED_LENGTH:
        raise Refusal(
            "unreadable", f"the pixel data are cut short or damaged ({len(content)} bytes, {expected} expected)"
        )
    little = bool(header.original_encoding[1])
    kind = found.dtype if little else found.dtype.newbyteorder(">")
    if found.allocated == 8 and element.VR == "OW" and not little:
        # words of two pixels, with the first one in the lower byte
        content = np.frombuffer(content[: len(content) // 2 * 2], ">u2").astype("<u2").tobytes()
    flat = np.frombuffer(content[:expected], kind).astype(kind.newbyteorder("="), copy=False)
    if found.samples > 1 and whole_number(header, "PlanarConfiguration", default=0) == 1:
        return np.moveaxis(flat.reshape(found.samples, found.rows, found.columns), 0, -1)
    return flat.reshape(found.shape)


def _decompressed(syntax: str, element: RawDataElement, found: PixelFormat) -> NDArray[Any]:
    size, most = len(element.value or b""), _MAX_EXPANSION * found.byte_count + _MIN_BYTES
    if size > most:
        raise Refusal(
            "too-large",
            f"{size} bytes of compressed pixels for an image of {found.byte_count}; at most {most} are accepted",
        )
    if element.length != _UNDEFINED_LENGTH:
        raise Refusal("unreadable", "compressed pixel data that are not encapsulated")
    try:
        if len(frames := parse_basic_offsets(element.value or b"")) > 1:
            raise ValueError(f"{len(frames)} frames")
        frame = get_frame(element.value or b"", 0, number_of_frames=1)
        _check_codestream(syntax, frame, found)
    except ValueError as error:
        # these texts come from here or from pydicom's fragments, and hold no data of the file
        raise Refusal("unreadable", f"damaged compressed pixels ({error}); {_EXPORT}") from None
    try:
        pixels = decoder.decode(
            frame,
            found.byte_count,
            syntax=syntax,
            plugin=plugin_for(syntax),
            rows=found.rows,
            columns=found.columns,
            samples_per_pixel=found.samples,
            bits_allocated=found.allocated,
            bits_stored=found.stored,
            pixel_representation=int(found.signed),
            photometric_interpretation=found.photometric,
            planar_configuration=0,
        )
    except UndecodableFrame as problem:
        raise Refusal("unreadable", f"the compressed pixels cannot be decoded ({problem}); {_EXPORT}") from None
    return np.frombuffer(pixels, dtype=found.dtype).reshape(found.shape)


def _check_codestream(syntax: str, frame: bytes, found: PixelFormat) -> None:
    """Check that the codestream has the size in the header, so that a small header cannot hide a large frame."""
    if syntax == RLELossless:
        segments = int.from_bytes(frame[:4], "little")
        if len(frame) < _RLE_HEADER_BYTES or segments != found.samples * found.allocated // 8:
            raise ValueError("RLE with another number of segments")
        if found.byte_count > _RLE_MAX_COMPRESSION * len(frame):
            raise ValueError("cut short")
        return
    if syntax in JPEG_2000:
        said = read_jpeg_2000(frame)
    else:
        said = read_jpeg(frame, JPEG_LS_FRAME if syntax in JPEG_LS else JPEG_LOSSLESS_FRAME)
    expected = Codestream(found.rows, found.columns, found.samples, said.bits)
    if said != expected or said.bits > found.allocated:
        raise ValueError(f"a frame of {said.rows} x {said.columns} with {said.bits} bits")
