"""One surface in three formats: the same shape, size and place, the right hand, and readers that are not ours."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest

from edge_spine.measure import scoliosis_curves
from edge_spine.outputs.registry import FORMATS
from edge_spine.quality import Quality
from tests.edge_spine.fake_result import fake_bands, fake_curves, fake_result
from tests.edge_spine.outputs.mesh_files import READERS, RIGHT_CONVEX, volume_ml


@pytest.mark.hazard("unit-mistaken")
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


@pytest.mark.hazard("sides-exchanged")
@pytest.mark.parametrize("name", READERS)
def test_a_curve_to_the_right_stays_one_for_whoever_looks_at_the_front(name: str, trimesh: Any) -> None:
    result = fake_result(curves=fake_curves(**RIGHT_CONVEX))
    assert result.measurements.scoliosis_curves[0].side == "right"
    vertices, _ = READERS[name](FORMATS[name].render(result))
    heights = np.unique(vertices[:, 2].round(3))[::-1]
    x = [vertices[np.abs(vertices[:, 2] - z) < 2e-3, 0].mean() for z in heights]
    assert scoliosis_curves(x, heights)[0].side == "right"


@pytest.mark.hazard("taken-for-diagnosis")
@pytest.mark.parametrize("name", ["stl", "ply", "glb", "csv"])
def test_a_file_taken_out_of_its_folder_tells_flags_bands_and_research_use(name: str, trimesh: Any) -> None:
    named = fake_result().model | {"name": "\u00f6\nend_header", "version": "=1"}
    flags = Quality(True, ("metal", "levels-uncertain"))
    data = FORMATS[name].render(fake_result(band_90=fake_bands(), quality=flags, model=named))
    said = _said(name, data, trimesh)
    if name == "stl":
        assert said == "edge-spine mm SPACE=LPS research only, not diagnostic 2 flags 90% x+-3 y+-7"
        return
    expected = ("metal levels-uncertain", "Research use only. Not for diagnosis.", "\\xf6?end_header =1", "f" * 64)
    assert all(text in said for text in expected)
    assert "up to 3 mm in x, 7 mm in y" in said or name == "csv"


def _said(name: str, data: bytes, trimesh: Any) -> str:
    """Return what a file says beside the shape, read by a reader that is not ours where one shows it."""
    if name == "csv":
        rows = list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))
        assert len(rows) == 209 and all(None not in row.values() for row in rows)
        ((*said,),) = {tuple(list(row.values())[10:]) for row in rows}
        return "\n".join(said)
    loaded = trimesh.load(io.BytesIO(data), file_type=name)
    if name == "glb":
        return "\n".join(map(str, loaded.graph.transforms.edge_data["world", "spine"]["metadata"].values()))
    assert len(loaded.faces) > 1000
    return str(loaded.metadata["header"]) if name == "stl" else data.partition(b"\nend_header\n")[0].decode("ascii")


def test_the_header_of_an_stl_has_room_for_every_number_of_flags_and_width() -> None:
    bands = fake_bands(coronal_mm=60.0, sagittal_mm=90.0)
    flagged = Quality(True, tuple(map(str, range(26))))
    header = FORMATS["stl"].render(fake_result(band_90=bands, quality=flagged))[:80]
    assert header.decode().endswith("26 flags 90% x+-108 y+-162")


@pytest.mark.parametrize("name", ["stl", "ply", "glb", "csv"])
def test_the_same_result_gives_the_same_bytes(name: str) -> None:
    needs = FORMATS[name].needs
    if needs is not None:
        pytest.importorskip(needs[0], reason=f"pip install '.[{needs[1]}]'")
    first, second = (FORMATS[name].render(fake_result(band_90=fake_bands())) for _ in range(2))
    assert first == second
    timed = fake_result(band_90=fake_bands(), source="another.dcm").with_timing(read=12.0)
    assert FORMATS[name].render(timed) == first
