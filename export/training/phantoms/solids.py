"""Integrate density along lines through many solids in closed form.

A solid is an ellipsoid, or an elliptic cylinder cut by two parallel planes. Along a ray parallel to y (the beam
of a scanner seen from the front) the inside of a quadric is one interval and the inside of a slab is another, so
the path through the solid is the overlap of the two, without sampling along the ray. Densities may be negative: a
hollow bone is an outer solid and an inner one of negative density.

The same code runs on NumPy arrays and on torch tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TINY = 1e-6
_FAR = 1e6


@dataclass(frozen=True)
class Solids:
    """A batch of solids.

    Attributes
    ----------
    centre : (N, 3) array
        Centres, mm, LPS.
    axes : (N, 3, 3) array
        Unit vectors of each solid's axes, one per row.
    radii : (N, 3) array
        Half axes, mm. For a cylinder the third is half its length.
    cylinder : (N,) array of bool
        True for an elliptic cylinder along its third axis, False for an ellipsoid.
    density : (N,) array
        g/cm3; may be negative.
    """

    centre: NDArray[np.float32]
    axes: NDArray[np.float32]
    radii: NDArray[np.float32]
    cylinder: NDArray[np.bool_]
    density: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.density)


@dataclass
class SolidBuilder:
    """Collect solids into one batch."""

    _blocks: list[tuple[Any, Any, Any, bool, Any]] = field(default_factory=list)
    _count: int = 0

    def __len__(self) -> int:
        return self._count

    def ellipsoid(self, centre: Any, radii: Any, density: float, axes: Any = None) -> None:
        """Add an ellipsoid; `axes` default to the patient's."""
        self._add(centre, _IDENTITY if axes is None else axes, radii, False, density)

    def cylinder(self, centre: Any, radii: Any, density: float, axes: Any = None) -> None:
        """Add an elliptic cylinder along its third axis; `radii[2]` is half its length."""
        self._add(centre, _IDENTITY if axes is None else axes, radii, True, density)

    def shell(self, centre: Any, radii: Any, wall: float, cortical: float, inside: float, axes: Any = None) -> None:
        """Add an ellipsoid of density `inside` within a wall (mm) of density `cortical`."""
        outer = np.asarray(radii, dtype=np.float64)
        self.ellipsoid(centre, outer, cortical, axes)
        self.ellipsoid(centre, np.maximum(outer - wall, 0.3), inside - cortical, axes)

    def tube(
        self,
        points: NDArray[Any],
        radii: Any,
        cortical: Any,
        inside: Any,
        walls: Any,
        *,
        upright: float = 1.0,
    ) -> None:
        """Add a bent hollow tube.

        Parameters
        ----------
        points : (K, 3) array
            Centreline.
        radii, walls : (K,) array or float
            Radius and wall at each point, mm.
        cortical, inside : (K - 1,) array or float
            Density of wall and marrow along each piece, g/cm3.
        upright : float
            Factor on the radius closest to the patient's long axis; the other radius is divided by it, so that the area
            of the cross-section is unchanged.
        """
        step = np.diff(points, axis=0)
        length = np.linalg.norm(step, axis=1)
        long = length >= 1e-3
        pieces = long.shape
        radius, thick = (_spread(a, (len(points),)) for a in (radii, walls))
        r, wall = ((a[1:] + a[:-1])[long] / 2 for a in (radius, thick))
        outer, inner = (_spread(a, pieces)[long] for a in (cortical, inside))
        axes = _frames_along(step[long] / length[long, None])
        centre, half = (points[1:] + points[:-1])[long] / 2, length[long] / 2
        size = np.stack([r / upright, r * upright, half], axis=1)
        self._add(centre, axes, size, True, outer)
        hollow = size[:, :2].min(axis=1) > wall + 0.3
        size = size - wall[:, None] * [1.0, 1.0, 0.0]
        self._add(centre[hollow], axes[hollow], size[hollow], True, (inner - outer)[hollow])

    def build(self) -> Solids:
        """Return everything added so far as one batch."""
        centre, axes, radii, cylinder, density = zip(*self._blocks, strict=True)
        counts = [len(block) for block in density]
        return Solids(
            np.concatenate(centre, dtype=np.float32),
            np.concatenate(axes, dtype=np.float32),
            np.concatenate(radii, dtype=np.float32),
            np.repeat(np.array(cylinder, dtype=bool), counts),
            np.concatenate(density, dtype=np.float32),
        )

    def _add(self, centre: Any, axes: Any, radii: Any, cylinder: bool, density: Any) -> None:
        values = np.atleast_1d(density)
        shaped = (
            np.asarray(a).reshape(shape) for a, shape in ((centre, (-1, 3)), (axes, (-1, 3, 3)), (radii, (-1, 3)))
        )
        self._blocks.append((*shaped, cylinder, values))
        self._count += len(values)


_IDENTITY = np.eye(3)


def _spread(value: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.asarray(value, dtype=np.float64) + np.zeros(shape)


def frame_along(direction: NDArray[Any]) -> NDArray[np.float64]:
    """Return a (3, 3) orthonormal frame, one axis a row, whose third axis is `direction` (unit length)."""
    dx, dy, dz = direction
    flat = float(np.hypot(dx, dz))
    first = np.array([1.0, 0.0, 0.0]) if flat < 1e-6 else np.array([dz / flat, 0.0, -dx / flat])
    second = np.array([dy * first[2] - dz * first[1], dz * first[0] - dx * first[2], dx * first[1] - dy * first[0]])
    return np.stack([first, second, np.asarray(direction, dtype=np.float64)])


def _frames_along(directions: NDArray[Any]) -> NDArray[np.float64]:
    """Return (N, 3, 3) frames whose third axes are `directions` (N, 3), with the second axis closest to z."""
    dx, dy, dz = directions.T
    flat = np.hypot(dx, dy)
    upright = flat < 1e-6
    size = np.where(upright, 1.0, flat)
    first_x, first_y = np.where(upright, 1.0, -dy / size), np.where(upright, 0.0, dx / size)
    frames = np.empty((len(directions), 3, 3))
    frames[:, 0, 0], frames[:, 0, 1], frames[:, 0, 2] = first_x, first_y, 0.0
    frames[:, 1, 0], frames[:, 1, 1], frames[:, 1, 2] = -dz * first_y, dz * first_x, dx * first_y - dy * first_x
    frames[:, 2] = directions
    return frames


def areal_density(
    solids: Solids, shape: tuple[int, int], pixel_mm: tuple[float, float], top_left_mm: tuple[float, float]
) -> NDArray[np.float32]:
    """Integrate density along y over a pixel grid, in NumPy.

    Parameters
    ----------
    solids : Solids
        Solids to integrate.
    shape : (rows, columns)
        Size of the image.
    pixel_mm : (row, column)
        Pixel pitch.
    top_left_mm : (z, x)
        Centre of the top-left pixel.

    Returns
    -------
    (rows, columns) float32 array
        Areal density, g/cm2.
    """
    pixel, count, table = _spans(solids, shape, pixel_mm, top_left_mm)
    image = np.zeros(shape[0] * shape[1])
    # A few hundred thousand rays fit in the processor's cache.
    ends = np.cumsum(count)
    cuts = np.searchsorted(ends, np.arange(1, int(ends[-1]) // _CHUNK + 1) * _CHUNK) if len(ends) else []
    for part in np.split(np.arange(len(count)), np.unique(cuts)):
        if len(part) == 0:
            continue
        each = slice(part[0], part[-1] + 1)
        along = _along(count[each])
        numbers = [np.repeat(column, count[each]) for column in table[:, each]]
        value = _paths(np, numbers, along.astype(np.float32))
        place = np.repeat(pixel[each], count[each]) + along
        # Solids of a chunk are close together; only their rows are added.
        first = int(place.min()) if len(place) else 0
        added = np.bincount(place - first, weights=value)
        image[first : first + len(added)] += added
    return (image.reshape(shape) / 10.0).astype(np.float32)  # g/cm3 times mm is a tenth of g/cm2


_CHUNK = 200_000


def areal_density_torch(
    solids: Solids,
    shape: tuple[int, int],
    pixel_mm: tuple[float, float],
    top_left_mm: tuple[float, float],
    device: str,
) -> NDArray[np.float32]:
    """Integrate as `areal_density`, with torch on `device`."""
    import torch

    pixel, count, table = _spans(solids, shape, pixel_mm, top_left_mm)
    along = torch.from_numpy(_along(count)).to(device)
    times = torch.from_numpy(count).to(device)
    numbers = [torch.repeat_interleave(torch.from_numpy(column).to(device), times) for column in table]
    value = _paths(torch, numbers, along.to(torch.float32))
    image = torch.zeros(shape[0] * shape[1], dtype=torch.float32, device=device)
    image.index_add_(0, torch.repeat_interleave(torch.from_numpy(pixel).to(device), times) + along, value)
    density: NDArray[np.float32] = (image.reshape(shape) / 10.0).cpu().numpy()
    return density


def _spans(
    solids: Solids, shape: tuple[int, int], pixel_mm: tuple[float, float], top_left_mm: tuple[float, float]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Find the run of pixels of each row that a solid may cover, and the coefficients of its rays.

    Along a ray the inside of a quadric is where y is within `reach` of `middle`, and the inside of a slab where it is
    within `half` of `slab`; reach squared is quadratic in the column, the others are linear.

    Returns
    -------
    pixel : (R,) int64 array
        Index of the first pixel of each run, rows one after the other.
    count : (R,) int64 array
        Length of each run.
    table : (7, R) float32 array
        For each run: reach squared at its first pixel, its slope and its curvature, middle less slab at the first
        pixel, its slope, half, density.
    """
    axes, radii = solids.axes.astype(np.float64), solids.radii.astype(np.float64)
    scaled = axes * radii[:, :, None]
    box = np.where(
        solids.cylinder[:, None],
        np.sqrt((scaled[:, :2] ** 2).sum(1)) + np.abs(scaled[:, 2]),
        np.sqrt((scaled**2).sum(1)),
    )
    row_mm, column_mm = pixel_mm
    row_centre = (top_left_mm[0] - solids.centre[:, 2]) / row_mm
    column_centre = (solids.centre[:, 0] - top_left_mm[1]) / column_mm
    first_row = np.clip(np.ceil(row_centre - box[:, 2] / row_mm), 0, shape[0]).astype(np.int64)
    last_row = np.clip(np.floor(row_centre + box[:, 2] / row_mm) + 1, 0, shape[0]).astype(np.int64)

    weights = 1.0 / radii**2
    weights[solids.cylinder, 2] = 0.0
    quadric = np.einsum("nk,nki,nkj->nij", weights, axes, axes)
    normal = np.where(solids.cylinder[:, None], axes[:, 2], 0.0)
    half = np.where(solids.cylinder, radii[:, 2], _FAR)
    yy = np.maximum(quadric[:, 1, 1], _TINY)
    ny = normal[:, 1]
    ny = np.where(np.abs(ny) < 1e-4, 1e-4, ny)
    # In pixel units: dx columns and dz rows (downwards) from the solid's centre.
    middle_x, middle_z = -quadric[:, 0, 1] * column_mm / yy, quadric[:, 1, 2] * row_mm / yy
    slab_x, slab_z = -normal[:, 0] * column_mm / ny, normal[:, 2] * row_mm / ny
    xx = middle_x**2 - quadric[:, 0, 0] * column_mm**2 / yy
    xz = 2 * middle_x * middle_z + 2 * quadric[:, 0, 2] * column_mm * row_mm / yy
    zz = middle_z**2 - quadric[:, 2, 2] * row_mm**2 / yy

    rows = np.maximum(last_row - first_row, 0)
    which = np.repeat(np.arange(len(solids)), rows)
    row = first_row[which] + _along(rows)
    dz = row - row_centre[which]
    a, b, c = xx[which], xz[which] * dz, (zz[which] * dz**2 + (1.0 / yy)[which])
    # Outline of the quadric on this row; for a cylinder along the row, its bounding box.
    bounded = a < -_TINY / yy[which]
    inside = b**2 - 4 * a * c
    spread = np.sqrt(np.maximum(inside, 0)) / np.where(bounded, -2 * a, 1.0)
    middle = np.where(bounded, b / np.where(bounded, -2 * a, 1.0), 0.0)
    wide = box[which, 0] / column_mm
    low = np.where(bounded, np.maximum(middle - spread, -wide), -wide)
    high = np.where(bounded, np.minimum(middle + spread, wide), wide)
    column = np.clip(np.ceil(column_centre[which] + low), 0, shape[1])
    count = np.clip(np.floor(column_centre[which] + high) + 1, 0, shape[1]) - column
    kept = (count > 0) & ((inside > 0) | ~bounded)
    which, row, column, count, dz = which[kept], row[kept], column[kept], count[kept], dz[kept]
    a, b, c = a[kept], b[kept], c[kept]
    dx = column - column_centre[which]
    apart_x, apart_z = middle_x - slab_x, middle_z - slab_z
    table = [
        c + b * dx + a * dx**2,
        b + 2 * a * dx,
        a,
        apart_x[which] * dx + apart_z[which] * dz,
        apart_x[which],
        (half / np.abs(ny))[which],
        solids.density[which],
    ]
    pixel = row * shape[1] + column.astype(np.int64)
    return pixel, count.astype(np.int64), np.stack(table).astype(np.float32)


def _along(count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the elements of each run from 0."""
    return np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)


def _paths(xp: Any, numbers: list[Any], along: Any) -> Any:
    """Return density times path length along y for each ray; `along` counts pixels from the first of its run."""
    square, slope, curve, apart, apart_slope, half, density = numbers
    reach = xp.sqrt(xp.clip(square + along * (slope + along * curve), 0, None))
    apart = apart + along * apart_slope
    # Relative to the middle, to avoid cancellation for distant slabs.
    inside = xp.minimum(reach, half - apart) + xp.minimum(reach, half + apart)
    return xp.clip(inside, 0, None) * density
