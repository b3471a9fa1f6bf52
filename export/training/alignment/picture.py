"""Draw the alignment of a pair: scan in green, MRI in magenta, before and after each stage."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from export.training.alignment.rigid import STILL, Placement, Plane, moved
from export.training.alignment.stages import Alignment
from export.training.dataset import SpineInScan

_PIXEL_MM = 2.4
_HEAD = 44
_SCAN, _MRI, _CURVE, _TEXT = (120, 230, 120), (230, 90, 230), (80, 200, 255), (235, 235, 235)

Picture = NDArray[np.uint8]


def draw_pair(
    scan: Plane,
    projection: Plane,
    spines: tuple[Plane, Plane],
    found: Alignment,
    spine: SpineInScan,
) -> Picture:
    """Draw four panels: before, after stage one, after stage two, and the curves; BGR.

    Parameters
    ----------
    scan, projection : Plane
        Images of scan and MRI, 0 to 1.
    spines : (Plane, Plane)
        Spine masks of scan and MRI, drawn as outlines.
    found : Alignment
        Alignment, with the scores for the titles.
    spine : SpineInScan
        Curves to draw.
    """
    corners = scan.corners()
    before = Placement.about(0.0, projection.corners().mean(axis=0), corners.mean(axis=0))
    shape = (int(np.ptp(corners[:, 1]) / _PIXEL_MM), int(np.ptp(corners[:, 0]) / _PIXEL_MM))
    columns = []
    for title, score, placement in (
        ("before", "", before),
        ("stage one", f"images {found.image_correlation:.3f}, {found.image.angle_deg:+.1f} deg", found.image),
        ("stage two", f"spines {found.spine_correlation:.3f}, {found.spine.angle_deg:+.1f} deg", found.spine),
    ):
        shown = moved(scan, STILL, _PIXEL_MM, (0.0, 0.0), shape)[:, :, None] * np.array(_SCAN)
        shown = shown + moved(projection, placement, _PIXEL_MM, (0.0, 0.0), shape)[:, :, None] * np.array(_MRI)
        panel = np.clip(0.75 * shown, 0, 255).astype(np.uint8)
        for mask, place, colour in zip(spines, (STILL, placement), (_SCAN, _MRI), strict=True):
            inside = (moved(mask, place, _PIXEL_MM, (0.0, 0.0), shape) > 0.5).astype(np.uint8)
            outlines, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(panel, outlines, -1, colour, 1, cv2.LINE_AA)
        columns.append(_titled(panel, title, score))
    grey = moved(scan, STILL, _PIXEL_MM, (0.0, 0.0), shape)[:, :, None] * np.array((255, 255, 255))
    columns.append(_titled(_with_curves(np.clip(grey, 0, 255).astype(np.uint8), spine, scan), "curves", "front, side"))
    return np.hstack(columns)


def _with_curves(panel: Picture, spine: SpineInScan, scan: Plane) -> Picture:
    """Draw the coronal curves in place, and the sagittal ones to the right, anterior at the left."""
    row_mm = scan.pixel_mm[0]
    top, bottom = (-row * row_mm for row, _ in spine.ends_px)
    z = np.arange(top, bottom, -_PIXEL_MM)
    curves = spine.curves_at(z)
    curves[:, 3:] += panel.shape[1] * _PIXEL_MM * 0.85 - curves[:, 4].mean()
    for column in curves.T:
        points = np.stack([column, -z], axis=1) / _PIXEL_MM
        cv2.polylines(panel, [np.round(points * 16).astype(np.int32)], False, _CURVE, 1, cv2.LINE_AA, 4)
    return panel


def _titled(panel: Picture, title: str, score: str) -> Picture:
    head = np.zeros((_HEAD, panel.shape[1], 3), dtype=np.uint8)
    for line, text in enumerate((title, score)):
        cv2.putText(head, text, (6, 17 + 20 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _TEXT, 1, cv2.LINE_AA)
    return np.vstack([head, panel])
