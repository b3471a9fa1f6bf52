"""Text as pixels, in the fonts of OpenCV 4 and 5; its widths lay out every canvas."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

_HERSHEY_OVERSAMPLING = 4
_HERSHEY_CONDENSING = 0.84
_CAP_HEIGHT = 0.7  # of the font size, as in most sans-serif fonts


def shorten(text: str, max_width: int, size: int, bold: bool = False) -> str:
    """Shorten a text in its middle, with "...", until it is at most `max_width` pixels wide."""
    if text_mask(text, size, bold)[0].shape[1] <= max_width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        candidate = text[: (kept + 1) // 2] + "..." + text[len(text) - kept // 2 :]
        if text_mask(candidate, size, bold)[0].shape[1] <= max_width:
            return candidate
    return "..."


def wrap(text: str, max_width: int, size: int) -> list[str]:
    """Break a text between words into lines of at most `max_width` pixels."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_mask(longer, size, False)[0].shape[1] <= max_width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@lru_cache(maxsize=512)
def text_mask(text: str, size: int, bold: bool) -> tuple[NDArray[np.uint8], int]:
    """Return how much of each pixel a text covers, (H, W) from 0 to 255, and the row of its baseline.

    OpenCV 5 has an outline font. OpenCV 4 has stroke fonts only: they are drawn large and averaged down to look
    smooth, and the degree sign that they lack is drawn as a circle.
    """
    ascent, descent = round(0.8 * size), round(0.25 * size)
    if hasattr(cv2, "FontFace"):
        mask = _line(text, size, bold, ascent, descent, 1)
    else:
        fine = _HERSHEY_OVERSAMPLING
        parts = []
        for index, piece in enumerate(text.split("°")):
            if index:
                parts.append(_degree_sign(size * fine, (ascent + descent) * fine, ascent * fine))
            if piece:
                parts.append(_line(piece, size * fine, bold, ascent * fine, descent * fine, fine))
        large = np.hstack(parts) if parts else np.zeros((fine, fine), np.uint8)
        width = max(1, round(large.shape[1] / fine * _HERSHEY_CONDENSING))
        mask = cv2.resize(large, (width, ascent + descent), interpolation=cv2.INTER_AREA).astype(np.uint8)
    mask.setflags(write=False)
    return mask, ascent


def _line(text: str, size: int, bold: bool, ascent: int, descent: int, fine: int) -> NDArray[np.uint8]:
    font = cv2.FONT_HERSHEY_DUPLEX if bold else cv2.FONT_HERSHEY_SIMPLEX
    scale = _CAP_HEIGHT * size / _cap_height()
    stroke = 1 if fine == 1 else max(1, round(size * (0.11 if bold else 0.075)))
    (width, _), _ = cv2.getTextSize(text, font, scale, stroke)
    mask = np.zeros((ascent + descent, width + 2 * fine), np.uint8)
    cv2.putText(mask, text, (fine, ascent), font, scale, (255,), stroke, cv2.LINE_AA)
    return mask


@lru_cache(maxsize=1)
def _cap_height() -> float:
    """Measure the height in pixels of a capital letter at scale 1, which differs between OpenCV 4 and 5."""
    probe = np.zeros((400, 400), np.uint8)
    cv2.putText(probe, "H", (50, 300), cv2.FONT_HERSHEY_SIMPLEX, 8.0, (255,), 1, cv2.LINE_AA)
    return float(np.count_nonzero(probe.any(axis=1))) / 8.0


def _degree_sign(size: int, height: int, ascent: int) -> NDArray[np.uint8]:
    radius = round(0.13 * size)
    sign = np.zeros((height, round(0.42 * size)), np.uint8)
    centre = (sign.shape[1] // 2, ascent - round(_CAP_HEIGHT * size) + radius)
    cv2.circle(sign, centre, radius, (255,), max(1, round(0.07 * size)), cv2.LINE_AA)
    return sign
