"""Find the vertebrae T1 to L5 along the coronal centreline in the image.

The crop is sampled along the normals of the centreline, one sample a crop row and 48 pixels (about 105 mm) to either
side, so that ribs, their heads, discs and the pelvis lie at their own rows in a bent spine too. A small network of
one-dimensional convolutions along the spine (`export.training.levels`) gives a probability for every second row to be
the body centre of each of the 17 levels, the top of T1 or the bottom of L5. The answer is the best chain of 17 centres
whose distances are those of adults. A vertebra is seen where it lies, but its name follows from the whole spine, and in
a person of unusual proportions many names are wrong at once. So the probability that any vertebra lies there, the sum
over the levels, counts in full at each of the 17 centres, and their 17 names count as one. Each place is the mean of
that sum near the chain, and its expected error follows from how wide its own level's probability is.

A miscount moves every vertebra by one, or leaves one out or counts one twice somewhere. The probability of the chain is
therefore compared with that of the same chain named one level higher or lower (`Found.margin`), and its distances with
those of adults (`Found.irregularity`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edge_spine.errors import Refusal
from edge_spine.network import CROP_SIZE, CURVE_ROWS, ROWS, CropPlacement
from edge_spine.npz import check_weights, read_arrays
from edge_spine.products import product
from edge_spine.refine import smoothed
from edge_spine.smooth_fit import gradient
from edge_spine.vertebrae import CENTRE_PITCH_MM, LEVELS, Levels

# samples to either side of the centreline, crop pixels
REACH_PX = 48
# one channel for the middle sample, then on each side means of two and, further out, of four samples
_BIN_PX = (*(2,) * 8, *(4,) * 8)
# the samples' means, and the row's place in the crop from -1 to 1
CHANNELS = 2 * len(_BIN_PX) + 2
# every so many crop rows has a probability
STRIDE = 2
CELLS = CROP_SIZE // STRIDE
# body centres of `LEVELS`, then the top of T1 and the bottom of L5
POINTS = len(LEVELS) + 2
T1_TOP, L5_BOTTOM = len(LEVELS), len(LEVELS) + 1
ENTRY_TAPS = 7
DILATIONS = (1, 2, 4, 8, 16, 8, 4, 2, 1)
# beyond these a miscount is likely; `export.training.levels` prints how often
LEAST_MARGIN, MOST_IRREGULAR = 1.0, 0.115

_TYPICAL_PIXEL_MM = 2.2
# distance between neighbouring centres, cells: mean of adults, relative SD, and the longest that is tried
_PITCH = CENTRE_PITCH_MM / (_TYPICAL_PIXEL_MM * STRIDE)
_PITCH_SPREAD, _LONGEST = 0.10, 14
# logarithms (16, 14) of the probabilities of 14 to 1 cells between neighbours
_STEP_COSTS = -((np.arange(_LONGEST, 0, -1) / _PITCH[:, np.newaxis] - 1) ** 2) / (2 * _PITCH_SPREAD**2)
# weight in a chain's score of the places against the names together, and the least probability of a place
_PLACE_WEIGHT, _LEAST_PLACE = 4.0, 1e-3
# cells to either side of the chain that give a place
_NEAR = 2
_LEAST_DEVIATION = 1e-3
# half a body's height as a share of the distance to the next centre, least and most; 0.33 on average
_HALF_BODY = (0.25, 0.45)
# slopes of the centreline are averaged over so many rows
_SLOPE_ROWS = 31
_OFFSETS = np.arange(-REACH_PX, REACH_PX + 1, dtype=np.float32)
_CROP_ROWS = np.arange(float(CROP_SIZE))
_CROP_ROWS_32 = _CROP_ROWS.astype(np.float32)
_ROW_PLACES = np.linspace(-1, 1, CROP_SIZE, dtype=np.float32)[:, np.newaxis]
_END_ROWS = 24

Array = NDArray[np.float64]
Grey = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LevelNetwork:
    """Weights of the network: an entry of stride 2, residual layers of three taps, a linear exit.

    Attributes
    ----------
    entry_weight, entry_bias : (7 * 34, W), (W,) float32 arrays
    middle_weight, middle_bias : (9, 3 * W, W), (9, W) float32 arrays
    exit_weight, exit_bias : (W, 19), (19,) float32 arrays
    error_px : (2,) float32 array
        Expected absolute error of a place, crop pixels: the first number, and the second times the spread.
    """

    entry_weight: Grey
    entry_bias: Grey
    middle_weight: Grey
    middle_bias: Grey
    exit_weight: Grey
    exit_bias: Grey
    error_px: Grey

    def log_probabilities(self, strip: Grey) -> Array:
        """Map a strip (224, 34) to the logarithms of the probabilities (112, 19) of its rows."""
        padded = np.zeros((CROP_SIZE + 2 * (ENTRY_TAPS // 2), CHANNELS), np.float32)
        padded[ENTRY_TAPS // 2 :][:CROP_SIZE] = strip
        # hidden cells between zeros, as many as the farthest tap reaches
        reach, width = max(DILATIONS), self.entry_bias.size
        wide = np.zeros((CELLS + 2 * reach, width), np.float32)
        hidden, (more, tap) = wide[reach : reach + CELLS], np.empty((2, CELLS, width), np.float32)
        steps = padded.reshape(-1, STRIDE * CHANNELS)
        entry = np.concatenate([steps[step:][:CELLS] for step in range(-(-ENTRY_TAPS // STRIDE))], axis=1)
        np.maximum(product(entry[:, : ENTRY_TAPS * CHANNELS], self.entry_weight) + self.entry_bias, 0, out=hidden)
        # three products of rows where they lie take less time than one product of their copies
        weights = self.middle_weight.reshape(-1, 3, width, width)
        for dilation, weight, bias in zip(DILATIONS, weights, self.middle_bias, strict=True):
            product(hidden, weight[1], more)
            more += product(wide[reach - dilation :][:CELLS], weight[0], tap)
            more += product(wide[reach + dilation :][:CELLS], weight[2], tap)
            more += bias
            hidden += np.maximum(more, 0, out=more)
        logits = (hidden @ self.exit_weight + self.exit_bias).astype(np.float64)
        logits -= logits.max(axis=0)
        logarithms: Array = logits - np.log(np.exp(logits).sum(axis=0))
        return logarithms


@dataclass(frozen=True, eq=False)
class Found:
    """Places of the vertebrae on the centreline of a crop.

    Attributes
    ----------
    rows : (19,) array
        Crop rows of the centreline at the body centres of `LEVELS`, the top of T1 and the bottom of L5.
    error_px : (19,) array
        Expected absolute error of each, crop pixels.
    margin : float
        Mean over the vertebrae of the logarithm of how much more probable the chain is than the same chain named one
        level higher or lower, whichever is more probable.
    irregularity : float
        SD of the distances between centres, each as a multiple of adults' mean, over their median.
    """

    rows: Array
    error_px: Array
    margin: float
    irregularity: float

    @property
    def uncertain(self) -> bool:
        """Return whether the count may be off by one."""
        return self.margin < LEAST_MARGIN or self.irregularity > MOST_IRREGULAR

    def levels(self, place: CropPlacement) -> Levels:
        """Return the heights of the vertebrae in the scan, mm.

        Refuse as `implausible-curves` where two vertebrae that follow each other lie at one height, or exchanged.
        """
        z, count = place.z_mm(self.rows), len(LEVELS)
        if not (np.diff(z[[T1_TOP, *range(count), L5_BOTTOM]]) < 0).all():
            raise Refusal(
                "implausible-curves",
                "no column of vertebrae from T1 to L5 was found; give a whole-body, antero-posterior DXA bone image",
            )
        return Levels(
            z=z[:count],
            top=float(z[T1_TOP]),
            bottom=float(z[L5_BOTTOM]),
            z_error=self.error_px[:count] * place.model_pixel_mm,
            uncertain=self.uncertain,
        )


def read_level_network(content: bytes) -> LevelNetwork:
    """Read the weights from an .npz file; BundleError as from `read_arrays` and `check_weights` of `edge_spine.npz`."""
    names = [field.name for field in fields(LevelNetwork)]
    arrays = dict(zip(names, read_arrays(content, "the level network", *names), strict=True))
    width, layers = arrays["entry_bias"].size, len(DILATIONS)
    shapes = {
        "entry_weight": (ENTRY_TAPS * CHANNELS, width),
        "entry_bias": (width,),
        "middle_weight": (layers, 3 * width, width),
        "middle_bias": (layers, width),
        "exit_weight": (width, POINTS),
        "exit_bias": (POINTS,),
        "error_px": (2,),
    }
    check_weights(arrays, shapes, "the level network")
    return LevelNetwork(**arrays)


def locate(tensor: NDArray[np.float32], output: NDArray[np.float32], network: LevelNetwork) -> Found:
    """Find the vertebrae along the coronal centreline of a network's output.

    Parameters
    ----------
    tensor : (1, 3, 224, 224) array
        The network's input, in [0, 1].
    output : (1254,) array
        Its output, after the refinement, crop pixels / 224; finite.
    network : LevelNetwork
        Of the bundle.
    """
    centre = np.asarray(output, dtype=np.float64).reshape(ROWS, 6)[:, 1] * CROP_SIZE
    line = continued(smoothed(centre))
    return read_places(network.log_probabilities(strip(tensor[0, 0], line)), network.error_px)


def continued(centre: Array) -> Array:
    """Continue a centreline (209,) at the curve rows in straight lines to all 224 rows of the crop."""
    line: Array = np.interp(_CROP_ROWS, CURVE_ROWS, centre)
    steps = np.arange(_END_ROWS) - (_END_ROWS - 1) / 2
    before, after = int(CURVE_ROWS[0]) + 1, int(CURVE_ROWS[-1]) + 1
    for outside, end, part in ((slice(before), 0, slice(_END_ROWS)), (slice(after, None), -1, slice(-_END_ROWS, None))):
        slope = float(steps @ centre[part] / (steps @ steps))
        line[outside] = centre[end] + slope * (_CROP_ROWS[outside] - CURVE_ROWS[end])
    return line


def slopes(line: Array) -> Array:
    """Return the smoothed slopes (224,) of a centreline, columns per row."""
    slope, half = gradient(line), _SLOPE_ROWS // 2
    padded = np.concatenate([np.repeat(slope[:1], half), slope, np.repeat(slope[-1:], half)])
    smooth: Array = np.convolve(padded, _slope_kernel(), mode="valid")
    return smooth


@lru_cache(maxsize=1)
def _slope_kernel() -> Array:
    """Return the weights (31,) of the mean of slopes: a Gaussian of 5 rows."""
    place = np.arange(_SLOPE_ROWS) - _SLOPE_ROWS // 2
    weights: Array = np.exp(-((place / 5.0) ** 2) / 2)
    weights /= weights.sum()
    return weights


def strip(crop: NDArray[np.float32], line: Array) -> Grey:
    """Sample a crop (224, 224) along the normals of a centreline (224,): (224, 34), of mean 0 and deviation 1."""
    grey = product(along_normals(crop, line, _OFFSETS), _bins())
    grey -= grey.mean()
    grey /= max(math.sqrt(np.vdot(grey, grey) / grey.size), _LEAST_DEVIATION)
    return np.concatenate([grey, _ROW_PLACES], axis=1)


def along_normals(crop: NDArray[np.float32], line: Array, offsets: Grey) -> Grey:
    """Sample a crop (224, 224) along the normals of a centreline (224,) at K offsets, pixels: (224, K); 0 outside."""
    # OpenCV takes long to import, and loading a bundle needs this module
    import cv2

    slope = slopes(line)[:, np.newaxis].astype(np.float32)
    along = offsets / np.sqrt(1 + slope * slope)
    columns = line[:, np.newaxis].astype(np.float32) + along
    rows = _CROP_ROWS_32[:, np.newaxis] - slope * along
    samples = cv2.remap(crop, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return samples.astype(np.float32, copy=False)


@lru_cache(maxsize=1)
def _bins() -> Grey:
    """Return the weights (97, 33) that average samples into channels, from the middle outwards, left before right."""
    columns, edge = [_OFFSETS == 0], 0
    for width in _BIN_PX:
        columns += [(_OFFSETS * side > edge) & (_OFFSETS * side <= edge + width) for side in (-1, 1)]
        edge += width
    chosen = np.stack(columns, axis=1).astype(np.float32)
    weights: Grey = chosen / chosen.sum(axis=0)
    return weights


def read_places(logarithms: Array, error_px: NDArray[np.floating[Any]]) -> Found:
    """Read the chain of vertebrae from `LevelNetwork.log_probabilities`, (112, 19), and its `error_px`, (2,)."""
    count, probabilities = len(LEVELS), np.exp(logarithms)
    # of the body centre of any level
    near_any = probabilities[:, :count].sum(axis=1, keepdims=True) + _LEAST_PLACE
    chain = best_chain(_PLACE_WEIGHT * np.log(near_any) + logarithms[:, :count] / count)
    ends = (logarithms[: chain[0] + 1, T1_TOP].argmax(), chain[-1] + logarithms[chain[-1] :, L5_BOTTOM].argmax())
    places, point = np.array([*chain, *ends]), np.arange(POINTS)
    near = places + np.arange(-_NEAR, _NEAR + 1)[:, np.newaxis]
    inside = (near >= 0) & (near < CELLS)
    cells = np.arange(CELLS)
    seen = np.concatenate([np.repeat(near_any, count, axis=1), probabilities[:, count:]], axis=1)
    weight = seen[near.clip(0, CELLS - 1), point] * inside
    rows: Array = (weight * near).sum(axis=0) / weight.sum(axis=0)
    # mean of the squared distance from the place
    squared = (cells * cells) @ probabilities - 2 * rows * (cells @ probabilities) + rows * rows
    spread = np.sqrt(np.maximum(squared, 0))
    last = len(LEVELS) - 1
    # also where the end lies outside of the crop
    least, most = (share * (rows[1] - rows[0]) for share in _HALF_BODY)
    rows[T1_TOP] = rows[0] - min(max(rows[0] - rows[T1_TOP], least), most)
    least, most = (share * (rows[last] - rows[last - 1]) for share in _HALF_BODY)
    rows[L5_BOTTOM] = rows[last] + min(max(rows[L5_BOTTOM] - rows[last], least), most)
    expected = float(error_px[0]) + float(error_px[1]) * STRIDE * spread
    # sixteen numbers, for which calls of NumPy take longer than Python
    distances = sorted((np.diff(rows[: len(LEVELS)]) / _PITCH).tolist())
    mean, median = sum(distances) / len(distances), (distances[7] + distances[8]) / 2
    irregularity = math.dist(distances, [mean] * len(distances)) / math.sqrt(len(distances)) / median
    return Found(rows * STRIDE, expected, _margin(logarithms, np.array(chain)), irregularity)


def best_chain(logarithms: Array) -> list[int]:
    """Return the cells of the most probable chain through (112, 17) logarithms, with distances like those of adults."""
    # for each level, the logarithm of the best chain that ends in each cell, below cells that none can start from
    totals = np.full((len(LEVELS), _LONGEST + CELLS), -np.inf)
    totals[:, _LONGEST:] = logarithms.T
    before = sliding_window_view(totals, CELLS, axis=1)[:, :_LONGEST]
    for level, cost in enumerate(_STEP_COSTS[:, :, np.newaxis], start=1):
        totals[level, _LONGEST:] += np.maximum.reduce(before[level - 1] + cost)
    chain = [int(totals[-1].argmax()) - _LONGEST]
    for total, cost in zip(totals[-2::-1], _STEP_COSTS[::-1], strict=True):
        # of equal ones the nearest
        steps = (total[chain[-1] : chain[-1] + _LONGEST] + cost)[::-1]
        chain.append(chain[-1] - 1 - int(steps.argmax()))
    return chain[::-1]


def _margin(logarithms: Array, chain: NDArray[np.int64]) -> float:
    centres = logarithms[:, : len(LEVELS)]
    level = np.arange(len(LEVELS))
    own = centres[chain, level]
    higher, lower = centres[chain[1:], level[:-1]], centres[chain[:-1], level[1:]]
    return float(min((own[1:] - higher).mean(), (own[:-1] - lower).mean()))
