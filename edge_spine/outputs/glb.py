"""spine.glb: the coloured surface as binary glTF 2.0, for Blender, browsers and slides."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.outputs.drawing.shading import largest_curve_tint
from edge_spine.outputs.wording import about
from edge_spine.reconstruct import RING_POINTS
from edge_spine.result import NOTICE, SpineResult
from edge_spine.vertebrae import LEVELS

# Metres, +X to the patient's left, +Y to the head, +Z to the front: a rotation, which keeps left and right.
GLTF_FROM_LPS_MM = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]) / 1000
# Brightness of every other vertebra, low enough to show in grey.
_DARKER = 0.74


def render(result: SpineResult) -> bytes:
    """Return the closed surface as GLB, light and dark by vertebral level.

    The points are those of spine.ply in metres and glTF's axes, by `GLTF_FROM_LPS_MM`. The file holds no lines, since
    MeshLab 2025.07 crashes on them.
    """
    import trimesh

    vertices, faces = result.mesh()
    scene = trimesh.Scene()
    scene.add_geometry(
        trimesh.Trimesh(
            vertices @ GLTF_FROM_LPS_MM.T,
            faces,
            vertex_normals=smooth_normals(vertices, faces) @ GLTF_FROM_LPS_MM.T * 1000,
            vertex_colors=_vertex_colours(result),
            process=False,
        ),
        node_name="spine",
        geom_name="spine",
    )

    extras = {
        **about(result),
        "unit": "metre",
        "axes": "+X to the patient's left, +Y to the head, +Z to anterior",
        "source_frame": "DICOM LPS, mm: x = X * 1000, y = -Z * 1000, z = Y * 1000, with x, y, z as in result.json",
        "colours": "levels T1 to L5, light and dark in turns; orange along the largest lateral curve",
    }

    def complete(tree: dict[str, Any]) -> None:
        tree["asset"] |= {"generator": "edge-spine, trimesh", "copyright": NOTICE, "extras": extras}
        tree["materials"] = [{"name": "bone", "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.6}}]
        tree["meshes"][0]["primitives"][0]["material"] = 0
        # Blender shows the extras of nodes, not those of the asset.
        for node in tree["nodes"]:
            node["extras"] = extras

    gltf: Any = trimesh.exchange.gltf
    exported: bytes = gltf.export_glb(scene, include_normals=True, tree_postprocessor=complete)
    return exported


def smooth_normals(vertices: NDArray[np.float64], faces: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return unit normals (V, 3) of `Spine.mesh`: those of the side, and up and down at the centres of the caps."""
    # The end caps are left out: their large triangles would tilt the normals of the rims.
    side = faces[: -2 * RING_POINTS]
    corners = vertices[side]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, side[:, corner], across)
    normals[-2:] = (0, 0, 1), (0, 0, -1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return normals


def _vertex_colours(result: SpineResult) -> NDArray[np.uint8]:
    """Return red, green, blue and opacity, (V, 4) from 0 to 255, linear as glTF requires."""
    dark = np.array([LEVELS.index(level) % 2 for level in result.levels.names_at(result.spine.centreline[:, 2])], bool)
    rows = largest_curve_tint(result, result.spine.centreline[:, 2])
    rows[dark] *= _DARKER
    of_vertex = np.concatenate([np.repeat(rows, RING_POINTS, axis=0), rows[[0, -1]]]) / 255
    linear = np.where(of_vertex <= 0.04045, of_vertex / 12.92, ((of_vertex + 0.055) / 1.055) ** 2.4)
    colours = np.full((len(linear), 4), 255, np.uint8)
    colours[:, :3] = np.rint(linear * 255)
    return colours
