"""The surface as STL."""

from __future__ import annotations

import struct

import numpy as np

from edge_spine.outputs.registry import FORMATS
from tests.edge_spine.fake_result import fake_result
from tests.edge_spine.outputs.mesh_files import STL_TRIANGLE


def test_3d_slicer_is_told_the_axes() -> None:
    """vtkMRMLModelStorageNode looks for this word in STL's header."""
    head = FORMATS["stl"].render(fake_result())[:80]
    assert b"SPACE=LPS" in head and b"SPACE=RAS" not in head
    assert b"mm" in head or b"millimetres" in head


def test_it_is_binary_and_its_normals_are_those_of_its_corners() -> None:
    result = fake_result()
    data = FORMATS["stl"].render(result)
    # a reader takes a file that begins with this word for text
    assert not data.startswith(b"solid")
    _, faces = result.spine.mesh()
    assert struct.unpack("<I", data[80:84]) == (len(faces),) and len(data) == 84 + 50 * len(faces)
    triangles = np.frombuffer(data, STL_TRIANGLE, offset=84)
    a, b, c = (triangles["corners"][:, corner].astype(float) for corner in range(3))
    across = np.cross(b - a, c - a)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    np.testing.assert_allclose(triangles["normal"], across, atol=1e-2)
