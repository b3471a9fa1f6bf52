"""Shade the surface of the spine, one ray a pixel."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edge_spine.outputs.drawing import palette
from edge_spine.outputs.drawing.canvas import Image
from edge_spine.outputs.drawing.end_lines import DRAWN_FROM_DEG
from edge_spine.reconstruct import Spine
from edge_spine.result import SpineResult

# Directions in the viewer's frame: to the right, upwards, towards the viewer.
_KEY_LIGHT = np.array([-0.48, 0.52, 0.71])
_AMBIENT, _DIFFUSE, _SPECULAR, _SHININESS = 0.16, 0.84, 0.30, 28.0


def shade(
    spine: Spine, azimuth_deg: float, z_mm: NDArray[np.float64], across_mm: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shade the stack of horizontal ellipses as seen horizontally, without perspective.

    A horizontal ray meets the surface in the ellipse at its height, so each pixel has a closed form. The normal is
    the gradient of the ellipse's equation, with its change along z. The viewer is in front of the patient at an
    azimuth of 0, at the patient's left at 90. `z_mm` (H,) are the rows of pixels, `across_mm` (W,) the columns, to
    the viewer's right of the mean of the centreline. Return the brightness (H, W), 0 to about 1, and the share (H,
    W) of each pixel that the surface covers.
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
    # Solve ((x - cx) / a)^2 + ((y - cy) / b)^2 = 1 for t, the distance towards the viewer along the ray at `offset`.
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


def surface_picture(
    result: SpineResult, azimuth_deg: float, z_mm: NDArray[np.float64], across_mm: NDArray[np.float64]
) -> Image:
    """Return the surface that `shade` lights, in the colours of `largest_curve_tint`: BGR (H, W, 3) on black."""
    brightness, coverage = shade(result.spine, azimuth_deg, z_mm, across_mm)
    light, tint = (brightness * coverage).astype(np.float32), largest_curve_tint(result, z_mm).astype(np.float32)
    picture: Image = np.empty((*light.shape, 3), np.uint8)
    for channel, plane in enumerate(tint.T[::-1, :, np.newaxis]):
        picture[..., channel] = np.minimum(light * plane, 255)
    return picture


def span_across(result: SpineResult, azimuth_deg: float) -> tuple[float, float]:
    """Return how far the spine reaches to a viewer's left and right of its mean, mm; the azimuth is that of `shade`."""
    away = result.spine.centreline - result.spine.centreline.mean(axis=0)
    cosine, sine = math.cos(math.radians(azimuth_deg)), math.sin(math.radians(azimuth_deg))
    across = away[:, 0] * cosine + away[:, 1] * sine
    reach = np.hypot(result.spine.half_width * cosine, result.spine.half_depth * sine)
    return float((across - reach).min()), float((across + reach).max())


def largest_curve_tint(result: SpineResult, z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a colour, (H, 3) RGB from 0 to 255, for each z (mm): bone, and orange along the largest curve."""
    bone, accent = np.array(palette.BONE, float), np.array(palette.ORANGE, float)
    curves = result.measurements.scoliosis_curves
    if not curves or curves[0].cobb_deg < DRAWN_FROM_DEG:
        return np.tile(bone, (z.size, 1))
    upper, lower = (result.spine.centreline[row, 2] for row in (curves[0].upper_end, curves[0].lower_end))
    inside = np.clip(np.minimum(upper - z, z - lower) / 15 + 0.5, 0, 1)[:, np.newaxis]
    mixed: NDArray[np.float64] = bone + 0.6 * inside * (accent - bone)
    return mixed
