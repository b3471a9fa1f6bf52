"""Reconstruct the 3D spine from the six curves of the network.

Bourigault, Jamaludin and Zisserman, MICCAI 2024: x comes from the coronal curves, y from the sagittal
curves, and both share z. A cross-section is taken as a horizontal ellipse between the coronal and the
sagittal borders.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_spine.errors import Refusal
from edge_spine.network import CROP_SIZE, CURVE_ROWS, ROWS, CropPlacement

RING_POINTS = 48
# a cubic over 11 rows (about 24 mm) halves the row-to-row jitter and still follows the waists of the vertebrae
SMOOTHING_WINDOW = 11
SMOOTHING_DEGREE = 3
_HALF = SMOOTHING_WINDOW // 2
# rows that give the direction in which a curve is continued
_END_ROWS = 20
_BASIS = np.vander(np.arange(-_HALF, _HALF + 1) / _HALF, SMOOTHING_DEGREE + 1)
# (11, 11): from the values in a window to those of their cubic
_WINDOW_FIT: NDArray[np.float64] = _BASIS @ np.linalg.pinv(_BASIS)


@dataclass(frozen=True, eq=False)
class Curves:
    """The six curves of one scan, in millimetres, not smoothed.

    Attributes
    ----------
    z : (209,) array
        Height of each row, mm, head up: decreasing; 0 at the scan's first row.
    coronal : (209, 3) array
        x of left border, centre and right border of the image, mm, growing to the patient's left; 0 at the
        scan's first column.
    sagittal : (209, 3) array
        y of anterior border, centre and posterior border, mm, growing to posterior; 0 at the mean of the
        centre.
    """

    z: NDArray[np.float64]
    coronal: NDArray[np.float64]
    sagittal: NDArray[np.float64]

    def between(self, top: float, bottom: float) -> Curves:
        """Return the curves at 209 even heights from `top` to `bottom`, mm; y is 0 at the mean of the new centre.

        They are linear between rows, and straight beyond the first and the last row, as their outermost rows run.
        """
        z = np.linspace(top, bottom, len(self.z))
        found = _resampled(self.z, np.concatenate([self.coronal, self.sagittal], axis=1), z)
        return Curves(z, found[:, :3], found[:, 3:] - found[:, 4].mean())


@dataclass(frozen=True, eq=False)
class Spine:
    """A spine as a stack of horizontal ellipses, in the patient frame (DICOM LPS, mm).

    Raise ValueError where shapes disagree, there are fewer than two rows, or z does not decrease.

    Attributes
    ----------
    centreline : (N, 3) array
        x, y, z of the centres, from the top down: z strictly decreasing.
    half_width : (N,) array
        Half-axis along x, mm.
    half_depth : (N,) array
        Half-axis along y, mm.
    """

    centreline: NDArray[np.float64]
    half_width: NDArray[np.float64]
    half_depth: NDArray[np.float64]

    def __post_init__(self) -> None:
        rows = self.half_width.shape[0] if self.half_width.ndim == 1 else -1
        if rows < 2 or self.centreline.shape != (rows, 3) or self.half_depth.shape != (rows,):
            raise ValueError(
                f"centreline {self.centreline.shape}, half_width {self.half_width.shape} and half_depth "
                f"{self.half_depth.shape} do not match; expected (N, 3), (N,) and (N,) with N >= 2"
            )
        if not np.all(np.diff(self.centreline[:, 2]) < 0):
            raise ValueError("z of a centreline must decrease strictly from its first row to its last")

    @property
    def length_mm(self) -> float:
        """Length of the 3D centreline, mm."""
        return float(np.linalg.norm(np.diff(self.centreline, axis=0), axis=1).sum())

    @property
    def volume_ml(self) -> float:
        """Volume between the first and the last row, ml.

        Half-axes run linearly between rows; by Cavalieri's principle the centres do not matter.
        """
        a, b = self.half_width, self.half_depth
        step = -np.diff(self.centreline[:, 2])
        products = 2 * a[:-1] * b[:-1] + 2 * a[1:] * b[1:] + a[:-1] * b[1:] + a[1:] * b[:-1]
        return float(np.pi * (step * products).sum() / 6 / 1000)

    def mesh(self) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Build the closed surface.

        Returns
        -------
        vertices : (N * 48 + 2, 3) array
            mm, LPS: a ring of 48 points per row, from the top down, then the centres of the two end caps.
        faces : (N * 96, 3) int array
            Triangles, counter-clockwise seen from outside. Watertight: each edge is in two faces, once in
            each direction. The enclosed volume is 0.3 % below `volume_ml`, since the rings are polygons.
        """
        rows = self.centreline.shape[0]
        angle = 2 * np.pi * np.arange(RING_POINTS) / RING_POINTS
        rings = np.repeat(self.centreline[:, np.newaxis, :], RING_POINTS, axis=1)
        rings[:, :, 0] += self.half_width[:, np.newaxis] * np.cos(angle)
        rings[:, :, 1] += self.half_depth[:, np.newaxis] * np.sin(angle)
        vertices = np.concatenate([rings.reshape(-1, 3), self.centreline[[0, -1]]])

        index = np.arange(rows * RING_POINTS, dtype=np.int32).reshape(rows, RING_POINTS)
        here, onward = index, np.roll(index, -1, axis=1)
        upper, upper_on, lower, lower_on = here[:-1], onward[:-1], here[1:], onward[1:]
        top = np.full(RING_POINTS, index.size, dtype=np.int32)
        faces = [
            np.stack([upper, lower, lower_on], axis=-1).reshape(-1, 3),
            np.stack([upper, lower_on, upper_on], axis=-1).reshape(-1, 3),
            np.stack([top, here[0], onward[0]], axis=-1),
            np.stack([top + 1, onward[-1], here[-1]], axis=-1),
        ]
        return vertices, np.concatenate(faces).astype(np.int32)


def curves_from_output(output: ArrayLike, place: CropPlacement) -> Curves:
    """Convert the network's output to millimetres of the scan.

    Parameters
    ----------
    output : (1254,) array
        One output of the network: 209 rows of coronal left, centre, right, sagittal anterior, centre,
        posterior; crop pixels / 224.
    place : CropPlacement
        Where the crop lies in the scan.

    Returns
    -------
    Curves
        x and z from the centre of the scan's first pixel, y from the mean of the sagittal centre. Not smoothed.

    Raises
    ------
    ValueError
        If the output has another size.
    Refusal
        `implausible-curves` if a value is not finite.
    """
    values = np.asarray(output, dtype=np.float64)
    if values.size != ROWS * 6:
        raise ValueError(f"the network's output has {values.size} values; expected {ROWS * 6}")
    if not np.all(np.isfinite(values)):
        raise Refusal("implausible-curves", "the network's output has values that are not finite numbers")
    crop_mm = values.reshape(ROWS, 6) * (CROP_SIZE * place.model_pixel_mm)
    return Curves(
        z=place.z_mm(CURVE_ROWS),
        coronal=place.corner_mm[1] + crop_mm[:, :3],
        sagittal=crop_mm[:, 3:] - crop_mm[:, 4].mean(),
    )


def _resampled(
    z: NDArray[np.float64], columns: NDArray[np.float64], wanted: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Interpolate columns (N, C) at decreasing heights z (N,) to other heights (K,)."""
    places = np.interp(-wanted, -z, np.arange(float(len(z))))
    above = np.minimum(places.astype(np.intp), len(z) - 2)
    upper, lower = columns.take(above, axis=0), columns.take(above + 1, axis=0)
    found: NDArray[np.float64] = upper + (places - above)[:, np.newaxis] * (lower - upper)
    for outside, end, other in ((wanted > z[0], 0, _END_ROWS), (wanted < z[-1], -1, -1 - _END_ROWS)):
        slope = (columns[end] - columns[other]) / (z[end] - z[other])
        found[outside] = columns[end] + (wanted[outside, np.newaxis] - z[end]) * slope
    return found


def reconstruct(curves: Curves) -> Spine:
    """Build the spine from its curves.

    The curves are smoothed along z with a cubic over a moving window of 11 rows (Savitzky and Golay 1964;
    the first and last five rows take the values of the end windows' cubics). White jitter of 0.3 mm per row
    becomes 0.14 mm, a centreline moves by less than 0.05 mm, a border that waves by 1 mm per lumbar vertebra
    by less than 0.1 mm.

    Parameters
    ----------
    curves : Curves
        Six curves, mm, on evenly spaced rows.

    Returns
    -------
    Spine
        Centres from the two centre columns; half-axes from half the distance between the borders.

    Raises
    ------
    Refusal
        `implausible-curves` if a value is not finite or a width or depth is not positive.
    """
    if not all(np.all(np.isfinite(part)) for part in (curves.z, curves.coronal, curves.sagittal)):
        raise Refusal("implausible-curves", "the curves have values that are not finite numbers")
    _require_positive(curves.coronal[:, 2] - curves.coronal[:, 0], "width")
    _require_positive(curves.sagittal[:, 2] - curves.sagittal[:, 0], "depth")
    smoothed = _smooth(np.concatenate([curves.coronal, curves.sagittal], axis=1))
    coronal, sagittal = smoothed[:, :3], smoothed[:, 3:]
    half_width = (coronal[:, 2] - coronal[:, 0]) / 2
    half_depth = (sagittal[:, 2] - sagittal[:, 0]) / 2
    # smoothing has negative weights: an abrupt change of the width can make it negative
    _require_positive(half_width, "width")
    _require_positive(half_depth, "depth")
    centreline = np.stack([coronal[:, 1], sagittal[:, 1], curves.z], axis=1)
    return Spine(centreline=centreline, half_width=half_width, half_depth=half_depth)


def _require_positive(extent: NDArray[np.float64], name: str) -> None:
    bad = np.flatnonzero(extent <= 0)
    if bad.size:
        raise Refusal(
            "implausible-curves",
            f"the spine's {name} is not positive in {bad.size} of {extent.size} rows (first: row {bad[0]})",
        )


def _smooth(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    smoothed = np.empty(columns.shape)
    smoothed[:_HALF] = _WINDOW_FIT[:_HALF] @ columns[:SMOOTHING_WINDOW]
    smoothed[-_HALF:] = _WINDOW_FIT[_HALF + 1 :] @ columns[-SMOOTHING_WINDOW:]
    for column, values in enumerate(columns.T):
        smoothed[_HALF:-_HALF, column] = np.correlate(values, _WINDOW_FIT[_HALF], "valid")
    return smoothed
