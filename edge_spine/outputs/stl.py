"""spine.stl: the surface as binary STL, for 3D printing and DICOM's Encapsulated STL."""

from __future__ import annotations

import struct

import numpy as np

from edge_spine.result import SpineResult

# STL has no fields for unit and axes; 3D Slicer reads SPACE=LPS. A header that begins with "solid" means a text file.
_HEADER = b"edge-spine, mm, SPACE=LPS. Not for Diagnostic Use, for research use only."
_TRIANGLE = np.dtype([("normal", "<f4", (3,)), ("vertices", "<f4", (3, 3)), ("attribute", "<u2")])


def render(result: SpineResult) -> bytes:
    """Return the closed surface of the spine as binary STL, in mm in the LPS frame."""
    vertices, faces = result.mesh()
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    triangles = np.zeros(len(faces), _TRIANGLE)
    triangles["normal"] = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    triangles["vertices"] = corners
    return _HEADER.ljust(80) + struct.pack("<I", len(faces)) + triangles.tobytes()
