"""The surface as STL."""

from __future__ import annotations

import numpy as np

from edge_spine.outputs.registry import FORMATS
from tests.edge_spine.fake_result import fake_result
from tests.edge_spine.outputs.mesh_files import STL_TRIANGLE


def test_3d_slicer_is_told_the_axes() -> None:
    """vtkMRMLModelStorageNode looks for this word in STL's header."""
    head = FORMATS["stl"].render(fake_result())[:80]
    assert b"SPACE=LPS" in head and b"SPACE=RAS" not in head
    assert b"mm" in head or b"millimetres" in head


def test_the_stl_is_the_surface_in_mm() -> None:
    result = fake_result()
    data = FORMATS["stl"].render(result)
    head = data[:80].decode("ascii")
    assert not head.startswith("solid")
    for word in ("mm", "LPS", "research only, not diagnostic"):
        assert word in head
    vertices, faces = result.spine.mesh()
    assert int.from_bytes(data[80:84], "little") == len(faces)
    assert len(data) == 84 + 50 * len(faces)
    triangles = np.frombuffer(data, STL_TRIANGLE, offset=84)
    np.testing.assert_allclose(triangles["corners"], vertices[faces], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(triangles["normal"], axis=1), 1.0, atol=1e-5)
    # Normals point outwards: away from the axis of the ring that they belong to.
    away = triangles["corners"].mean(axis=1) - result.spine.centreline.mean(axis=0)
    sides = np.abs(triangles["normal"][:, 2]) < 0.5
    assert ((away * triangles["normal"])[sides, :2].sum(axis=1) > 0).mean() > 0.8
