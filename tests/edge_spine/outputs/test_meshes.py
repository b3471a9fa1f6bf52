"""One surface in three formats: the same shape, size and place, the right hand, and readers that are not ours."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_spine.measure import row_levels, scoliosis_curves
from edge_spine.outputs.registry import FORMATS
from edge_spine.reconstruct import RING_POINTS
from edge_spine.vertebrae import LEVELS
from tests.edge_spine.fake_result import fake_bands, fake_curves, fake_result

NOTICE = "Research use only. Not for diagnosis."
# One lateral curve, convex to the patient's right: towards smaller x.
RIGHT_CONVEX = {"lateral_mm": 30.0, "waves": 0.5}
VALIDATE = """
const fs = require('fs'), validator = require('gltf-validator')
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))
  .then((report) => console.log(JSON.stringify(report.issues)))
"""

Mesh = tuple[NDArray[np.float64], NDArray[np.int64]]


@pytest.fixture(scope="module")
def trimesh() -> Any:
    return pytest.importorskip("trimesh", reason="pip install '.[report]'")


def glb_parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Split a GLB file by the glTF 2.0 specification, section 4, without any library."""
    magic, version, length, json_length, json_type = struct.unpack("<4sIII4s", data[:20])
    assert (magic, version, length, json_type) == (b"glTF", 2, len(data), b"JSON")
    binary_length, binary_type = struct.unpack("<I4s", data[20 + json_length : 28 + json_length])
    assert binary_type == b"BIN\0"
    return json.loads(data[20 : 20 + json_length]), data[28 + json_length :][:binary_length]


def accessor(data: bytes, index: int) -> NDArray[Any]:
    tree, binary = glb_parts(data)
    found = tree["accessors"][index]
    view = tree["bufferViews"][found["bufferView"]]
    kind = {5121: "u1", 5125: "<u4", 5126: "<f4"}[found["componentType"]]
    width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[found["type"]]
    start = view.get("byteOffset", 0) + found.get("byteOffset", 0)
    return np.frombuffer(binary, kind, found["count"] * width, start).reshape(-1, width)


def primitive(data: bytes, name: str) -> dict[str, Any]:
    tree, _ = glb_parts(data)
    (mesh,) = [mesh for mesh in tree["meshes"] if mesh["name"] == name]
    return mesh["primitives"][0]


def read_stl(data: bytes) -> Mesh:
    triangle = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    triangles = np.frombuffer(data, triangle, struct.unpack("<I", data[80:84])[0], 84)
    vertices, faces = np.unique(triangles["corners"].reshape(-1, 3), axis=0, return_inverse=True)
    return vertices.astype(float), faces.reshape(-1, 3)


def read_ply(data: bytes) -> Mesh:
    header, _, body = data.partition(b"end_header\n")
    counts = {line.split()[1]: int(line.split()[2]) for line in header.decode().splitlines() if "element" in line}
    vertices = np.frombuffer(body, "<f4", 3 * counts["vertex"]).reshape(-1, 3)
    faces = np.frombuffer(body, np.dtype([("count", "u1"), ("corners", "<i4", 3)]), offset=vertices.nbytes)
    return vertices.astype(float), faces["corners"].astype(np.int64)


def read_glb(data: bytes) -> Mesh:
    """The surface in metres and glTF's axes, as the file has it."""
    part = primitive(data, "spine")
    faces = accessor(data, part["indices"]).reshape(-1, 3).astype(np.int64)
    return accessor(data, part["attributes"]["POSITION"]).astype(float), faces


def lps_mm(gltf_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """From the specification's axes (section 3.4): +Y is up, +Z is the front, so -X is the right side."""
    left, head, front = gltf_m.T * 1000
    return np.column_stack([left, -front, head])


def volume_ml(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> float:
    """Signed by the divergence theorem: negative where faces look inwards, or the frame is mirrored."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float((a * np.cross(b, c)).sum() / 6 / 1000)


READERS = {
    "stl": read_stl,
    "ply": read_ply,
    "glb": lambda data: (lps_mm(read_glb(data)[0]), read_glb(data)[1]),
}


@pytest.mark.parametrize("name", READERS)
def test_it_is_the_surface_at_its_place_and_size(name: str, trimesh: Any) -> None:
    result = fake_result(curves=fake_curves(**RIGHT_CONVEX))
    vertices, faces = READERS[name](FORMATS[name].render(result))
    expected, _ = result.spine.mesh()
    np.testing.assert_allclose(vertices.min(axis=0), expected.min(axis=0), atol=1e-3)
    np.testing.assert_allclose(vertices.max(axis=0), expected.max(axis=0), atol=1e-3)
    assert volume_ml(vertices, faces) == pytest.approx(result.measurements.volume_ml, rel=0.01)
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert set(np.unique(edges, axis=0, return_counts=True)[1]) == {2}


@pytest.mark.parametrize("name", READERS)
def test_trimesh_reads_it_back_closed_and_of_the_same_volume(name: str, trimesh: Any) -> None:
    result = fake_result()
    loaded = trimesh.load(io.BytesIO(FORMATS[name].render(result)), file_type=name)
    if name == "glb":
        loaded = loaded.geometry["spine"]
    loaded.merge_vertices(merge_norm=True, merge_tex=True)
    assert loaded.is_watertight and loaded.is_winding_consistent
    cubic_mm = loaded.volume * (1e9 if name == "glb" else 1)
    assert cubic_mm / 1000 == pytest.approx(result.measurements.volume_ml, rel=0.01)


@pytest.mark.parametrize("name", READERS)
def test_a_curve_to_the_right_stays_one_for_whoever_looks_at_the_front(name: str, trimesh: Any) -> None:
    result = fake_result(curves=fake_curves(**RIGHT_CONVEX))
    assert result.measurements.scoliosis_curves[0].side == "right"
    vertices, _ = READERS[name](FORMATS[name].render(result))
    heights = np.unique(vertices[:, 2].round(3))[::-1]
    x = [vertices[np.abs(vertices[:, 2] - z) < 2e-3, 0].mean() for z in heights]
    assert scoliosis_curves(x, heights)[0].side == "right"


def test_the_glb_turns_the_patient_frame_and_never_mirrors_it(trimesh: Any) -> None:
    result = fake_result(curves=fake_curves(**RIGHT_CONVEX))
    source, source_faces = result.spine.mesh()
    found, faces = read_glb(FORMATS["glb"].render(result))
    np.testing.assert_array_equal(faces, source_faces)
    # What maps one set of points to the other, found from the points alone.
    affine, *_ = np.linalg.lstsq(np.column_stack([source, np.ones(len(source))]), found, rcond=None)
    np.testing.assert_allclose(affine[3], 0, atol=1e-6)
    turn = affine[:3].T * 1000
    assert np.linalg.det(turn) == pytest.approx(1.0, abs=1e-3)
    # Columns: where the patient's left, back and head go. Up is +Y and the front is +Z, by the specification.
    np.testing.assert_allclose(turn, [[1, 0, 0], [0, 0, 1], [0, -1, 0]], atol=1e-3)
    # Seen by glTF's own axes: head above feet, and the bulge on -X, which is the right of whoever faces +Z.
    middle = np.abs(found[:, 1] - (found[:, 1].max() + found[:, 1].min()) / 2) < 0.01
    assert found[middle, 0].mean() < found[~middle, 0].mean()
    assert source[:RING_POINTS, 2].mean() > source[-RING_POINTS:, 2].mean()
    assert found[:RING_POINTS, 1].mean() > found[-RING_POINTS:, 1].mean()
    # Faces that look outwards enclose a positive volume in a right-handed frame.
    assert volume_ml(found * 1000, faces) > 0


def test_the_normals_are_smooth_and_look_outwards(trimesh: Any) -> None:
    data = FORMATS["glb"].render(fake_result())
    vertices, faces = read_glb(data)
    normals = accessor(data, primitive(data, "spine")["attributes"]["NORMAL"]).astype(float)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-5)
    corners = vertices[faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    side = slice(0, -2 * RING_POINTS)
    assert (flat[side, np.newaxis] * normals[faces[side]]).sum(axis=2).min() > 0.98
    np.testing.assert_allclose(normals[-2:], [[0, 1, 0], [0, -1, 0]], atol=1e-6)


@pytest.mark.parametrize("lateral_mm", [0.0, 30.0])
def test_levels_are_bands_and_the_largest_curve_is_tinted(trimesh: Any, lateral_mm: float) -> None:
    result = fake_result(curves=fake_curves(lateral_mm=lateral_mm, waves=0.5))
    data = FORMATS["glb"].render(result)
    colours = accessor(data, primitive(data, "spine")["attributes"]["COLOR_0"]).astype(int)
    rings = colours[:-2].reshape(209, RING_POINTS, 4)
    assert (rings == rings[:, :1]).all() and (colours[:, 3] == 255).all()
    grey = rings[:, 0, :3] @ [0.2126, 0.7152, 0.0722]
    # At each change of level the shade jumps, down and up in turns; nowhere else.
    levels = np.array([LEVELS.index(level) for level in row_levels(result.spine)])
    changes = np.flatnonzero(np.diff(levels))
    assert len(changes) == len(LEVELS) - 1
    jumps = np.diff(grey)
    assert (np.abs(jumps[changes]) > 25).all()
    assert (np.sign(jumps[changes]) == np.resize([-1, 1], len(changes))).all()
    assert np.abs(np.delete(jumps, changes)).max() < 25
    orange = rings[:, 0, 0] - rings[:, 0, 2] > 0.75 * rings[:, 0, 0]
    curves = result.measurements.scoliosis_curves
    assert orange.any() == bool(curves)
    if curves:
        inside = np.arange(209)
        inside = (inside > curves[0].upper_end + 5) & (inside < curves[0].lower_end - 5)
        assert orange[inside].all()


def test_the_glb_says_what_it_is_and_names_nobody(trimesh: Any) -> None:
    data = FORMATS["glb"].render(fake_result(source="DOE_JANE.dcm"))
    tree, _ = glb_parts(data)
    assert b"DOE" not in data
    assert tree["asset"]["version"] == "2.0"
    for extras in (tree["asset"]["extras"], *(node["extras"] for node in tree["nodes"])):
        assert extras["notice"] == NOTICE
        assert extras["unit"] == "metre"
        assert "LPS" in extras["source_frame"]
    assert [mesh["name"] for mesh in tree["meshes"]] == ["spine"]
    assert not any("matrix" in node or "scale" in node for node in tree["nodes"])


def test_the_glb_has_triangles_only(trimesh: Any) -> None:
    """MeshLab 2025.07 crashes on lines."""
    tree, _ = glb_parts(FORMATS["glb"].render(fake_result()))
    assert [[part["mode"] for part in mesh["primitives"]] for mesh in tree["meshes"]] == [[4]]


@pytest.mark.parametrize("name", ["stl", "ply", "glb", "csv"])
def test_the_same_result_gives_the_same_bytes(name: str) -> None:
    needs = FORMATS[name].needs
    if needs is not None:
        pytest.importorskip(needs[0], reason=f"pip install '.[{needs[1]}]'")
    first, second = (FORMATS[name].render(fake_result(band_90=fake_bands())) for _ in range(2))
    assert first == second
    timed = fake_result(band_90=fake_bands(), source="another.dcm").with_timing(read=12.0)
    assert FORMATS[name].render(timed) == first


@pytest.mark.parametrize("name", ["stl", "ply"])
def test_3d_slicer_is_told_the_axes(name: str) -> None:
    """vtkMRMLModelStorageNode looks for this word in STL's header and in each comment of a PLY file."""
    data = FORMATS[name].render(fake_result())
    head = data[:80] if name == "stl" else data.partition(b"end_header\n")[0]
    assert b"SPACE=LPS" in head and b"SPACE=RAS" not in head
    assert b"mm" in head or b"millimetres" in head


def test_khronos_validator_finds_no_fault(tmp_path: Path, trimesh: Any) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    path = tmp_path / "spine.glb"
    path.write_bytes(FORMATS["glb"].render(fake_result()))
    ended = subprocess.run([node, "-e", VALIDATE, str(path)], capture_output=True, text=True, timeout=120, check=False)
    if "Cannot find module 'gltf-validator'" in ended.stderr:
        pytest.skip("npm's package gltf-validator is not where node looks (npm install gltf-validator)")
    issues = json.loads(ended.stdout)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]


def test_trimesh_is_loaded_for_its_format_only() -> None:
    code = (
        "import sys\n"
        "from edge_spine.outputs.registry import FORMATS, parse_formats\n"
        "from tests.edge_spine.fake_result import fake_result\n"
        "for name in ('json', 'ply', 'png', 'stl', 'csv'): FORMATS[name].render(fake_result())\n"
        "print('trimesh' in sys.modules)\n"
    )
    root = Path(__file__).resolve().parents[3]
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, timeout=120)
    assert (ended.stdout.split(), ended.stderr) == (["False"], "")
