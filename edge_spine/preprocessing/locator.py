"""Find the spine in a whole-body scan with a small fully convolutional network.

The network takes the scan at 7 mm a pixel and gives a heat map for each of three points: the centre of the crop, the
top of T1 and the bottom of L5. It runs in OpenCV and needs no engine.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_spine.errors import BundleError
from edge_spine.lending import Lender
from edge_spine.processors import usable_cores

INPUT_SHAPE = (288, 112)
INPUT_PIXEL_MM = 7.0
STRIDE = 4


@dataclass(frozen=True)
class Landmarks:
    """Position of the spine in a scan: crop centre, top of T1 and bottom of L5, pixels as (row, column).

    `confidence` is the least share of a heat map's weight that lies within two cells (56 mm) of its point, 0 to 1.
    """

    centre_px: tuple[float, float]
    t1_top_px: tuple[float, float]
    l5_bottom_px: tuple[float, float]
    confidence: float

    def trunk_mm(self, spacing_mm: tuple[float, float]) -> float:
        """Return the height from the top of T1 to the bottom of L5, mm; negative where they are upside down."""
        return (self.l5_bottom_px[0] - self.t1_top_px[0]) * spacing_mm[0]


class Localiser:
    """Run the localiser network, the checked content of `localiser.onnx`. Any number of threads may share it.

    Raise BundleError where OpenCV cannot read the network.
    """

    def __init__(self, model: bytes) -> None:
        def read() -> cv2.dnn.Net:
            try:
                return cv2.dnn.readNetFromONNX(np.frombuffer(model, dtype=np.uint8))
            except cv2.error as error:
                raise BundleError("localiser.onnx: OpenCV cannot read the localiser network") from error

        # a network of OpenCV keeps the input and the layers of its last call
        self._networks = Lender(read, usable_cores(), read())

    def __call__(self, shown: NDArray[np.float32], spacing_mm: tuple[float, float]) -> Landmarks:
        """Find the spine in a normalised scan (rows, columns), float32 in [0, 1], of a pixel spacing (row, column)."""
        small, origin, step = thumbnail(shown, spacing_mm)
        with self._networks.lent() as network:
            network.setInput(small[None, None])
            points, confidence = read_heat_maps(np.asarray(network.forward())[0])
        places = [(origin[0] + row * step[0], origin[1] + column * step[1]) for row, column in points]
        return Landmarks(places[0], places[1], places[2], confidence)


def thumbnail(
    shown: NDArray[np.float32], spacing_mm: tuple[float, float]
) -> tuple[NDArray[np.float32], tuple[float, float], tuple[float, float]]:
    """Shrink a scan to the localiser's input, centred.

    Returns
    -------
    small : (288, 112) float32 array
    origin_px : (row, column)
        Scan pixel at the centre of the thumbnail's pixel (0, 0).
    step_px : (row, column)
        Scan pixels to a thumbnail pixel.
    """
    step = (INPUT_PIXEL_MM / spacing_mm[0], INPUT_PIXEL_MM / spacing_mm[1])
    size = (max(1, round(shown.shape[0] / step[0])), max(1, round(shown.shape[1] / step[1])))
    step = (shown.shape[0] / size[0], shown.shape[1] / size[1])
    # INTER_AREA shifts an axis that it enlarges, so that it only shrinks
    least = (min(size[0], shown.shape[0]), min(size[1], shown.shape[1]))
    reduced = cv2.resize(shown, (least[1], least[0]), interpolation=cv2.INTER_AREA)
    if least != size:
        reduced = cv2.resize(reduced, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    offset = ((INPUT_SHAPE[0] - size[0]) // 2, (INPUT_SHAPE[1] - size[1]) // 2)
    small = np.zeros(INPUT_SHAPE, dtype=np.float32)
    to = [slice(max(0, o), min(n, o + s)) for o, n, s in zip(offset, INPUT_SHAPE, size, strict=True)]
    of = [slice(t.start - o, t.stop - o) for t, o in zip(to, offset, strict=True)]
    small[to[0], to[1]] = reduced[of[0], of[1]]
    origin = tuple((0.5 - o) * s - 0.5 for o, s in zip(offset, step, strict=True))
    return small, (origin[0], origin[1]), step


def read_heat_maps(logits: NDArray[np.float32]) -> tuple[list[tuple[float, float]], float]:
    """Read points from heat maps (points, 72, 28), the network's output, by their local centre of mass.

    Return the (row, column) of each, thumbnail pixels, and the confidence: the least share of weight near a point.
    """
    points = []
    confidence = 1.0
    for heat in logits.astype(np.float64):
        weight = np.exp(heat - heat.max())
        weight /= weight.sum()
        row, column = np.unravel_index(int(weight.argmax()), weight.shape)
        rows = np.arange(max(0, row - 2), min(weight.shape[0], row + 3))
        columns = np.arange(max(0, column - 2), min(weight.shape[1], column + 3))
        near = weight[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        total = float(near.sum())
        place = (float(near.sum(1) @ rows) / total, float(near.sum(0) @ columns) / total)
        points.append(((place[0] + 0.5) * STRIDE - 0.5, (place[1] + 0.5) * STRIDE - 0.5))
        confidence = min(confidence, total)
    return points, confidence
