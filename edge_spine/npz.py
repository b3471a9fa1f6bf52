"""Read NumPy archives (.npz) of model bundles, which may come from anywhere."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.errors import BundleError

# a small file can hold arrays that fill the memory
MOST_BYTES = 1 << 27
# the decoders of the other methods do not limit what they return
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_arrays(content: bytes, shown: str, *names: str) -> list[NDArray[Any]]:
    """Read arrays by their names from the content of an .npz file, called `shown` in messages; never unpickles.

    Raise BundleError where it is no such file, an array is missing or damaged, or they take more than `MOST_BYTES`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [archive.getinfo(f"{name}.npy") for name in names]
            if any(member.compress_type not in _METHODS for member in members):
                raise ValueError("its arrays are compressed in an unusual way; stored or deflated is accepted")
            if (size := sum(member.file_size for member in members)) > MOST_BYTES:
                raise ValueError(f"its arrays take {size} bytes, at most {MOST_BYTES} are accepted")
            return [_array(archive, member) for member in members]
    except Exception as error:  # a damaged archive makes zipfile and NumPy raise many types
        raise BundleError(f"{shown} is no .npz file with {', '.join(names)}: {error or type(error).__name__}") from None


def check_weights(arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]], shown: str) -> None:
    """Raise BundleError unless arrays are finite float32 of these shapes; `shown` names the network in the message."""
    for name, shape in shapes.items():
        array = arrays[name]
        if array.dtype != np.float32 or array.shape != shape or not np.isfinite(array).all():
            raise BundleError(f"{shown}'s {name} is {array.dtype} {array.shape}; finite float32 {shape} expected")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        return array
