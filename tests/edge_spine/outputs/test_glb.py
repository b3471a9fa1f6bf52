"""spine.glb: the frame of glTF, normals, colours, and what it says of itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_spine.outputs.registry import FORMATS
from edge_spine.reconstruct import RING_POINTS
from edge_spine.vertebrae import LEVELS
from tests.edge_spine.fake_result import fake_curves, fake_result
from tests.edge_spine.outputs.mesh_files import RIGHT_CONVEX, accessor, glb_parts, primitive, read_glb, volume_ml

NOTICE = "Research use only. Not for diagnosis."


VALIDATE = """
const fs = require('fs'), validator = require('gltf-validator')
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))
  .then((report) => console.log(JSON.stringify(report.issues)))
"""


@pytest.mark.hazard("sides-exchanged")
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
    levels = np.array([LEVELS.index(level) for level in result.levels.names_at(result.spine.centreline[:, 2])])
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


@pytest.mark.hazard("unit-mistaken", "taken-for-diagnosis")
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
