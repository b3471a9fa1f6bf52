"""Lines that lie side by side are told apart by everybody, on black and on paper."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_spine.outputs import comparison_png
from edge_spine.outputs.drawing import palette
from edge_spine.outputs.drawing.canvas import Colour
from edge_spine.outputs.drawing.palette import PALETTE, PAPER

# Linear RGB as dichromats see it: Machado, Oliveira and Fernandes 2009, severity 1.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
GROUPS = {
    "coronal": palette.CORONAL,
    "sagittal": palette.SAGITTAL,
    "before and after": (comparison_png.BEFORE, comparison_png.AFTER),
}
# CIE 1976: 2.3 is just noticeable, 15 is plain at a glance.
PLAIN = 15.0


def linear(colour: Colour) -> NDArray[np.float64]:
    value = np.array(colour) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def seen(colour: Colour, vision: str) -> NDArray[np.float32]:
    """Return CIELAB of a colour as somebody sees it."""
    light = np.clip(np.array(VISION[vision]) @ linear(colour), 0, 1)
    screen = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    lab: NDArray[np.float32] = cv2.cvtColor(screen.reshape(1, 1, 3).astype(np.float32), cv2.COLOR_RGB2LAB)[0, 0]
    return lab


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("group", GROUPS)
def test_neighbouring_lines_differ_for_any_colour_vision(group: str, vision: str) -> None:
    for one, other in combinations(GROUPS[group], 2):
        difference = float(np.linalg.norm(seen(one, vision) - seen(other, vision)))
        assert difference > PLAIN, (one, other, difference)


def test_the_measure_knows_a_pair_that_is_not_told_apart() -> None:
    red, green = (190, 60, 30), (110, 110, 30)
    assert np.linalg.norm(seen(red, "normal") - seen(green, "normal")) > 3 * PLAIN
    assert np.linalg.norm(seen(red, "deuteranopia") - seen(green, "deuteranopia")) < PLAIN


@pytest.mark.parametrize("colour", sorted({colour for group in GROUPS.values() for colour in group} | {palette.TEXT}))
def test_lines_and_text_stand_out_from_black(colour: Colour) -> None:
    luminance = float(linear(colour) @ (0.2126, 0.7152, 0.0722))
    assert (luminance + 0.05) / 0.05 > 3.0, "WCAG 1.4.11"


def _luminance(colour: tuple[int, int, int]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in colour)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("palette", [PALETTE, PAPER], ids=["screen", "paper"])
@pytest.mark.parametrize("ink", ["text", "quiet", "orange"])
def test_letters_have_the_contrast_of_wcag_aa(palette: dict[str, tuple[int, int, int]], ink: str) -> None:
    for ground in ("background", "card", "ground"):
        light, dark = sorted((_luminance(palette[ink]), _luminance(palette[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5
