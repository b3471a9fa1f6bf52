"""Meshes in files, read by their specifications alone."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

# One lateral curve, convex to the patient's right: towards smaller x.
RIGHT_CONVEX = {"lateral_mm": 30.0, "waves": 0.5}


STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])

Mesh = tuple[NDArray[np.float64], NDArray[np.int64]]


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
    triangles = np.frombuffer(data, STL_TRIANGLE, struct.unpack("<I", data[80:84])[0], 84)
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
