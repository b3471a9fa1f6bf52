"""Files of pairs made from phantoms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.studies.independent_pairs import write_files
from export.training.alignment.pairs import COLUMNS, PairFiles
from export.training.alignment.phantom_mri import DIXON, Grid, make_mri, scan_offset_mm
from export.training.alignment.rigid import Placement
from export.training.phantoms.phantom import Phantom

# a quarter of Dixon's voxels in the plane of a section
COARSE = Grid(shape=(112, 87, 278), voxel_mm=(4.464, 4.464, 4.0), first_mm=(-249.0, -234.0, -790.0))


def lying(phantom: Phantom, angle: float) -> Placement:
    """Return where an MRI lies in the scan that is turned by an angle and shifted by 12 and -25 mm."""
    return Placement.about(angle, np.array([12.0, -25.0]), scan_offset_mm(phantom))


def scan_spine_mask(phantom: Phantom) -> NDArray[np.uint8]:
    """Return the spine in the frame of a phantom's scan, (rows, columns), 0 or 255."""
    z, x = phantom.framing.grid()
    curves = phantom.curves_at(z[:, 0])
    top, bottom = (end[2] for end in phantom.trunk_ends)
    inside = (x > curves[:, :1]) & (x < curves[:, 2:3]) & (z < top) & (z > bottom)
    return np.where(inside, 255, 0).astype(np.uint8)


def write_pair(folder: Path, name: str, phantom: Phantom, placement: Placement, grid: Grid = DIXON) -> PairFiles:
    """Write the four files of a pair."""
    volume, mask = make_mri(phantom, placement, np.random.default_rng(1), grid)
    return write_files(folder, name, phantom, scan_spine_mask(phantom), volume, mask, grid)


def write_list(path: Path, pairs: list[PairFiles]) -> None:
    """Write the list of pairs."""
    lines = [",".join(str(getattr(pair, column)) for column in COLUMNS) for pair in pairs]
    path.write_text("\n".join([",".join(COLUMNS), *lines]), encoding="utf-8")
