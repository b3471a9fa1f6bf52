"""The canvas of pixels, on OpenCV."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from copy import copy
from itertools import product
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_spine.outputs.drawing.canvas import PLATE_OPACITY, Box, Canvas, Colour, Image
from edge_spine.outputs.drawing.text import text_mask
from edge_spine.reading.kinds import OWN_PNG
from edge_spine.smooth_fit import gradient

_SHIFT = 4  # OpenCV takes coordinates in sixteenths of a pixel
# signature and IHDR
_PNG_HEADER_BYTES = 33


class RasterCanvas(Canvas):
    """A `Canvas` of pixels: `image` is (H, W, 3), uint8, BGR."""

    def __init__(self, width: int, height: int, background: Colour) -> None:
        super().__init__(width, height)
        self.image: Image = np.empty((height, width, 3), np.uint8)
        self.fill(self.box, background)

    def copy(self) -> RasterCanvas:
        """Return a canvas with the same pixels and texts."""
        copied = copy(self)
        copied.image, copied.texts = self.image.copy(), list(self.texts)
        return copied

    def fill(self, box: Box, colour: Colour, radius: int = 0) -> None:
        x, y, right, bottom = box.x, box.y, box.right - 1, box.bottom - 1
        cv2.rectangle(self.image, (x + radius, y), (right - radius, bottom), colour[::-1], -1)
        if radius:
            cv2.rectangle(self.image, (x, y + radius), (right, bottom - radius), colour[::-1], -1)
            for centre in product((x + radius, right - radius), (y + radius, bottom - radius)):
                cv2.circle(self.image, centre, radius, colour[::-1], -1, cv2.LINE_AA)

    def rule(self, x: int, y: int, width: int, colour: Colour) -> None:
        self.image[y, x : x + width] = colour[::-1]

    def paste(self, box: Box, picture: Image) -> None:
        self._part(box)[:] = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR) if picture.ndim == 2 else picture

    def hairlines(self, paths: Sequence[NDArray[np.float64]], colour: Colour, clip: Box) -> None:
        fixed = [_fixed_point(path, clip) for path in paths]
        cv2.polylines(self._part(clip), fixed, False, colour[::-1], 1, cv2.LINE_AA, _SHIFT)

    def stroke(self, path: NDArray[np.float64], colour: Colour, width: float, clip: Box) -> None:
        # As one filled outline: OpenCV's thick lines have a bulge at every point of a fine curve.
        along = gradient(path)
        across = np.column_stack([-along[:, 1], along[:, 0]]) / np.hypot(*along.T)[:, np.newaxis]
        outline = np.concatenate([path + across * width / 2, (path - across * width / 2)[::-1]])
        fixed = _fixed_point(outline, clip)
        cv2.fillPoly(self._part(clip), [fixed], colour[::-1], cv2.LINE_AA, _SHIFT)

    def area(self, outline: NDArray[np.float64], colour: Colour, opacity: float, clip: Box) -> None:
        left, top = np.maximum(np.floor(outline.min(axis=0)) - 2, (clip.x, clip.y)).astype(int).tolist()
        right, bottom = np.minimum(outline.max(axis=0) + 3, (clip.right, clip.bottom)).astype(int).tolist()
        around = Box(left, top, max(0, right - left), max(0, bottom - top))
        if (target := self._part(around)).size:
            mask = np.zeros(target.shape[:2], np.uint8)
            cv2.fillPoly(mask, [_fixed_point(outline, around)], (round(255 * opacity),), cv2.LINE_AA, _SHIFT)
            blend(target, mask, colour)

    def dot(self, centre: tuple[float, float], radius: float, colour: Colour) -> None:
        fixed = (round(centre[0] * 2**_SHIFT), round(centre[1] * 2**_SHIFT))
        cv2.circle(self.image, fixed, round(radius * 2**_SHIFT), colour[::-1], -1, cv2.LINE_AA, _SHIFT)

    def _plate(self, plate: Box, colour: Colour, box: Box) -> None:
        target = self._part(Box(max(0, plate.x), max(0, plate.y), plate.width, plate.height))
        blend(target, np.array(round(255 * PLATE_OPACITY)), colour)

    def _write(self, text: str, box: Box, baseline: int, size: int, colour: Colour, bold: bool) -> None:
        mask, _ = text_mask(text, size, bold)
        top, left = max(0, box.y), max(0, box.x)
        target = self.image[top : max(top, box.bottom), left : max(left, box.right)]
        blend(target, mask[top - box.y :, left - box.x :][: target.shape[0], : target.shape[1]], colour)

    def _part(self, box: Box) -> Image:
        return self.image[box.y : box.bottom, box.x : box.right]


def blend(target: Image, mask: NDArray[np.integer[Any]], colour: Colour) -> None:
    """Mix a colour into pixels (H, W, 3), in place, by a mask (H, W) or () of 0 to 255."""
    weight = mask.astype(np.uint16)
    rest = 255 - weight
    # planes one after another, because NumPy is slow along an axis of three
    for plane, value in zip(target.transpose(2, 0, 1), colour[::-1], strict=True):
        plane[:] = (plane * rest + (value * weight + 127)) // 255


def encode(picture: Image, suffix: str, options: Sequence[int] = ()) -> bytes:
    """Encode a picture, grey (H, W), BGR (H, W, 3) or BGRA (H, W, 4), as ".png" or ".jpeg"."""
    done, encoded = cv2.imencode(suffix, picture, options)
    if not done:
        raise RuntimeError(f"OpenCV could not encode a picture as {suffix}")
    return encoded.tobytes()


def signed(png: bytes) -> bytes:
    """Return a PNG file with a text chunk that names edge-spine, by which a search for scans leaves it out."""
    chunk = struct.pack(">I", len(OWN_PNG) - 4) + OWN_PNG + struct.pack(">I", zlib.crc32(OWN_PNG))
    return png[:_PNG_HEADER_BYTES] + chunk + png[_PNG_HEADER_BYTES:]


def _fixed_point(points: NDArray[np.float64], box: Box) -> NDArray[np.int32]:
    fixed: NDArray[np.int32] = np.rint((points - (box.x, box.y)) * 2**_SHIFT).astype(np.int32)
    return fixed
