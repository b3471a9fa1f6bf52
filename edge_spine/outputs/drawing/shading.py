"""A shaded picture of the spine's surface, ray by ray, without a graphics library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edge_spine.reconstruct import Spine

# Directions in the viewer's frame: to the right, upwards, towards the viewer.
_KEY_LIGHT = np.array([-0.48, 0.52, 0.71])
_AMBIENT, _DIFFUSE, _SPECULAR, _SHININESS = 0.16, 0.84, 0.30, 28.0


def shade(
    spine: Spine, azimuth_deg: float, z_mm: NDArray[np.float64], across_mm: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Render the stack of horizontal ellipses, seen horizontally and without perspective.

    A horizontal ray meets the surface in the one ellipse at its height, so each pixel is solved in
    closed form. The normal is the gradient of the ellipse's equation, its slope along z included.

    Parameters
    ----------
    spine : Spine
        Centreline (N, 3) and half axes (N,) in mm.
    azimuth_deg : float
        Where the viewer stands: 0 in front of the patient, 90 on the patient's left.
    z_mm : ndarray
        (H,) heights of the rows of pixels.
    across_mm : ndarray
        (W,) places of the columns of pixels, growing to the viewer's right, from the vertical axis
        through the mean of the centreline.

    Returns
    -------
    brightness : ndarray
        (H, W) of 0 to about 1.
    coverage : ndarray
        (H, W) of 0 to 1, how much of a pixel the surface covers.
    """
    order = np.argsort(spine.centreline[:, 2])
    height = spine.centreline[order, 2]
    x, y, a, b = (
        np.interp(z_mm, height, values[order])
        for values in (spine.centreline[:, 0], spine.centreline[:, 1], spine.half_width, spine.half_depth)
    )
    slope_x, slope_y, slope_a, slope_b = (np.gradient(values, z_mm) for values in (x, y, a, b))
    mean = spine.centreline.mean(axis=0)
    sine, cosine = np.sin(np.deg2rad(azimuth_deg)), np.cos(np.deg2rad(azimuth_deg))
    right = np.array([cosine, sine])
    towards = np.array([sine, -cosine])

    middle = (x - mean[0]) * right[0] + (y - mean[1]) * right[1]
    extent = np.sqrt((a * right[0]) ** 2 + (b * right[1]) ** 2)
    pixel_mm = float(np.abs(np.diff(across_mm)).mean())
    offsets = across_mm[np.newaxis, :] - middle[:, np.newaxis]
    coverage = np.clip((extent[:, np.newaxis] - np.abs(offsets)) / pixel_mm + 0.5, 0.0, 1.0)
    coverage[(z_mm < height[0]) | (z_mm > height[-1])] = 0.0

    row, column = np.nonzero(coverage)
    limit = 0.999 * extent[row]
    offset = np.clip(offsets[row, column], -limit, limit)
    qa, qb = (1 / a**2)[row], (1 / b**2)[row]
    # On the ray at "offset" to the right, ((x - cx) / a)^2 + ((y - cy) / b)^2 = 1 is solved for t, the
    # way towards the viewer.
    square = qa * towards[0] ** 2 + qb * towards[1] ** 2
    linear = offset * (qa * right[0] * towards[0] + qb * right[1] * towards[1])
    constant = offset**2 * (qa * right[0] ** 2 + qb * right[1] ** 2) - 1.0
    t = (-linear + np.sqrt(np.maximum(linear**2 - square * constant, 0.0))) / square
    dx = offset * right[0] + t * towards[0]
    dy = offset * right[1] + t * towards[1]

    normal_x, normal_y = dx * qa, dy * qb
    normal_z = -(
        normal_x * slope_x[row]
        + normal_y * slope_y[row]
        + dx * normal_x * (slope_a / a)[row]
        + dy * normal_y * (slope_b / b)[row]
    )
    normal = np.stack(
        [normal_x * right[0] + normal_y * right[1], normal_z, normal_x * towards[0] + normal_y * towards[1]]
    )
    normal /= np.sqrt((normal**2).sum(axis=0))
    light = _KEY_LIGHT / np.linalg.norm(_KEY_LIGHT)
    halfway = light + np.array([0.0, 0.0, 1.0])
    halfway /= np.linalg.norm(halfway)
    diffuse = np.maximum(light @ normal, 0.0)
    glint = np.maximum(halfway @ normal, 0.0) ** _SHININESS
    brightness = np.zeros_like(coverage)
    brightness[row, column] = _AMBIENT + _DIFFUSE * diffuse + _SPECULAR * glint
    return brightness, coverage
