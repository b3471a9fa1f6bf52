"""DICOM pixel data becomes float32 pixels in which larger is denser."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from edge_spine.errors import Refusal
from edge_spine.reading.grey import grey_from_rgb

DEFLATED = str(DeflatedExplicitVRLittleEndian)
_SYNTAXES = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless})
_ACCEPTED_SYNTAXES = "uncompressed (little or big endian) and RLE Lossless are accepted"
_SAMPLES = {"MONOCHROME1": 1, "MONOCHROME2": 1, "RGB": 3, "YBR_FULL": 3}
# Two bytes of RLE can stand for 128, and pydicom unpacks a segment before it looks at its length.
_MAX_RLE_BYTES = 16 * 2**20
_RLE_MAX_EXPANSION = 64


def check_syntax(source: str, syntax: str) -> None:
    """Refuse a transfer syntax that pydicom alone does not decode within bounds.

    Raises
    ------
    Refusal
        'unsupported-syntax'.
    """
    if syntax not in _SYNTAXES:
        known = UID(syntax)
        name = known.name if known.is_transfer_syntax else "unknown or missing"
        raise Refusal("unsupported-syntax", f"{source}: transfer syntax {name}; {_ACCEPTED_SYNTAXES}")


def whole_number(source: str, header: Dataset, keyword: str, default: int | None = None) -> int:
    """Return an integer attribute, or `default` where it is absent.

    Raises
    ------
    Refusal
        'unreadable' where it is absent without a default, or not one whole number.
    """
    value: Any = header.get(keyword)
    if value is None and default is not None:
        return default
    if not isinstance(value, int):
        found = "no" if value is None else "a damaged"
        raise Refusal("unreadable", f"{source}: DICOM file with {found} {keyword}; an image is needed")
    return int(value)


def check_pixel_format(source: str, header: Dataset) -> None:
    """Refuse pixel encodings that are not accepted, before any pixel is allocated.

    Raises
    ------
    Refusal
        'not-dxa' for several frames, 'unsupported-syntax' for another encoding.
    """
    frames = whole_number(source, header, "NumberOfFrames", default=1)
    if frames != 1:
        raise Refusal("not-dxa", f"{source}: the file holds {frames} frames; a single DXA image is accepted")
    photometric = str(header.get("PhotometricInterpretation") or "")
    samples = whole_number(source, header, "SamplesPerPixel", default=1)
    if _SAMPLES.get(photometric) != samples:
        shown = photometric if photometric.replace("_", "").replace(" ", "").isalnum() else "unknown"
        raise Refusal(
            "unsupported-syntax",
            f"{source}: photometric interpretation {shown[:16]} with {samples} samples a pixel; MONOCHROME1, "
            "MONOCHROME2, RGB and YBR_FULL are accepted",
        )
    allocated = whole_number(source, header, "BitsAllocated")
    stored = whole_number(source, header, "BitsStored", default=allocated)
    high = whole_number(source, header, "HighBit", default=stored - 1)
    signed = whole_number(source, header, "PixelRepresentation", default=0)
    if allocated not in (8, 16) or not 8 <= stored <= allocated or high != stored - 1 or signed not in (0, 1):
        raise Refusal(
            "unsupported-syntax",
            f"{source}: pixels of {stored} bits in {allocated} (high bit {high}); 8 to 16 bits in 8 or 16, "
            "with the high bit below their number, are accepted",
        )


def decode(source: str, dataset: Dataset) -> NDArray[np.float32]:
    """Decode the pixels of a data set that has passed all other checks.

    Parameters
    ----------
    source : str
        File name for messages.
    dataset : Dataset
        The whole file.

    Returns
    -------
    ndarray of float32, (rows, columns)
        As stored, after the modality LUT (or rescale) and the inversion of MONOCHROME1.

    Raises
    ------
    Refusal
        'unreadable' where the pixel data are missing, cut short or give no finite numbers, 'too-large'
        where they could unpack to far more than the image.
    Exception
        Whatever pydicom raises on damaged data.
    """
    if "PixelData" not in dataset:
        raise Refusal("unreadable", f"{source}: the DICOM file holds no pixel data, or is cut short")
    _check_length(source, dataset)
    stored = pixel_array(dataset, index=0, raw=True, decoding_plugin="pydicom")
    stored = _stored_values(stored, dataset)
    photometric = dataset.PhotometricInterpretation
    if photometric == "YBR_FULL":
        values = stored[..., 0].astype(np.float32)
    elif photometric == "RGB":
        values = grey_from_rgb(stored).astype(np.float32)
    else:
        values = _modality_values(stored, dataset)
        if photometric == "MONOCHROME1":
            # Reversed about the range that can be stored: a background of the largest value becomes 0.
            ends = _modality_values(_stored_range(dataset), dataset)
            values = ends.sum() - values
    if not np.isfinite(values).all():
        raise Refusal("unreadable", f"{source}: the rescaled pixels are not finite numbers")
    return values


def _check_length(source: str, dataset: Dataset) -> None:
    expected = dataset.Rows * dataset.Columns * int(dataset.get("SamplesPerPixel") or 1)
    expected *= dataset.BitsAllocated // 8
    element = dataset["PixelData"]
    found = len(element.value or b"")
    encapsulated = dataset.file_meta.TransferSyntaxUID == RLELossless
    if encapsulated and found > min(_MAX_RLE_BYTES, 2 * expected + 4096):
        raise Refusal(
            "too-large",
            f"{source}: {found} bytes of RLE for an image of {expected}; at most twice the image and "
            f"{_MAX_RLE_BYTES >> 20} MiB are accepted",
        )
    least = expected // _RLE_MAX_EXPANSION if encapsulated else expected
    if found < least or bool(element.is_undefined_length) != encapsulated:
        raise Refusal(
            "unreadable",
            f"{source}: the pixel data are cut short or damaged ({found} bytes, {least} or more expected)",
        )


def _stored_values(pixels: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    """Clear what lies above BitsStored: old files keep overlays there."""
    unused = dataset.BitsAllocated - int(dataset.get("BitsStored") or dataset.BitsAllocated)
    # A shift back of a signed type repeats the sign bit, of an unsigned one fills with 0.
    return pixels if unused == 0 else np.right_shift(np.left_shift(pixels, unused), unused)


def _stored_range(dataset: Dataset) -> NDArray[np.int64]:
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    low = -(1 << (bits - 1)) if dataset.get("PixelRepresentation") == 1 else 0
    return np.array([low, low + (1 << bits) - 1])


def _modality_values(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.float32]:
    """Apply the modality LUT, or the rescale slope and intercept (DICOM PS3.3 C.11.1)."""
    if dataset.get("ModalityLUTSequence"):
        return apply_modality_lut(stored, dataset).astype(np.float32)
    slope, intercept = (
        float(default if dataset.get(keyword) is None else dataset.get(keyword))
        for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    if slope == 0 or not (math.isfinite(slope) and math.isfinite(intercept)):
        raise ValueError("rescale slope or intercept")
    with np.errstate(over="ignore", invalid="ignore"):
        values: NDArray[np.float32] = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return values
