"""Shift the coronal curves to the borders of the vertebral bodies in the image.

The crop is sampled across the network's centreline, along its normal, from -2.4 to 2.4 half-widths, and each row is
scaled by the contrast of the column against its surroundings. A small network that was fitted on people
(`export.training.refinement`) reads a window of this profile, about four vertebrae long, and answers how far to the
side the centre of the column lies, and how much wider the column is. It reads each window and its mirror image, and
the two answers are combined such that the result commutes with mirroring. The shift is a cubic spline with a knot
about every 12 rows (25 mm, a vertebra), by least squares against its squared second differences, with weights:
contrast against clutter, and Cauchy's for large distances. The image is sampled again along the shifted line.

Fallback: where the column has no contrast the weights vanish, and the network's answer stays. No shift reaches
`LIMIT_PX`. Every step is continuous in the image and in the network's output.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.network import CROP_SIZE, CURVE_ROWS, ROWS
from edge_spine.npz import check_weights, read_arrays
from edge_spine.products import product
from edge_spine.smooth_fit import gradient

# distances from the centreline on each side, tenths of a half-width
TAPS = 24
# parts of the curve, from the top down; a row's place between their middles is an input too
PARTS = 3
# every so many of the 209 rows is sampled
SAMPLED = np.arange(0, ROWS, 2)
# samples of a window, relative to its middle: 24 rows up and down
WINDOW = np.arange(-12, 13, 4)
INPUTS = len(WINDOW) * (2 * TAPS + 1) + PARTS
# no shift of the centre is as large
LIMIT_PX = 5.0
# no half-width changes as much
WIDTH_LIMIT_PX = 2.5

Array = NDArray[np.float64]
Profile = NDArray[np.float32]

_KNOTS = 18
_DEGREE = 3
_PASSES = 3
# samples whose windows are read
_READ = np.arange(0, SAMPLED.size, 2)
_SAMPLES = np.arange(SAMPLED.size)
# weight of the squared second differences of the shift (pixels per row and row) against squared pixels
_SMOOTHNESS = 50.0
# its factor in so many rows at each end, where a border has no neighbours that could outvote it
_END_SMOOTHNESS, _END_ROWS = 4.0, 16
# distance of the centre, half-widths, at which a row's weight is halved
_OUTLIER = 0.25
# SD in samples of the Gaussian along the curve: for profiles, the contrast, and the error of the width
_ALONG_PROFILE, _ALONG_CONTRAST, _ALONG_WIDTH = 2.0, 7.5, 6.0
# half-widths that lie inside the column and outside of it
_INSIDE, _OUTSIDE = 0.8, 1.3
# places of a profile across the column, half-widths, and the (49, 2) weights of its means inside and outside
_OFFSETS: Array = np.arange(-TAPS, TAPS + 1) / 10
_OFFSETS_32: Profile = _OFFSETS.astype(np.float32)
_SAMPLED_ROWS: Profile = CURVE_ROWS[SAMPLED, np.newaxis].astype(np.float32)
_CHOSEN = np.stack([np.abs(_OFFSETS) < _INSIDE - 1e-9, np.abs(_OFFSETS) > _OUTSIDE + 1e-9], axis=1).astype(np.float64)
_MEAN_WEIGHTS: Profile = (_CHOSEN / _CHOSEN.sum(axis=0)).astype(np.float32)
# contrast in grey values of 0 to 1: the least that profiles are divided by, and the one that gets half weight
_LEAST_CONTRAST, _HALF_CONTRAST = 0.03, 0.1
# Variance of the surroundings against squared contrast: one SD of a tenth of the contrast takes a tenth of the weight.
_CLUTTER = 10.0
# scaled profiles are clipped, so that metal does not outweigh the bone beside it
_CLIP = (-1.0, 2.0)
# weight of the squared shift, which keeps the equations solvable where the image shows nothing
_RIDGE = 0.0005
# no half-width shrinks below this share of the network's
_LEAST_WIDTH = 0.3


@dataclass(frozen=True, eq=False)
class Refinement:
    """Weights of the network that reads windows: two hidden layers of rectified linear units.

    Attributes
    ----------
    weight0, bias0 : (346, H), (H,) float32 arrays
    weight1, bias1 : (H, K), (K,) float32 arrays
    weight2, bias2 : (K, 2), (2,) float32 arrays
        The two answers, half-widths: distance of the centre to the right of the image, and what the half-width lacks.
    """

    weight0: Profile
    bias0: Profile
    weight1: Profile
    bias1: Profile
    weight2: Profile
    bias2: Profile

    @cached_property
    def _both(self) -> tuple[Profile, Profile]:
        """The first layer (346, 2 H), (2 H,) for a window, then for its mirror image."""
        turned = mirrored(self.weight0.T).T
        return np.concatenate([self.weight0, turned], axis=1), np.concatenate([self.bias0, self.bias0])

    def read(self, windows: Profile) -> tuple[Array, Array]:
        """Return the distance of the centre and what the half-width lacks, (N,) each, of windows (N, 346)."""
        weight, bias = self._both
        hidden = _rectified(product(windows, weight), bias).reshape(-1, self.bias0.size)
        hidden = _rectified(product(hidden, self.weight1), self.bias1)
        own, other = (hidden @ self.weight2 + self.bias2).astype(np.float64).reshape(-1, 2, 2).transpose(1, 2, 0)
        return own[0] - other[0], own[1] + other[1]


def read_refinement(content: bytes) -> Refinement:
    """Read the weights from an .npz file; BundleError as from `read_arrays` and `check_weights` of `edge_spine.npz`."""
    names = [field.name for field in fields(Refinement)]
    arrays = dict(zip(names, read_arrays(content, "the refinement", *names), strict=True))
    sizes = [INPUTS, arrays["bias0"].size, arrays["bias1"].size, 2]
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (given, made) in enumerate(itertools.pairwise(sizes)):
        shapes |= {f"weight{layer}": (given, made), f"bias{layer}": (made,)}
    check_weights(arrays, shapes, "the refinement")
    return Refinement(**arrays)


def refined(tensor: NDArray[np.float32], output: NDArray[np.float32], refinement: Refinement) -> NDArray[np.float32]:
    """Shift the coronal columns of a network's output to where the image shows the spine.

    Parameters
    ----------
    tensor : (1, 3, 224, 224) array
        The network's input, in [0, 1].
    output : (1254,) array
        The network's output, crop pixels / 224.
    refinement : Refinement
        Of the bundle.

    Returns
    -------
    (1254,) float32 array
        The output with its three coronal columns shifted and its borders moved apart or together; the output itself
        where it has values that are not finite or a width that is not positive.
    """
    columns = np.asarray(output, dtype=np.float64).reshape(ROWS, 6)
    if not np.isfinite(columns).all():
        return output
    centre, width = smoothed(np.stack([columns[:, 1], columns[:, 2] - columns[:, 0]], axis=1)).T * CROP_SIZE
    if width.min() <= 0:
        return output
    shift, wider = errors_px(tensor[0, 0], centre, width / 2, refinement)
    moved = columns.copy()
    moved[:, :3] += (shift[:, np.newaxis] + wider[:, np.newaxis] * (-1, 0, 1)) / CROP_SIZE
    shifted: NDArray[np.float32] = moved.astype(np.float32).reshape(output.shape)
    return shifted


def errors_px(
    crop: NDArray[np.float32], centre: Array, half_width: Array, refinement: Refinement
) -> tuple[Array, Array]:
    """Estimate from a crop how far a smooth centreline and its half-width are from those of the spine.

    Parameters
    ----------
    crop : (224, 224) array
        Grey values in [0, 1].
    centre, half_width : (209,) arrays
        Column of the centre and half the horizontal width at each curve row, crop pixels.
    refinement : Refinement
        Of the bundle.

    Returns
    -------
    shift : (209,) array
        Crop pixels, positive to the right of the image.
    lacking : (209,) array
        Crop pixels, positive where the column is wider than the network has it.
    """
    basis = splines()[:: SAMPLED[1]]
    read = slice(None, None, _READ[1])
    rows = basis[read]
    start, start_width = centre[SAMPLED], half_width[SAMPLED]
    width, shift, coefficients = start_width, np.zeros(SAMPLED.size), np.zeros(basis.shape[1])
    for _ in range(_PASSES):
        profile, seen = scaled_profile(crop, start + shift, width)
        aside, wider = refinement.read(windows(profile, _READ))
        weight = seen[read] ** 2 / (1 + (aside / _OUTLIER) ** 2)
        weighted = (rows * weight[:, np.newaxis]).T
        wanted = weighted @ (shift[read] + aside * width[read])
        coefficients = np.linalg.solve(weighted @ rows + _penalty(), wanted)
        shift = basis @ coefficients
        lacking = along(np.interp(_SAMPLES, _READ, wider) * width, _ALONG_WIDTH)
        trust = np.minimum(2 * along(seen, _ALONG_WIDTH), 1)
        width = np.maximum(width + trust * lacking, _LEAST_WIDTH * start_width)
    lacking = np.interp(np.arange(ROWS), SAMPLED, width - start_width)
    return _limited(splines() @ coefficients, LIMIT_PX), _limited(lacking, WIDTH_LIMIT_PX)


def windows(profile: Profile, samples: NDArray[np.int64]) -> Profile:
    """Cut the windows (N, 346) around samples (N,) of a scaled profile (105, 49), and append their places."""
    near = samples[:, np.newaxis] + WINDOW
    cut = along(profile, _ALONG_PROFILE).take(near, axis=0, mode="clip").reshape(len(samples), -1)
    return np.concatenate([cut, parts()[SAMPLED[samples]]], axis=1)


def mirrored(cut: Profile) -> Profile:
    """Return the windows (N, 346) of the mirrored image."""
    seen = cut[:, :-PARTS].reshape(len(cut), len(WINDOW), -1)[:, :, ::-1]
    return np.concatenate([seen.reshape(len(cut), -1), cut[:, -PARTS:]], axis=1)


def _rectified(values: Profile, bias: Profile) -> Profile:
    """Add a bias and take what is positive, in place."""
    values += bias
    return np.maximum(values, 0, out=values)


def _limited(values: Array, most: float) -> Array:
    # roots and squares take a tenth of the time of powers
    squared = (values / most) ** 2
    smaller: Array = values / np.sqrt(np.sqrt(1 + squared * squared))
    return smaller


def scaled_profile(crop: NDArray[np.float32], centre: Array, half_width: Array) -> tuple[Profile, Array]:
    """Sample a crop across a curve.

    Parameters
    ----------
    crop : (224, 224) array
        Grey values in [0, 1].
    centre, half_width : (105,) arrays
        Of the sampled rows, as for `errors_px`.

    Returns
    -------
    profile : (105, 49) float32 array
        Grey along the normal from -2.4 to 2.4 half-widths, left to right: 0 that of the surroundings, 1 that of the
        column.
    seen : (105,) array
        Weight of the row from 0 to 1: large where the column is brighter than uniform surroundings.
    """
    # OpenCV takes long to import, and loading a bundle needs this module
    import cv2

    slope = gradient(centre, float(SAMPLED[1]))
    # the horizontal width is wider than that along the normal
    across = np.multiply.outer((half_width / (1 + slope * slope)).astype(np.float32), _OFFSETS_32)
    columns = centre.astype(np.float32)[:, np.newaxis] + across
    rows = _SAMPLED_ROWS - slope.astype(np.float32)[:, np.newaxis] * across
    grey = cv2.remap(crop, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    means = along(grey @ _MEAN_WEIGHTS, _ALONG_CONTRAST)
    above = grey - means[:, 1:]
    clutter = along(above**2 @ _MEAN_WEIGHTS[:, 1], _ALONG_CONTRAST)
    contrast = np.maximum(means[:, 0] - means[:, 1], 0)
    squared = contrast**2
    seen = squared / (squared + _HALF_CONTRAST**2 + _CLUTTER * clutter)
    above /= np.maximum(contrast, _LEAST_CONTRAST)[:, np.newaxis]
    return np.clip(above, *_CLIP, out=above), seen.astype(np.float64)


def along(values: NDArray[np.floating[Any]], deviation: float) -> NDArray[Any]:
    """Average (105,) or (105, K) values along the curve with a Gaussian of `deviation` samples."""
    columns = values.astype(np.float32, copy=False)
    if values.ndim == 1:
        return product(_gaussian(deviation), columns[:, np.newaxis])[:, 0]
    return product(_gaussian(deviation), columns)


def smoothed(values: Array) -> Array:
    """Project (209,) or (209, K) values on the splines."""
    smooth: Array = splines() @ (_projection() @ values)
    return smooth


@lru_cache(maxsize=1)
def parts() -> Profile:
    """Return (209, 3) weights of the parts of the curve in each row, linear between the middles of the parts."""
    middles = (np.arange(PARTS) + 0.5) * ROWS / PARTS
    return np.stack([np.interp(np.arange(ROWS), middles, part) for part in np.eye(PARTS)], axis=1).astype(np.float32)


@lru_cache(maxsize=4)
def _gaussian(deviation: float) -> Profile:
    """Return the (105, 105) matrix that averages along the samples; at the ends over fewer samples."""
    samples = np.arange(SAMPLED.size)
    weights = np.exp(-(((samples[:, np.newaxis] - samples) / deviation) ** 2) / 2)
    # numbers below float32's normal ones take ten times as long to multiply
    weights[weights < 1e-20] = 0
    matrix: Profile = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


@lru_cache(maxsize=1)
def splines() -> Array:
    """Return (209, 20) cubic B-splines on 18 even knots from the first row to the last (de Boor's recursion)."""
    inner = np.linspace(0, 1, _KNOTS)
    knots = np.concatenate([np.zeros(_DEGREE), inner, np.ones(_DEGREE)])
    t = np.minimum(np.linspace(0, 1, ROWS), 1 - 1e-12)[:, np.newaxis]
    values = ((t >= knots[:-1]) & (t < knots[1:])).astype(np.float64)
    for degree in range(1, _DEGREE + 1):
        width = knots[degree:] - knots[:-degree]
        share = (t - knots[:-degree]) / np.where(width > 0, width, np.inf)
        values = share[:, :-1] * values[:, :-1] + np.where(width > 0, 1 - share, 0)[:, 1:] * values[:, 1:]
    return values


@lru_cache(maxsize=1)
def _penalty() -> Array:
    """Return the (20, 20) matrix of what a shift costs: its squared second differences, and a little its size."""
    second, basis = np.diff(splines(), n=2, axis=0), splines()
    row = np.arange(len(second))
    cost = np.where(np.minimum(row, row[::-1]) < _END_ROWS, _END_SMOOTHNESS, 1.0)
    matrix: Array = _SMOOTHNESS * (second.T * cost) @ second + _RIDGE * (basis.T @ basis)
    return matrix


@lru_cache(maxsize=1)
def _projection() -> Array:
    """Return the (20, 209) matrix that gives the coefficients of the nearest sum of splines."""
    return np.linalg.pinv(splines()).astype(np.float64)
