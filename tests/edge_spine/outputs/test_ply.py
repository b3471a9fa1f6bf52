"""The surface as PLY."""

from __future__ import annotations

from collections import Counter

import numpy as np

from edge_spine.outputs.registry import FORMATS
from tests.edge_spine.fake_result import fake_result


def test_the_ply_reads_back_as_a_closed_surface() -> None:
    result = fake_result()
    data = FORMATS["ply"].render(result)
    header, _, body = data.partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    assert any(line.startswith("comment") and "millimetres" in line and "LPS" in line for line in lines)
    counts = {line.split()[1]: int(line.split()[2]) for line in lines if line.startswith("element")}
    vertices = np.frombuffer(body, "<f4", 3 * counts["vertex"]).reshape(-1, 3)
    face_type = np.dtype([("count", "u1"), ("vertices", "<i4", (3,))])
    faces = np.frombuffer(body, face_type, offset=vertices.nbytes)
    assert len(faces) == counts["face"]
    assert set(faces["count"]) == {3}
    expected_vertices, expected_faces = result.spine.mesh()
    np.testing.assert_allclose(vertices, expected_vertices, atol=1e-4)
    np.testing.assert_array_equal(faces["vertices"], expected_faces)
    edges = Counter((int(face[a]), int(face[b])) for face in faces["vertices"] for a, b in ((0, 1), (1, 2), (2, 0)))
    assert all(count == 1 and edges[end, start] == 1 for (start, end), count in edges.items())


def test_3d_slicer_is_told_the_axes() -> None:
    """vtkMRMLModelStorageNode looks for this word in each comment of a PLY file."""
    head = FORMATS["ply"].render(fake_result()).partition(b"end_header\n")[0]
    assert b"SPACE=LPS" in head and b"SPACE=RAS" not in head
    assert b"mm" in head or b"millimetres" in head
