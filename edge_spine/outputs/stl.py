"""spine.stl: the surface as binary STL, for 3D printing and DICOM's Encapsulated STL."""

from __future__ import annotations

import struct

import numpy as np

from edge_spine.outputs.wording import widest_bands
from edge_spine.result import SpineResult

# STL has 80 bytes for all that is no triangle; 3D Slicer reads SPACE=LPS. "solid" at the start means a text file.
_HEADER = "edge-spine mm SPACE=LPS research only, not diagnostic {} flag{} {}"
_TRIANGLE = np.dtype([("normal", "<f4", (3,)), ("vertices", "<f4", (3, 3)), ("attribute", "<u2")])


def render(result: SpineResult) -> bytes:
    """Return the closed surface of the spine as binary STL, in mm in the LPS frame.

    The header holds the number of flags and `widest_bands`.
    """
    vertices, faces = result.mesh()
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    triangles = np.zeros(len(faces), _TRIANGLE)
    triangles["normal"] = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    triangles["vertices"] = corners
    flags, bands = len(result.quality.flags), widest_bands(result)
    width = "no 90% bands" if bands is None else "90% x+-{} y+-{}".format(*bands)
    header = _HEADER.format(flags, "" if flags == 1 else "s", width).encode("ascii")[:80]
    return header.ljust(80) + struct.pack("<I", len(faces)) + triangles.tobytes()
