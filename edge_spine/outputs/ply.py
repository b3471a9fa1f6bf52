"""spine.ply: the surface as binary PLY, which most mesh viewers read."""

from __future__ import annotations

import numpy as np

from edge_spine.outputs.wording import about
from edge_spine.result import SpineResult

_FACE = np.dtype([("count", "u1"), ("vertices", "<i4", (3,))])


def render(result: SpineResult) -> bytes:
    """Return the closed surface of the spine as binary little-endian PLY, in mm in the LPS frame, with comments."""
    vertices, faces = result.mesh()
    comments = "".join(f"comment {name}: {text}\n" for name, text in about(result).items())
    header = (
        "ply\n"
        "format binary_little_endian 1.0\n"
        "comment edge-spine: millimetres, DICOM LPS (x to the left, y to posterior, z to the head)\n"
        # 3D Slicer reads this comment.
        "comment SPACE=LPS\n"
        f"{comments}"
        f"element vertex {len(vertices)}\n"
        "property float x\n"
        "property float y\n"
        "property float z\n"
        f"element face {len(faces)}\n"
        "property list uchar int vertex_indices\n"
        "end_header\n"
    )
    packed = np.empty(len(faces), _FACE)
    packed["count"] = 3
    packed["vertices"] = faces
    return header.encode("ascii") + vertices.astype("<f4").tobytes() + packed.tobytes()
