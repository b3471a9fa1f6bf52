"""Refuse implausible results, and flag what is unusual about the others."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge_spine.bundle.bands import ATYPICAL_SIDE_VIEW, PopulationRange
from edge_spine.errors import Refusal
from edge_spine.measure import Measurements
from edge_spine.network import CROP_SIZE
from edge_spine.preprocessing.geometry import check_geometry
from edge_spine.preprocessing.prepare import Prepared
from edge_spine.reconstruct import Curves, Spine
from edge_spine.scan import Scan
from edge_spine.vertebrae import Levels

# accepted means over the rows, mm: from below a child's to above any adult's
WIDTH_MM, DEPTH_MM = (18.0, 70.0), (14.0, 60.0)
LENGTH_MM = (250.0, 680.0)
SAGITTAL_RANGE_MM = 140.0
ROUGHNESS_MM = 3.0
LEAN_DEG = 5.0
# confidence: 0.95 or more on a real scan and phantoms, 0.5 to 0.82 on noise in the shape of a body
SURE = 0.9
# how much brighter the spine is than its surround, share of the normalised range: phantoms' 0.17 to 0.62, a real
# scan's 0.4
LEAST_CONTRAST, CLEAR_CONTRAST = 0.10, 0.15
# places across the spine, in vertebral widths from its centre: within it, and beyond its transverse processes
_WITHIN, _BESIDE = np.linspace(-0.3, 0.3, 8), np.linspace(0.8, 1.3, 8)
_PLACES = np.concatenate([_WITHIN, -_BESIDE, _BESIDE])


@dataclass(frozen=True)
class Quality:
    """Whether a result is accepted, and its flags.

    `accepted` is True, since `judge` raises for a result that is not. `flags` are the scan's and the preparation's,
    "low-confidence", "spine-faint", "trunk-leans", "spine-leaves-crop", "levels-uncertain", "side-view-atypical",
    "scale-doubtful", "aspect-doubtful" and those of `edge_spine.disturbance`; `notes` are sentences with the figures
    behind flags.
    """

    accepted: bool
    flags: tuple[str, ...]
    notes: tuple[str, ...] = ()


def judge(
    scan: Scan,
    prepared: Prepared,
    curves: Curves,
    spine: Spine,
    measurements: Measurements,
    levels: Levels,
    population: PopulationRange | None = None,
    disturbances: tuple[str, ...] = (),
) -> Quality:
    """Accept a result and flag what is unusual about it, or refuse it.

    `population` has the usual angles where the bundle has them; `disturbances` are flags of `edge_spine.disturbance`.

    Raises
    ------
    Refusal
        "implausible-curves": the curves cannot be an adult's spine. "no-spine": the image shows none where they run.
        "implausible-geometry": the pixel spacing and the body disagree grossly.
    """
    geometry = check_geometry(scan, prepared)
    width = float(2 * spine.half_width.mean())
    depth = float(2 * spine.half_depth.mean())
    sagittal_range = float(np.ptp(spine.centreline[:, 1]))
    roughness = max(float(np.abs(np.diff(side[:, 1], n=2)).mean()) for side in (curves.coronal, curves.sagittal))
    limits = (
        ("mean vertebral width", width, *WIDTH_MM),
        ("mean vertebral depth", depth, *DEPTH_MM),
        ("centreline length", measurements.centreline_length_mm, *LENGTH_MM),
        ("antero-posterior range", sagittal_range, 0.0, SAGITTAL_RANGE_MM),
        ("roughness", roughness, 0.0, ROUGHNESS_MM),
    )
    for name, value, least, most in limits:
        if not least <= value <= most:
            raise Refusal(
                "implausible-curves",
                f"the curves found are no adult spine ({name} {value:.1f} mm, "
                f"expected {least:.0f} to {most:.0f}); a whole-body DXA bone image is needed",
            )
    contrast = spine_contrast(prepared, curves)
    if contrast < LEAST_CONTRAST:
        raise Refusal(
            "no-spine",
            f"the image shows no spine where the curves run ({contrast:.2f} brighter than its surround, "
            f"expected {LEAST_CONTRAST:g} or more); give a whole-body, antero-posterior DXA bone image",
        )
    top, bottom = spine.centreline[0], spine.centreline[-1]
    lean_deg = np.degrees(np.arctan2(abs(top[0] - bottom[0]), abs(top[2] - bottom[2])))
    left, right = prepared.x_mm(np.array([0.0, CROP_SIZE - 1]))
    unusual = {
        "low-confidence": prepared.localiser_confidence < SURE,
        "spine-faint": contrast < CLEAR_CONTRAST,
        "trunk-leans": lean_deg > LEAN_DEG,
        "spine-leaves-crop": curves.coronal.min() < left or curves.coronal.max() > right,
        "levels-uncertain": levels.uncertain,
        ATYPICAL_SIDE_VIEW: population is not None and population.is_atypical(measurements),
    }
    flags = scan.flags + prepared.flags + tuple(flag for flag, found in unusual.items() if found)
    return Quality(True, (*flags, *disturbances, *geometry), (*scan.notes, *geometry.values()))


def spine_contrast(prepared: Prepared, curves: Curves) -> float:
    """Measure how much brighter the network's input is along the spine than on the brighter of its two sides, -1 to 1.

    Sides are averaged over all rows, so that lungs, bowel gas or metal in a few rows have little influence.
    """
    columns = prepared.columns_px(curves.coronal)
    width = columns[:, 2:] - columns[:, :1]
    across = (columns[:, 1:2] + width * _PLACES).astype(np.float32)
    rows = np.repeat(prepared.rows_px(curves.z).astype(np.float32)[:, np.newaxis], len(_PLACES), axis=1)
    sampled = cv2.remap(prepared.tensor[0, 0], across, rows, cv2.INTER_LINEAR)
    within, left, right = sampled.mean(axis=0).reshape(3, -1).mean(axis=1).tolist()
    return float(within - max(left, right))
