"""Convert colour images to grey; some scanners export grey images as colour."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in the DICOM YBR_FULL definition (PS3.3 C.7.6.3.1.2)


def grey_from_rgb(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return the grey image (rows, columns) of an RGB one (rows, columns, 3).

    It is the channel itself where all three are equal, otherwise float32 luminance (BT.601).
    """
    red, green, blue = (pixels[..., channel] for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    luminance = np.zeros(red.shape, dtype=np.float32)
    for channel, weight in zip((red, green, blue), _LUMINANCE, strict=True):
        luminance += np.float32(weight) * channel
    return luminance
