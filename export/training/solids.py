"""Line integrals through many solids at once, in closed form.

A solid is an ellipsoid, or an elliptic cylinder cut by two parallel planes. Along a ray parallel to y (the beam
of a scanner seen from the front) the inside of a quadric is one interval and the inside of a slab is another, so
the path through the solid is the overlap of the two, with no sampling along the ray. Densities may be negative: a
hollow bone is an outer solid and an inner one that takes the marrow's share away.

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
        Unit vectors of each solid's own axes, one a row.
    radii : (N, 3) array
        Half axes, mm. For a cylinder the third is half its length.
    cylinder : (N,) array of bool
        True for an elliptic cylinder along its third axis, False for an ellipsoid.
    density : (N,) array
        g/cm3; negative takes away.
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
    """Collects solids and gives them back as one batch."""

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
            Its path.
        radii, walls : (K,) array or float
            Radius and wall at each point, mm.
        cortical, inside : (K - 1,) array or float
            Density of wall and marrow along each piece, g/cm3.
        upright : float
            Factor on the radius that is as near to the patient's long axis as the path allows; the other one is
            divided by it, so the cross-section keeps its area.
        """
        step = np.diff(points, axis=0)
        length = np.linalg.norm(step, axis=1)
        long = length >= 1e-3
        pieces = long.shape
        radius, thick = (np.broadcast_to(np.asarray(a, dtype=np.float64), (len(points),)) for a in (radii, walls))
        r, wall = ((a[1:] + a[:-1])[long] / 2 for a in (radius, thick))
        outer, inner = (np.broadcast_to(np.asarray(a, dtype=np.float64), pieces)[long] for a in (cortical, inside))
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
        shaped = np.reshape(centre, (-1, 3)), np.reshape(axes, (-1, 3, 3)), np.reshape(radii, (-1, 3))
        self._blocks.append((*shaped, cylinder, values))
        self._count += len(values)


_IDENTITY = np.eye(3)


def frame_along(direction: NDArray[Any]) -> NDArray[np.float64]:
    """Return a (3, 3) orthonormal frame, one axis a row, whose third axis is `direction` (unit length)."""
    dx, dy, dz = direction
    flat = float(np.hypot(dx, dz))
    first = np.array([1.0, 0.0, 0.0]) if flat < 1e-6 else np.array([dz / flat, 0.0, -dx / flat])
    second = np.array([dy * first[2] - dz * first[1], dz * first[0] - dx * first[2], dx * first[1] - dy * first[0]])
    return np.stack([first, second, np.asarray(direction, dtype=np.float64)])


def _frames_along(directions: NDArray[Any]) -> NDArray[np.float64]:
    """Return (N, 3, 3) frames whose third axes are `directions` (N, 3), their second as near to z as can be."""
    across = np.cross([0.0, 0.0, 1.0], directions)
    size = np.linalg.norm(across, axis=1, keepdims=True)
    first = np.where(size < 1e-6, [1.0, 0.0, 0.0], across / np.maximum(size, 1e-6))
    return np.stack([first, np.cross(directions, first), directions], axis=1)


def areal_density(
    solids: Solids, shape: tuple[int, int], pixel_mm: tuple[float, float], top_left_mm: tuple[float, float]
) -> NDArray[np.float32]:
    """Integrate density along y over a pixel grid, in NumPy.

    Parameters
    ----------
    solids : Solids
        What the beam goes through.
    shape : (rows, columns)
        Size of the image.
    pixel_mm : (row, column)
        Pixel pitch.
    top_left_mm : (z, x)
        Place of the centre of the top-left pixel.

    Returns
    -------
    (rows, columns) float32 array
        Areal density, g/cm2.
    """
    window = _windows(solids, shape, pixel_mm, top_left_mm)
    image = np.zeros(shape[0] * shape[1], dtype=np.float32)
    # a few hundred thousand rays at a time stay in the processor's cache
    ends = np.cumsum(window.size)
    cuts = np.searchsorted(ends, np.arange(1, int(ends[-1]) // _CHUNK + 1) * _CHUNK) if len(ends) else []
    for part in np.split(np.arange(len(solids)), np.unique(cuts)):
        if len(part) == 0:
            continue
        which, row, column = _rays(window, part)
        value = _paths(np, window.coefficients[part], which, row, column)
        image += np.bincount(row * shape[1] + column, weights=value, minlength=image.size).astype(np.float32)
    return image.reshape(shape) / 10.0  # g/cm3 times mm is a tenth of g/cm2


_CHUNK = 400_000


def areal_density_torch(
    solids: Solids,
    shape: tuple[int, int],
    pixel_mm: tuple[float, float],
    top_left_mm: tuple[float, float],
    device: str,
) -> NDArray[np.float32]:
    """Do what `areal_density` does, with torch on `device`."""
    import torch

    window = _windows(solids, shape, pixel_mm, top_left_mm)
    which, row, column = (torch.from_numpy(a).to(device) for a in _rays(window, np.arange(len(solids))))
    coefficients = torch.from_numpy(window.coefficients).to(device)
    value = _paths(torch, coefficients, which, row, column)
    image = torch.zeros(shape[0] * shape[1], dtype=torch.float32, device=device)
    image.index_add_(0, row * shape[1] + column, value.to(torch.float32))
    density: NDArray[np.float32] = (image.reshape(shape) / 10.0).cpu().numpy()
    return density


@dataclass(frozen=True)
class _Windows:
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    width: NDArray[np.int64]
    size: NDArray[np.int64]
    coefficients: NDArray[np.float32]


def _windows(
    solids: Solids, shape: tuple[int, int], pixel_mm: tuple[float, float], top_left_mm: tuple[float, float]
) -> _Windows:
    """Find each solid's pixel window and the numbers that its rays need, with pixel units folded in."""
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
    first_column = np.clip(np.ceil(column_centre - box[:, 0] / column_mm), 0, shape[1]).astype(np.int64)
    last_column = np.clip(np.floor(column_centre + box[:, 0] / column_mm) + 1, 0, shape[1]).astype(np.int64)
    width = np.maximum(last_column - first_column, 0)
    height = np.maximum(last_row - first_row, 0)

    weights = 1.0 / radii**2
    weights[solids.cylinder, 2] = 0.0
    quadric = np.einsum("nk,nki,nkj->nij", weights, axes, axes)
    normal = np.where(solids.cylinder[:, None], axes[:, 2], 0.0)
    half = np.where(solids.cylinder, radii[:, 2], _FAR)
    yy = np.maximum(quadric[:, 1, 1], _TINY)
    ny = normal[:, 1]
    ny = np.where(np.abs(ny) < 1e-4, 1e-4, ny)
    coefficients = np.stack(
        [
            row_centre,
            column_centre,
            quadric[:, 0, 1] * column_mm / yy,
            -quadric[:, 1, 2] * row_mm / yy,
            quadric[:, 0, 0] * column_mm**2 / yy,
            -2 * quadric[:, 0, 2] * column_mm * row_mm / yy,
            quadric[:, 2, 2] * row_mm**2 / yy,
            1.0 / yy,
            normal[:, 0] * column_mm / ny,
            -normal[:, 2] * row_mm / ny,
            half / np.abs(ny),
            solids.density,
        ],
        axis=1,
    ).astype(np.float32)
    return _Windows(first_row, first_column, width, width * height, coefficients)


def _rays(window: _Windows, part: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """List every (solid, row, column) of the windows of `part`; solids are numbered within it."""
    size = window.size[part]
    which = np.repeat(np.arange(len(part)), size)
    local = np.arange(int(size.sum())) - np.repeat(np.cumsum(size) - size, size)
    width = np.maximum(window.width[part], 1)[which]
    down = local // width
    return which, window.row[part][which] + down, window.column[part][which] + local - down * width


def _paths(xp: Any, coefficients: Any, which: Any, row: Any, column: Any) -> Any:
    """Return density times path length along y for each ray."""
    c = coefficients[which].T
    dx, dz = column - c[1], row - c[0]
    if xp is np:
        dx, dz = dx.astype(np.float32), dz.astype(np.float32)
    middle = -(c[2] * dx + c[3] * dz)
    spread = middle * middle - (c[4] * dx * dx + c[5] * dx * dz + c[6] * dz * dz - c[7])
    reach = xp.sqrt(xp.clip(spread, 0, None))
    slab = -(c[8] * dx + c[9] * dz)
    far = xp.minimum(middle + reach, slab + c[10])
    near = xp.maximum(middle - reach, slab - c[10])
    return xp.clip(far - near, 0, None) * (spread > 0) * c[11]
