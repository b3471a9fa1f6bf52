"""The canvas of pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_spine.outputs.drawing.canvas import Box
from edge_spine.outputs.drawing.raster import RasterCanvas, blend, encode

RED, BLUE = (255, 0, 0), (0, 0, 255)


def coloured(canvas: RasterCanvas) -> list[int]:
    """Left, top, right and bottom of what is not black."""
    rows, columns = np.nonzero(canvas.image.any(axis=2))
    return [int(value) for value in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


def test_colours_are_red_green_blue_and_pixels_blue_green_red() -> None:
    canvas = RasterCanvas(20, 10, RED)
    assert (canvas.image == (0, 0, 255)).all() and canvas.image.shape == (10, 20, 3)


def test_a_filled_box_takes_its_pixels_and_no_other() -> None:
    canvas = RasterCanvas(50, 40, (0, 0, 0))
    canvas.fill(Box(5, 6, 20, 10), RED)
    assert coloured(canvas) == [5, 6, 25, 16]


@pytest.mark.parametrize("draw", ["stroke", "area", "hairlines"])
def test_lines_and_areas_end_at_their_box(draw: str) -> None:
    canvas, box = RasterCanvas(60, 60, (0, 0, 0)), Box(20, 20, 20, 20)
    path = np.array([[0.0, 5.0], [59.0, 30.0], [5.0, 59.0]])
    {
        "stroke": lambda: canvas.stroke(path, RED, 6.0, box),
        "area": lambda: canvas.area(path, RED, 1.0, box),
        "hairlines": lambda: canvas.hairlines([path], RED, box),
    }[draw]()
    left, top, right, bottom = coloured(canvas)
    assert left >= box.x and top >= box.y and right <= box.right and bottom <= box.bottom


@pytest.mark.parametrize("move", [0.0, -35.0, 45.0, 300.0])
def test_an_area_is_blended_as_by_a_mask_of_its_whole_box(move: float) -> None:
    canvas, box = RasterCanvas(60, 60, RED), Box(10, 12, 40, 40)
    outline = np.array([[15.3, 14.2], [33.7, 20.1], [22.4, 47.9]]) + move
    expected, mask = canvas.image.copy(), np.zeros((40, 40), np.uint8)
    cv2.fillPoly(mask, [np.rint((outline - (10, 12)) * 16).astype(np.int32)], (128,), cv2.LINE_AA, 4)
    blend(expected[12:52, 10:50], mask, BLUE)
    canvas.area(outline, BLUE, 0.5, box)
    np.testing.assert_array_equal(canvas.image, expected)


def test_a_copy_is_drawn_on_alone() -> None:
    canvas = RasterCanvas(40, 40, (0, 0, 0))
    copied = canvas.copy()
    copied.text("x", 5, 20, 14, RED)
    assert canvas.texts == [] and not canvas.image.any()
    assert [text for text, _ in copied.texts] == ["x"] and copied.image.any()


def test_blending_mixes_by_the_mask() -> None:
    pixels = np.zeros((1, 3, 3), np.uint8)
    blend(pixels, np.array([[0, 128, 255]], np.uint8), BLUE)
    assert pixels[0, :, 0].tolist() == [0, 128, 255] and not pixels[..., 1:].any()


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (4, 5, 4)])
def test_an_encoded_picture_is_the_same(shape: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    found = cv2.imdecode(np.frombuffer(encode(picture, ".png"), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found, picture)


def test_a_picture_that_cannot_be_encoded_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, None))
    with pytest.raises(RuntimeError, match=r"as \.png"):
        encode(np.zeros((2, 2), np.uint8), ".png")
