"""A plain pair passes; one that is mirrored, or whose mask holds a neighbour, is skipped with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest

from edge_spine.preprocessing.body import find_body
from edge_spine.preprocessing.intensity import normalise
from export.studies.independent_pairs import ANGLE_LIMIT_DEG, SHIFT_LIMIT_PX, IndependentPair, draw_pair
from export.training.alignment.checks import check_mask, check_sides
from export.training.alignment.curves import track
from export.training.alignment.phantom_mri import Grid
from export.training.alignment.rigid import Placement, Plane
from export.training.alignment.stages import align
from export.training.alignment.volume import PairSkipped, Volume, scan_features
from export.training.phantoms.phantom import make_phantom
from export.training.phantoms.scanner import IDXA

pytestmark = pytest.mark.slow

# as fine as Dixon in the coronal plane
GRID = Grid(shape=(224, 87, 370), voxel_mm=(2.232, 4.464, 3.0))
SEEDS = (50_000_005, 50_000_013)


@dataclass(frozen=True, eq=False)
class Made:
    """An independent pair in memory."""

    mri: Volume
    mask: Volume
    scan: Plane
    scan_spine: Plane
    pair: IndependentPair

    def judged(self) -> Placement:
        pixel_mm = self.pair.phantom.model_pixel_mm
        found = align(self.scan, self.scan_spine, self.mri.projections(), self.mask.thickness(), pixel_mm)
        tracked = track(self.mask, found.spine, pixel_mm)
        check_sides(self.mri, self.mask, self.scan_spine, tracked)
        check_mask(self.scan_spine, tracked)
        return found.spine


@pytest.fixture(scope="module", params=SEEDS)
def made(request: pytest.FixtureRequest) -> Made:
    pair = draw_pair(partial(make_phantom, scanner=IDXA), request.param, GRID)
    phantom = pair.phantom
    spacing, first = phantom.framing.pixel_mm, (GRID.voxel_mm, GRID.first_mm)
    body = find_body(phantom.bone.astype(np.float32))
    scan = scan_features(normalise(body.pixels, body.mask), body.mask, spacing)
    drawn = Plane((pair.scan_mask > 0).astype(np.float32), spacing, (0.0, 0.0))
    return Made(Volume(pair.volume, *first), Volume(pair.mask, *first), scan, drawn, pair)


def test_a_plain_pair_passes_where_it_lies(made: Made) -> None:
    angle_deg, shift_px = made.pair.errors(made.judged())
    assert angle_deg < ANGLE_LIMIT_DEG and shift_px < SHIFT_LIMIT_PX


@pytest.mark.parametrize(
    ("codes", "axes"),
    [
        ({"left-and-right"}, (0,)),
        ({"front-and-back"}, (1,)),
        ({"front-and-back"}, (0, 1)),
        ({"spine-size", "left-and-right"}, (2,)),
        ({"spine-size", "left-and-right"}, (0, 2)),
        ({"spine-size", "front-and-back"}, (1, 2)),
    ],
)
def test_a_mirrored_mri_is_skipped(made: Made, codes: set[str], axes: tuple[int, ...]) -> None:
    mri, mask = (replace(v, values=np.ascontiguousarray(np.flip(v.values, axes))) for v in (made.mri, made.mask))
    with pytest.raises(PairSkipped) as skipped:
        replace(made, mri=mri, mask=mask).judged()
    assert skipped.value.code in codes


def test_a_scan_whose_spine_is_another_is_skipped(made: Made) -> None:
    """Another person, or another posture: a curve of 8 mm more to either side."""
    drawn = made.scan_spine
    rows = np.flatnonzero(drawn.pixels.any(axis=1))
    bend = 8 * np.sin(np.linspace(0, 3 * np.pi, len(rows))) / drawn.pixel_mm[1]
    pixels = drawn.pixels.copy()
    for row, columns in zip(rows, np.round(bend).astype(int), strict=True):
        pixels[row] = np.roll(pixels[row], columns)
    with pytest.raises(PairSkipped) as skipped:
        replace(made, scan_spine=replace(drawn, pixels=pixels)).judged()
    assert skipped.value.code in {"other-curve", "left-and-right"}


def _lower_neck(mask: np.ndarray) -> None:
    top = np.flatnonzero(mask.any(axis=(0, 1)))[-1]
    mask[:, :, top + 1 : top + 1 + round(22 / GRID.voxel_mm[2])] = mask[:, :, top - 3, None]


def _sacrum(mask: np.ndarray) -> None:
    low = np.flatnonzero(mask.any(axis=(0, 1)))[0]
    mask[:, :, low - round(58 / GRID.voxel_mm[2]) : low] = mask[:, :, low + 4, None]


def _without_l5(mask: np.ndarray) -> None:
    low = np.flatnonzero(mask.any(axis=(0, 1)))[0]
    mask[:, :, low : low + round(36 / GRID.voxel_mm[2])] = 0


def _beside(mask: np.ndarray, left_mm: float, front_mm: float, radius_mm: float, share: tuple[float, float]) -> None:
    """Add a vertical vessel or organ to the spine between two shares of its height from below."""
    z = np.flatnonzero(mask.any(axis=(0, 1)))
    x, y = (np.arange(mask.shape[k]) * GRID.voxel_mm[k] for k in (0, 1))
    for row in z[int(share[0] * len(z)) : int(share[1] * len(z))]:
        spine = np.argwhere(mask[:, :, row])
        middle = spine[:, 0].mean() * GRID.voxel_mm[0], spine[:, 1].min() * GRID.voxel_mm[1]
        ring = (x[:, None] - middle[0] - left_mm) ** 2 + (y[None] - middle[1] + front_mm) ** 2 < radius_mm**2
        mask[:, :, row] |= ring.astype(mask.dtype)


def _aorta(mask: np.ndarray) -> None:
    _beside(mask, 12, 9, 11, (0.25, 0.75))


def _long_aorta(mask: np.ndarray) -> None:
    _beside(mask, 12, 9, 11, (0.1, 0.95))


def _processes(mask: np.ndarray) -> None:
    _beside(mask, 0, -60, 22, (0.0, 1.0))


def _kidney(mask: np.ndarray) -> None:
    _beside(mask, 70, -10, 25, (0.1, 0.4))


@pytest.mark.parametrize(
    ("spoil", "codes"),
    [
        (_lower_neck, {"spine-ends"}),
        (_sacrum, {"spine-ends", "spine-too-long"}),
        (_without_l5, {"spine-ends", "spine-not-whole"}),
        (_aorta, {"spine-size"}),
        (_long_aorta, {"spine-size"}),
        (_processes, {"spine-size"}),
        (_kidney, {"mri-mask-pieces", "low-correlation"}),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_a_mask_with_a_neighbour_of_the_spine_is_skipped(
    made: Made, spoil: Callable[[np.ndarray], None], codes: set[str]
) -> None:
    values = made.mask.values.copy()
    spoil(values)
    with pytest.raises(PairSkipped) as skipped:
        replace(made, mask=replace(made.mask, values=values)).judged()
    assert skipped.value.code in codes
