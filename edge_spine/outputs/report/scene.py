"""The scene of the 3D viewer: typed arrays in base64, in mm and DICOM LPS."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_spine.outputs.drawing.canvas import Image
from edge_spine.outputs.drawing.end_lines import drawn_end_lines
from edge_spine.outputs.drawing.palette import PALETTE
from edge_spine.outputs.drawing.shading import largest_curve_tint
from edge_spine.outputs.report.vector import hexadecimal
from edge_spine.outputs.wording import COBB, headline
from edge_spine.result import SpineResult
from edge_spine.vertebrae import LEVELS

# Every graphics processor with WebGL 2 supports textures of this size.
MAX_TEXTURE = 2048
# Distance of the scan's plane behind the spine, whose true depth one view does not show.
PLANE_BEHIND_MM = 20.0


def scene(result: SpineResult) -> dict[str, Any]:
    """Return surface, curves, levels, lines of the Cobb angles and the plane of the scan.

    Returns
    -------
    dict
        ``vertices`` (float32, V x 3), ``colours`` (uint8, V x 3), ``faces`` (uint16, F x 3, counter-clockwise
        seen from outside), ``curves`` and ``ends`` (float32, N x 3), ``levels`` (body centres), ``apexes``, ``plane``:
        mm in the frame of result.json, x to the patient's left, y to posterior, z to the head.
    """
    vertices, faces = result.mesh()
    if len(vertices) > np.iinfo(np.uint16).max:
        raise ValueError(f"{len(vertices)} vertices; expected at most 65535, so that faces fit 16 bits")
    spine = result.spine
    drawn = drawn_end_lines(result)
    tint = largest_curve_tint(result, vertices[:, 2])
    return {
        "vertices": _packed(vertices, "<f4"),
        "colours": _packed(np.rint(tint), "u1"),
        "faces": _packed(faces, "<u2"),
        "curves": _curves(result),
        "ends": [
            {"level": line.level, "points": _packed(line.ends(spine, curve), "<f4")}
            for curve, lines in drawn
            for line in lines
        ],
        "levels": [
            {"level": level, "at": _rounded(centre)}
            for level, centre in zip(LEVELS, result.body_centres(), strict=True)
        ],
        "apexes": [
            {
                "text": COBB.text(curve.cobb_deg) if index else headline(result)[0],
                "at": _rounded(spine.centreline[curve.apex]),
                "convex": curve.convex_sign,
                "half_width": round(float(spine.half_width[curve.apex]), 2),
            }
            for index, (curve, _) in enumerate(drawn)
        ],
        "plane": _plane(result),
    }


def plane_picture(result: SpineResult) -> Image:
    """Return the whole scan in grey, reduced where it is too large for a texture."""
    body = result.prepared.body
    low = body.floor
    shown = np.clip((body.pixels - low) / max(body.bright - low, 1e-6), 0, 1)
    scale = MAX_TEXTURE / max(shown.shape)
    if scale < 1:
        size = (max(1, round(shown.shape[1] * scale)), max(1, round(shown.shape[0] * scale)))
        shown = cv2.resize(shown, size, interpolation=cv2.INTER_AREA)
    grey: Image = (shown * 255).astype(np.uint8)
    return grey


def _plane(result: SpineResult) -> dict[str, float]:
    rows, columns = result.scan.pixels.shape
    row_mm, column_mm = result.scan.pixel_spacing_mm
    behind = float((result.spine.centreline[:, 1] + result.spine.half_depth).max()) + PLANE_BEHIND_MM
    # Coordinates start at the centre of the first pixel; the picture starts at its edge.
    edges = {
        "left": -0.5 * column_mm,
        "right": (columns - 0.5) * column_mm,
        "top": 0.5 * row_mm,
        "bottom": -(rows - 0.5) * row_mm,
        "y": behind,
    }
    return {name: round(value, 3) for name, value in edges.items()}


def _rounded(point: NDArray[np.float64]) -> list[float]:
    return [round(value, 2) for value in point.tolist()]


def _curves(result: SpineResult) -> list[dict[str, str]]:
    curves, centre = result.curves, result.spine.centreline
    x, y, z = centre.T
    drawn: list[tuple[str, str, NDArray[np.float64]]] = [
        ("borders", "sky", np.column_stack([curves.coronal[:, 0], y, z])),
        ("borders", "vermillion", np.column_stack([curves.coronal[:, 2], y, z])),
        ("borders", "green", np.column_stack([x, curves.sagittal[:, 0], z])),
        ("borders", "purple", np.column_stack([x, curves.sagittal[:, 2], z])),
        ("centreline", "yellow", centre),
    ]
    return [
        {"part": part, "colour": hexadecimal(PALETTE[colour]), "points": _packed(points, "<f4")}
        for part, colour, points in drawn
    ]


def _packed(values: ArrayLike, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=np.dtype(kind)).tobytes()).decode("ascii")
