"""Measure how well the alignment recovers known transforms of phantoms with faulty masks.

`python -m export.studies.align_check --count 200` prints the errors.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_spine.preprocessing.body import find_body
from edge_spine.preprocessing.intensity import normalise
from export.training.agreement import wilson
from export.training.alignment.phantom_mri import DIXON, Grid, make_mri, scan_offset_mm
from export.training.alignment.rigid import STILL, Placement, Plane
from export.training.alignment.stages import Alignment, align
from export.training.alignment.volume import Volume, scan_features
from export.training.phantoms.phantom import Phantom, make_phantom

ANGLE_LIMIT_DEG, SHIFT_LIMIT_PX = 0.2, 1.0
_LEAST_RECOVERED = 0.95
_PHANTOMS = 20
# Of blobs that a faulty mask holds beside the spine.
_LEAST_THICKNESS_MM = 15.0
# Fine in the coronal plane, which is resampled; coarse across it, which is projected.
_SOURCE = Grid(shape=(468, 40, 868), voxel_mm=(1.5, 9.0, 1.5), first_mm=(-350.0, -215.0, -850.0))


@dataclass(frozen=True, eq=False)
class Master:
    """A phantom's scan and the projections of its MRI in the scan's frame, unmodified."""

    phantom: Phantom
    scan: Plane
    projections: tuple[Plane, ...]
    spine: Plane
    thickness: Plane


@dataclass(frozen=True, eq=False)
class Case:
    """Input of one alignment, with the true transform."""

    master: Master
    truth: Placement
    scan: Plane
    scan_spine: Plane
    projections: tuple[Plane, ...]
    mri_spine: Plane

    def solve(self) -> Alignment:
        """Run the alignment."""
        pixel = self.master.phantom.model_pixel_mm
        return align(self.scan, self.scan_spine, self.projections, self.mri_spine, pixel)

    def errors(self, found: Placement) -> tuple[float, float]:
        """Return the errors of angle (degrees) and of the shift of the middle of T1-L5 (canonical pixels)."""
        middle = scan_offset_mm(self.master.phantom)[None]
        away = found.to_scan(self.truth.to_mri(middle)) - middle
        shift = float(np.linalg.norm(away)) / self.master.phantom.model_pixel_mm
        return abs(found.angle_deg - self.truth.angle_deg), shift


def make_master(seed: int) -> Master:
    """Scan one phantom and project its MRI."""
    phantom = make_phantom(seed)
    x, z = scan_offset_mm(phantom)
    at_rest = Placement(0.0, (float(x), float(z)))
    volume, mask = make_mri(phantom, at_rest, np.random.default_rng([seed, 1]), _SOURCE)
    first = _SOURCE.first_mm[0] + float(x), _SOURCE.first_mm[1], _SOURCE.first_mm[2] + float(z)
    projections = Volume(volume, _SOURCE.voxel_mm, first).projections()
    thickness = Volume(mask, _SOURCE.voxel_mm, first).thickness()
    spine = replace(thickness, pixels=(thickness.pixels > 0).astype(np.float32))
    body = find_body(phantom.bone.astype(np.float32))
    scan = scan_features(normalise(body.pixels, body.mask), body.mask, phantom.framing.pixel_mm)
    return Master(phantom, scan, projections, spine, thickness)


def draw_case(rng: np.random.Generator, master: Master) -> Case:
    """Move the MRI within 10 degrees and 60 mm, add noise, and add defects to both masks."""
    middle = scan_offset_mm(master.phantom)
    truth = Placement.about(float(rng.uniform(-10, 10)), rng.uniform(-60, 60, 2), middle)
    spine, images = _imaged(master.spine, truth), [_imaged(plane, truth) for plane in master.projections]
    noise = rng.normal(0, 0.03, spine.pixels.shape).astype(np.float32)
    scan = master.scan.pixels
    grain = rng.normal(0, 0.04, scan.shape).astype(np.float32) * (scan > 0)
    drawn, spoilt = (_spoilt(rng, plane) for plane in (_on_grid_of(master.scan, master.spine), spine))
    return Case(
        master,
        truth,
        Plane(np.maximum(scan + grain, 0), master.scan.pixel_mm, master.scan.top_left_mm),
        drawn,
        tuple(replace(image, pixels=image.pixels + noise) for image in images),
        replace(
            spoilt, pixels=spoilt.pixels * np.maximum(_imaged(master.thickness, truth).pixels, _LEAST_THICKNESS_MM)
        ),
    )


def self_test(count: int, seed: int = 1) -> NDArray[np.float64]:
    """Align `count` cases of up to 20 phantoms; return (count, 4).

    Columns: error of the angle (degrees) and of the shift (canonical pixels) after stage two, and after stage one.
    """
    rng = np.random.default_rng(seed)
    errors = []
    masters = [make_master(40_000_000 + seed * 1000 + k) for k in range(min(_PHANTOMS, count))]
    for k in range(count):
        case = draw_case(rng, masters[k % len(masters)])
        found = case.solve()
        errors.append((*case.errors(found.spine), *case.errors(found.image)))
    return np.array(errors)


def within_limits(errors: NDArray[np.float64]) -> float:
    """Return the fraction of cases within 0.2 degrees and one canonical pixel after stage two."""
    return float(np.mean((errors[:, 0] <= ANGLE_LIMIT_DEG) & (errors[:, 1] <= SHIFT_LIMIT_PX)))


def summary(errors: NDArray[np.float64]) -> str:
    """Return a summary in three lines; the 95 % interval counts phantoms, since cases of one phantom are alike."""
    share, count = within_limits(errors), min(_PHANTOMS, len(errors))
    low, high = (100 * end for end in wilson(share * count, count))
    lines = [
        f"{len(errors)} cases, {100 * share:.1f} % [{low:.1f}, {high:.1f}] within {ANGLE_LIMIT_DEG} degrees and one "
        "canonical pixel"
    ]
    for name, first in (("stage one", 2), ("stage two", 0)):
        angle, shift = (np.percentile(errors[:, first + k], [50, 95, 100]) for k in (0, 1))
        lines.append(
            f"{name}: angle {angle[0]:.3f} / {angle[1]:.3f} / {angle[2]:.3f} degrees, "
            f"shift {shift[0]:.2f} / {shift[1]:.2f} / {shift[2]:.2f} pixels (median / 95th percentile / most)"
        )
    return "\n".join(lines)


def _imaged(plane: Plane, truth: Placement) -> Plane:
    """Sample a plane of the scan's frame on the voxels of a moved MRI."""
    columns, rows = DIXON.shape[0], DIXON.shape[2]
    target = Plane(
        np.empty((0, 0), dtype=np.float32),
        (DIXON.voxel_mm[2], DIXON.voxel_mm[0]),
        (float(DIXON.axis(2)[-1]), DIXON.first_mm[0]),
    )
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    where = plane.to_pixels(truth.to_scan(target.to_mm(grid.astype(np.float64)))).astype(np.float32)
    shown = cv2.remap(plane.pixels, where.reshape(rows, columns, 2), None, cv2.INTER_LINEAR)
    return Plane(np.asarray(shown), target.pixel_mm, target.top_left_mm)


def _on_grid_of(target: Plane, plane: Plane) -> Plane:
    """Sample a plane on the pixels of another one in the same frame."""
    rows, columns = target.pixels.shape
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    where = plane.to_pixels(STILL.to_mri(target.to_mm(grid.astype(np.float64)))).astype(np.float32)
    shown = cv2.remap(plane.pixels, where.reshape(rows, columns, 2), None, cv2.INTER_LINEAR)
    return Plane(np.asarray(shown), target.pixel_mm, target.top_left_mm)


def _spoilt(rng: np.random.Generator, plane: Plane) -> Plane:
    """Add defects of a segmentation to a mask: ragged edges, blobs, holes, missing ends."""
    row_mm, column_mm = plane.pixel_mm
    ragged = cv2.GaussianBlur(rng.standard_normal(plane.pixels.shape).astype(np.float32), (0, 0), 1.5)
    border = (cv2.blur(plane.pixels, (3, 3)) % 1) > 0
    mask = (plane.pixels + border * 0.5 * ragged / float(ragged.std()) > 0.5).astype(np.uint8)
    rows = np.flatnonzero(mask.any(axis=1))
    for fill in (1,) * int(rng.integers(0, 4)) + (0,) * int(rng.integers(0, 4)):
        row = int(rng.choice(rows))
        columns = np.flatnonzero(mask[row])
        if columns.size:
            edge = float(rng.choice([columns[0], columns[-1]]))
            size = rng.uniform(5, 16), rng.uniform(5, 14)
            axes = (round(size[1] / column_mm), round(size[0] / row_mm))
            cv2.ellipse(mask, (round(edge), row), axes, 0, 0, 360, fill, -1)
    if rng.random() < 0.5:
        gone = round(rng.uniform(5, 25) / row_mm)
        first = int(rng.integers(rows[0], rows[-1] - gone))
        mask[first : first + gone] = 0
    top, bottom = (round(rng.uniform(0, 30) / row_mm) * int(rng.random() < 0.5) for _ in range(2))
    mask[: rows[0] + top] = 0
    mask[rows[-1] + 1 - bottom :] = 0
    return Plane(mask.astype(np.float32), plane.pixel_mm, plane.top_left_mm)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the errors of known transforms; return 0 if 95 % are recovered, else 1."""
    parser = argparse.ArgumentParser(prog="python -m export.studies.align_check", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="known transforms to recover (default: 200)")
    parser.add_argument("--seed", type=int, default=1, help="default 1, which the method was tuned on")
    options = parser.parse_args(argv)
    errors = self_test(options.count, options.seed)
    print(summary(errors))
    return 0 if within_limits(errors) >= _LEAST_RECOVERED else 1


if __name__ == "__main__":
    raise SystemExit(main())
