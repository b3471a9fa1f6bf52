"""Apply DICOM's lookup tables and windows to a table of all values that a pixel can hold.

A stored pixel has at most 65536 values, so that each step is computed once for each value, not for each pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from edge_spine.reading.grey import grey_from_rgb
from edge_spine.reading.header import numbers, raw_value

_MAX_ENTRIES = 2**16
_MAX_TABLE_BYTES = 2 * _MAX_ENTRIES + 2
# of a sequence, which may hold a few tables
_MAX_SEQUENCE_BYTES = 8 * _MAX_TABLE_BYTES
_ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_MAX_ITEMS = 64
_COLOURS = ("Red", "Green", "Blue")
_DISCRETE, _LINEAR = range(2)

Table = NDArray[np.float64]


@dataclass(frozen=True)
class StoredValues:
    """Values that a pixel can hold, in the order of their bits: 0, 1, ... and then the negative ones.

    `bits` is BitsStored; `signed` says whether PixelRepresentation is 1.
    """

    bits: int
    signed: bool

    def table(self) -> Table:
        """Return the value of each bit pattern, (2**bits,)."""
        values = np.arange(1 << self.bits, dtype=np.float64)
        return np.where(values < self._half, values, values - (1 << self.bits)) if self.signed else values

    def patterns(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return the bit pattern of each pixel, without bits above BitsStored, which can hold overlays."""
        unsigned = pixels.view(f"u{pixels.dtype.itemsize}")
        return unsigned if self.bits == 8 * pixels.dtype.itemsize else unsigned & ((1 << self.bits) - 1)

    def ends(self, table: NDArray[Any]) -> float:
        """Return the sum of a table's entries for the smallest and the largest value."""
        low, high = (self._half, self._half - 1) if self.signed else (0, (1 << self.bits) - 1)
        return float(table[low]) + float(table[high])

    @property
    def _half(self) -> int:
        return 1 << (self.bits - 1)


@dataclass(frozen=True)
class _LookupTable:
    first: int
    bits: int
    entries: NDArray[Any]

    def __call__(self, values: Table) -> Table:
        places = np.clip(np.floor(values) - self.first, 0, len(self.entries) - 1)
        mapped: Table = self.entries[places.astype(np.intp)].astype(np.float64)
        return mapped


def grey_table(header: Dataset, stored: StoredValues, photometric: str) -> tuple[Table, tuple[str, ...]]:
    """Return the final value of each stored value of a grey image, after modality LUT, VOI LUT and MONOCHROME1.

    Modality and VOI LUT are those of DICOM PS3.3, C.11.1 and C.11.2. Raise ValueError where the modality LUT or the
    rescale is damaged.

    Returns
    -------
    table : ndarray of float64, (2**bits,)
        Indexed by the bit pattern of a pixel. MONOCHROME1 is reversed within the output range of the
        last step, so that a background of the largest value becomes the smallest.
    flags : tuple of str
        "rescale-ignored" where RescaleSlope is 0, which would leave no picture, "window-ignored" where the VOI LUT or
        window is damaged.
    """
    table = stored.table()
    flags: tuple[str, ...] = ()
    modality = _sequence_table(header, "ModalityLUTSequence")
    if modality is not None:
        table = modality(table)
    elif header.get("RescaleSlope") == 0:
        flags = ("rescale-ignored",)
    else:
        table = _rescaled(header, table)
    ends = stored.ends(table)
    try:
        voi = _sequence_table(header, "VOILUTSequence")
        if voi is not None:
            table, ends = voi(table), float((1 << voi.bits) - 1)
        elif "WindowCenter" in header or "WindowWidth" in header:
            low, high = (0, (1 << modality.bits) - 1) if modality is not None else (table.min(), table.max())
            table, ends = _windowed(header, table, float(low), float(high)), float(low) + float(high)
    except (ValueError, TypeError, OverflowError):
        flags += ("window-ignored",)
    if photometric == "MONOCHROME1":
        table = ends - table
    return table, flags


def palette_table(header: Dataset, stored: StoredValues) -> Table:
    """Return the grey value of each stored value of a PALETTE COLOR image (DICOM PS3.3 C.7.6.3.1.5, C.7.9), (2**bits,).

    It is the common value where red, green and blue are equal, otherwise luminance. Raise ValueError where a lookup
    table is missing or damaged.
    """
    values = stored.table()
    tables = [_palette(header, colour) for colour in _COLOURS]
    rgb = np.stack([table(values) for table in tables], axis=-1)
    is_grey = (rgb == rgb[:, :1]).all(axis=1)
    grey: Table = np.where(is_grey, rgb[:, 0], grey_from_rgb(rgb))
    return grey


def _rescaled(header: Dataset, table: Table) -> Table:
    slope, intercept = (
        float(default if header.get(keyword) is None else header.get(keyword))
        for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise ValueError("rescale slope or intercept")
    return table * slope + intercept


def _windowed(header: Dataset, table: Table, low: float, high: float) -> Table:
    """Apply the first window (DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    centres, widths = numbers(header.get("WindowCenter")), numbers(header.get("WindowWidth"))
    if not centres or not widths or not math.isfinite(centres[0]) or not math.isfinite(widths[0]):
        raise ValueError("window")
    centre, width = centres[0], widths[0]
    function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    if width < 1 if function == "LINEAR" else width <= 0:
        raise ValueError("window width")
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if function in ("LINEAR", "LINEAR_EXACT"):
        step = table > centre
        share = step.astype(np.float64) if width == 0 else np.clip((table - centre) / width + 0.5, 0, 1)
    elif function == "SIGMOID":
        with np.errstate(over="ignore"):
            share = 1 / (1 + np.exp(-4 * (table - centre) / width))
    else:
        raise ValueError("VOI LUT function")
    return low + share * (high - low)


def _sequence_table(header: Dataset, keyword: str) -> _LookupTable | None:
    """Return the first lookup table of a sequence, None where there is none."""
    element = header.get_item(keyword) if keyword in header else None
    if element is None:
        return None
    raw = element.value if isinstance(element.value, bytes) else b""
    if len(raw) > _MAX_SEQUENCE_BYTES or max(map(raw.count, _ITEM_TAGS)) > _MAX_ITEMS:
        raise ValueError(keyword)
    items = header[keyword].value
    if not items:
        return None
    data = raw_value(items[0], "LUTData", _MAX_TABLE_BYTES)
    return _table(items[0], data, "LUTDescriptor", _is_little_endian(header))


def _palette(header: Dataset, colour: str) -> _LookupTable:
    descriptor = f"{colour}PaletteColorLookupTableDescriptor"
    little = _is_little_endian(header)
    data = raw_value(header, f"{colour}PaletteColorLookupTableData", _MAX_TABLE_BYTES)
    if data is not None:
        return _table(header, data, descriptor, little)
    segments = raw_value(header, f"Segmented{colour}PaletteColorLookupTableData", _MAX_TABLE_BYTES)
    first, bits, count = _descriptor(header, descriptor)
    if not isinstance(segments, bytes):
        raise ValueError("palette")
    words = np.frombuffer(segments, dtype=np.uint8) if bits == 8 else _words(segments, little)
    return _LookupTable(first, bits, _expanded(words.tolist(), count))


def _table(item: Dataset, data: Any, descriptor: str, little: bool) -> _LookupTable:
    first, bits, count = _descriptor(item, descriptor)
    if not isinstance(data, bytes):
        entries = np.array(data, dtype=np.int64).reshape(-1)
    elif len(data) >= 2 * count:
        entries = _words(data, little)
    else:
        # two entries of 8 bits in each word
        entries = np.frombuffer(data, dtype=np.uint8)
    if len(entries) < count or entries.min() < 0 or entries.max() >= 1 << 16:
        raise ValueError("lookup table data")
    return _LookupTable(first, bits, entries[:count])


def padding_table(header: Dataset, stored: StoredValues) -> NDArray[np.bool_] | None:
    """Return whether each stored value means padding (DICOM PS3.3 C.7.5.1.1.2), None where the file states none.

    The array (2**bits,) is indexed by the bit pattern of a pixel.
    """
    values = numbers(header.get("PixelPaddingValue"))
    if len(values) != 1:
        return None
    first, last = sorted((values[0], *(numbers(header.get("PixelPaddingRangeLimit")) or values)[:1]))
    table = stored.table()
    padding: NDArray[np.bool_] = (table >= first) & (table <= last)
    return padding


def _descriptor(item: Dataset, keyword: str) -> tuple[int, int, int]:
    """Return the first value that is mapped, the bits of an entry, and the number of entries."""
    count, first, bits = (int(value) for value in raw_value(item, keyword, 16))
    if not (0 <= count < _MAX_ENTRIES and 8 <= bits <= 16):
        raise ValueError(keyword)
    return first, bits, count or _MAX_ENTRIES


def _words(data: bytes, little: bool) -> NDArray[Any]:
    return np.frombuffer(data[: len(data) // 2 * 2], dtype="<u2" if little else ">u2")


def _expanded(words: list[int], count: int) -> NDArray[Any]:
    """Expand a segmented palette (DICOM PS3.3 C.7.9.2) to at most `count` entries; without indirect segments."""
    entries: list[int] = []
    position = 0
    while position + 2 < len(words) and len(entries) < count:
        kind, length = words[position : position + 2]
        values = words[position + 2 : position + 2 + (length if kind == _DISCRETE else 1)]
        if kind == _LINEAR and entries and length:
            step = (values[0] - entries[-1]) / length
            line = np.linspace(entries[-1] + step, values[0], length)
            entries.extend(np.around(line).astype(int).tolist())
        elif kind == _DISCRETE:
            entries.extend(values)
        else:
            raise ValueError("segments of the palette")
        position += 2 + len(values)
    if len(entries) < count:
        raise ValueError("a palette that is cut short")
    return np.array(entries[:count])


def _is_little_endian(header: Dataset) -> bool:
    return header.original_encoding[1] is not False
