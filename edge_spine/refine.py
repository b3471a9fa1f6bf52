"""Shift the coronal curves to the borders of the vertebral bodies in the image.

The crop is sampled across the network's centreline, along its normal, from -2.4 to 2.4 half-widths, and each row is
scaled by the contrast of the column against its surroundings. A filter fitted on people turns the profile beyond and
inside a border into the distance of that border; the other border has the same filter, mirrored. The two borders move
together: what they have in common is the shift of the centre; what they differ by, averaged along the curve, tells the
error of the half-width by a line that was fitted on people. The shift is a cubic spline with a knot about every 12 rows
(25 mm, a vertebra), by least squares against its squared second differences, with weights: contrast against clutter,
and Cauchy's for each border, so that ribs, clavicles and metal count less. The image is sampled once more along the
shifted line.

Fallback: of each half-wave of the shift (a term of its cosine transform along the curve) only a share that was fitted
on people is kept: none where the image does not tell more than the network knows. No shift reaches `LIMIT_PX`. Where
the column has no contrast the weights vanish and so does the shift. Every step is continuous in the image and in the
network's output, and commutes with mirroring left and right.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.network import CROP_SIZE, CURVE_ROWS, ROWS

SCHEMA = "edge-spine/refine/1"
# parts of the curve from the top down, each with a filter, and values of a filter: distances from the centreline of 0.1
# to 2.4 half-widths
PARTS, TAPS = 3, 24
# half-waves over the curve, from 0, of which a share is kept; none is kept of shorter waves
HALF_WAVES = 16
# no shift of the centre is as large
LIMIT_PX = 5.0
# nor changes a half-width as much
WIDTH_LIMIT_PX = 2.5

Array = NDArray[np.float64]
Profile = NDArray[np.float32]

_KNOTS = 18
_DEGREE = 3
_PASSES = 2
# share of the filters' shift that a pass applies: a full step overshoots where both borders are blurred
_STEP = 0.75
# SD in rows of the Gaussian along the curve: for the borders' distances, the contrast, and the error of the width
_ALONG_BORDER, _ALONG_CONTRAST, _ALONG_WIDTH = 4.0, 15.0, 25.0
# half-widths that lie inside the column and outside of it
_INSIDE, _OUTSIDE = 0.8, 1.3
# places of a profile across the column, half-widths, and the (49, 2) weights of its means inside and outside
_OFFSETS: Array = np.arange(-TAPS, TAPS + 1) / 10
_CHOSEN = np.stack([np.abs(_OFFSETS) < _INSIDE - 1e-9, np.abs(_OFFSETS) > _OUTSIDE + 1e-9], axis=1).astype(np.float64)
_MEAN_WEIGHTS: Profile = (_CHOSEN / _CHOSEN.sum(axis=0)).astype(np.float32)
# contrast in grey values of 0 to 1: the least that profiles are divided by, and the one that gets half weight
_LEAST_CONTRAST, _HALF_CONTRAST = 0.03, 0.1
# Variance of the surroundings against squared contrast: one SD of a tenth of the contrast takes a tenth of the weight.
_CLUTTER = 10.0
# scaled profiles are clipped, so that metal does not outweigh the bone beside it
_CLIP = (-1.0, 2.0)
# weight of the squared shift, which keeps the equations solvable where the image shows nothing
_RIDGE = 0.02


@dataclass(frozen=True)
class Refinement:
    """Parameters of the refinement in a bundle.

    Attributes
    ----------
    filters : tuple of tuple of float
        (3, 24) weights from a scaled profile, from the centreline outwards, to the distance of the border, half-widths.
    smoothness : float
        Weight of the squared second differences of the shift (pixels per row and row) against squared pixels.
    outlier : float
        Distance of a border, half-widths, at which its weight is halved.
    shares : tuple of float
        (16,) share of each half-wave of the shift that is kept, 0 to 1.
    width_share : float
        How the borders' common distance counts as an error of the half-width, 0 to 1; 0 leaves the network's width.
    width_offsets : tuple of float
        (3,) what is added to it in each part of the curve, half-widths: a border does not lie at the filter's zero.
    """

    filters: tuple[tuple[float, ...], ...]
    smoothness: float
    outlier: float
    shares: tuple[float, ...]
    width_share: float
    width_offsets: tuple[float, ...]


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
    half_width = smoothed(columns[:, 2] - columns[:, 0]) * (CROP_SIZE / 2)
    if half_width.min() <= 0:
        return output
    shift, wider = errors_px(tensor[0, 0], smoothed(columns[:, 1]) * CROP_SIZE, half_width, refinement)
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
    shift, wider = seen_px(crop, centre, half_width, refinement)
    waves = half_waves()
    kept = waves @ (np.array(refinement.shares) * (waves.T @ shift))
    lacking = refinement.width_share * wider + half_width * (parts() @ np.array(refinement.width_offsets))
    return _limited(kept, LIMIT_PX), _limited(lacking, WIDTH_LIMIT_PX)


def _limited(values: Array, most: float) -> Array:
    smaller: Array = values / (1 + (values / most) ** 4) ** 0.25
    return smaller


def seen_px(crop: NDArray[np.float32], centre: Array, half_width: Array, refinement: Refinement) -> tuple[Array, Array]:
    """Return the shift and the common distance (209,) of the borders that the filters find.

    Parameters and units are those of `errors_px`, which then applies shares, line and limits.
    """
    basis, bending = splines(), _bending()
    penalty = refinement.smoothness * bending + _RIDGE * (basis.T @ basis)
    filters = _filter_rows(refinement.filters)
    shift = wider = np.zeros(ROWS)
    for _ in range(_PASSES):
        profile, seen = scaled_profile(crop, centre + shift, half_width)
        left, right = sides(profile)
        answers = np.stack([np.einsum("ij,ij->i", side, filters) for side in (left, right)], axis=1)
        outwards = along(answers, _ALONG_BORDER) * (2 * _STEP * half_width)[:, np.newaxis]
        wider = along(outwards.mean(axis=1), _ALONG_WIDTH)
        # both positive to the right of the image
        borders = (outwards - wider[:, np.newaxis]) * (-1, 1)
        weights = seen[:, np.newaxis] / (1 + (borders / (refinement.outlier * half_width)[:, np.newaxis]) ** 2)
        weight = weights.mean(axis=1)
        wanted = weight * shift + (weights * borders).mean(axis=1)
        weighted = basis * weight[:, np.newaxis]
        shift = basis @ np.linalg.solve(weighted.T @ basis + penalty, basis.T @ wanted)
    return shift, wider


def scaled_profile(crop: NDArray[np.float32], centre: Array, half_width: Array) -> tuple[Profile, Array]:
    """Sample a crop across a curve.

    Parameters
    ----------
    crop, centre, half_width : arrays
        As for `errors_px`.

    Returns
    -------
    profile : (209, 49) float32 array
        Grey along the normal from -2.4 to 2.4 half-widths, left to right: 0 that of the surroundings, 1 that of the
        column.
    seen : (209,) array
        Weight of the row from 0 to 1: large where the column is brighter than uniform surroundings.
    """
    # the manifest's rules need this module, and OpenCV takes long to import
    import cv2

    slope = np.gradient(centre)
    cosine = 1 / np.sqrt(1 + slope**2)
    # the horizontal width is wider than that along the normal
    across = (half_width * cosine**2)[:, np.newaxis] * _OFFSETS
    columns = (centre[:, np.newaxis] + across).astype(np.float32)
    rows = (CURVE_ROWS[:, np.newaxis] - slope[:, np.newaxis] * across).astype(np.float32)
    grey = cv2.remap(crop, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    means = along(grey @ _MEAN_WEIGHTS, _ALONG_CONTRAST)
    above = grey - means[:, 1:].astype(np.float32)
    clutter = along(above**2 @ _MEAN_WEIGHTS[:, 1], _ALONG_CONTRAST)
    contrast = np.maximum(means[:, 0] - means[:, 1], 0)
    seen: Array = contrast**2 / (contrast**2 + _HALF_CONTRAST**2 + _CLUTTER * clutter)
    profile = above / np.maximum(contrast, _LEAST_CONTRAST)[:, np.newaxis].astype(np.float32)
    return np.minimum(np.maximum(profile, _CLIP[0], out=profile), _CLIP[1], out=profile), seen


def sides(profile: Profile) -> tuple[Profile, Profile]:
    """Return the left and right half (209, 24) of a profile, each from the centreline outwards."""
    return profile[:, TAPS - 1 :: -1], profile[:, TAPS + 1 :]


def along(values: NDArray[np.floating[Any]], deviation: float = _ALONG_BORDER) -> Array:
    """Average (209,) or (209, K) values along the curve with a Gaussian of `deviation` rows."""
    smooth: Array = _gaussian(deviation) @ values
    return smooth


def smoothed(values: Array) -> Array:
    """Project (209,) values on the splines."""
    smooth: Array = _projection() @ values
    return smooth


@lru_cache(maxsize=1)
def parts() -> Array:
    """Return (209, 3) weights of the parts of the curve in each row, linear between the middles of the parts."""
    middles = (np.arange(PARTS) + 0.5) * ROWS / PARTS
    weights: Array = np.stack([np.interp(np.arange(ROWS), middles, part) for part in np.eye(PARTS)], axis=1)
    return weights


@lru_cache(maxsize=4)
def _filter_rows(filters: tuple[tuple[float, ...], ...]) -> Profile:
    """Return the (209, 24) filters of the rows."""
    rows: Profile = (parts() @ np.array(filters)).astype(np.float32)
    return rows


@lru_cache(maxsize=4)
def _gaussian(deviation: float) -> Array:
    """Return the (209, 209) matrix that averages along the rows; at the ends over fewer rows."""
    rows = np.arange(ROWS)
    weights = np.exp(-(((rows[:, np.newaxis] - rows) / deviation) ** 2) / 2)
    matrix: Array = weights / weights.sum(axis=1, keepdims=True)
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
def half_waves() -> Array:
    """Return (209, 16) orthonormal cosines along the rows, of 0 to 15 half-waves (the DCT-II)."""
    waves = np.cos(np.pi * (np.arange(ROWS)[:, np.newaxis] + 0.5) / ROWS * np.arange(HALF_WAVES))
    normal: Array = waves / np.linalg.norm(waves, axis=0)
    return normal


@lru_cache(maxsize=1)
def _bending() -> Array:
    """Return the (20, 20) matrix of the sum of squared second differences along the rows."""
    second = np.diff(splines(), n=2, axis=0)
    matrix: Array = second.T @ second
    return matrix


@lru_cache(maxsize=1)
def _projection() -> Array:
    """Return the (209, 209) projection on the splines."""
    projection: Array = splines() @ np.linalg.pinv(splines())
    return projection
