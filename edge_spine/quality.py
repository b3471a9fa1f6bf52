"""May this result be shown? Limits outside which curves are no adult's spine, and remarks on those inside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_spine.errors import Refusal
from edge_spine.layout import CROP_SIZE
from edge_spine.measure import Measurements
from edge_spine.preprocess import Prepared
from edge_spine.reconstruct import Curves, Spine
from edge_spine.scan import Scan

# mean over the rows, mm: smaller than a child's, larger than any adult's
WIDTH_MM, DEPTH_MM = (18.0, 70.0), (14.0, 60.0)
LENGTH_MM = (250.0, 680.0)
SAGITTAL_RANGE_MM = 140.0
ROUGHNESS_MM = 3.0
LEAN_DEG = 5.0
SURE = 0.6


@dataclass(frozen=True)
class Quality:
    """The verdict on a result.

    Attributes
    ----------
    accepted : bool
        The result may be shown; where it may not, `judge` raises instead.
    flags : tuple of str
        What to know about it: the scan's and the preparation's flags, "low-confidence", "trunk-leans",
        "spine-leaves-crop".
    """

    accepted: bool
    flags: tuple[str, ...]


def judge(scan: Scan, prepared: Prepared, curves: Curves, spine: Spine, measurements: Measurements) -> Quality:
    """Accept a result, with remarks, or refuse it.

    Raises
    ------
    Refusal
        "implausible-curves": the curves cannot be an adult's spine.
    """
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
                f"{scan.source}: the curves found are no adult spine ({name} {value:.1f} mm, "
                f"expected {least:.0f} to {most:.0f}); a whole-body DXA bone image is needed",
            )
    return Quality(accepted=True, flags=scan.flags + prepared.flags + _remarks(prepared, curves, spine))


def _remarks(prepared: Prepared, curves: Curves, spine: Spine) -> tuple[str, ...]:
    flags = []
    if prepared.localiser_confidence < SURE:
        flags.append("low-confidence")
    top, bottom = spine.centreline[0], spine.centreline[-1]
    lean = np.degrees(np.arctan2(abs(top[0] - bottom[0]), abs(top[2] - bottom[2])))
    if lean > LEAN_DEG:
        flags.append("trunk-leans")
    left = prepared.crop_origin_px[1] * prepared.pixel_spacing_mm[1]
    right = left + (CROP_SIZE - 1) * prepared.model_pixel_mm
    if curves.coronal.min() < left or curves.coronal.max() > right:
        flags.append("spine-leaves-crop")
    return tuple(flags)
