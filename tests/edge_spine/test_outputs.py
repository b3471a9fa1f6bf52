from __future__ import annotations

import copy
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest

from edge_spine import files as atomic
from edge_spine.errors import UsageError
from edge_spine.outputs import preview_png, write_outputs
from edge_spine.outputs.drawing import palette, panels
from edge_spine.outputs.drawing.canvas import Box, Canvas, MillimetreView, shorten, text_mask
from edge_spine.outputs.drawing.end_lines import end_lines
from edge_spine.outputs.drawing.shading import shade
from edge_spine.outputs.registry import DEFAULT_FORMATS, FORMATS, parse_formats
from edge_spine.reconstruct import Spine
from edge_spine.result import SCHEMA, schema
from tests.edge_spine.fake_result import fake_bands, fake_curves, fake_pixels, fake_result


@pytest.fixture(scope="module")
def valid() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(schema())


# --- result.json


def test_a_result_is_valid_and_has_the_keys_of_the_contract(valid: jsonschema.Draft202012Validator) -> None:
    found = fake_result().to_dict()
    valid.validate(found)
    curves = found["curves"]
    assert list(found) == [
        "schema",
        "scan",
        "model",
        "quality",
        "curves",
        "measurements",
        "timing_ms",
        "notice",
    ]
    assert set(curves) == {"z", "coronal", "sagittal", "band_90"}
    assert curves["band_90"] == {"coronal": None, "sagittal": None}
    assert set(found["timing_ms"]) == {"read", "preprocess", "infer", "reconstruct", "write", "total"}
    assert found["notice"] == "Research use only. Not for diagnosis."
    assert found["schema"] == schema()["properties"]["schema"]["const"] == SCHEMA == "edge-spine/result/1"


def test_curves_keep_their_columns_and_three_decimals() -> None:
    result = fake_result()
    curves = json.loads(result.to_json())["curves"]
    np.testing.assert_allclose(curves["z"], result.curves.z, atol=5.1e-4)
    for column, name in enumerate(("left", "centre", "right")):
        np.testing.assert_allclose(curves["coronal"][name], result.curves.coronal[:, column], atol=5.1e-4)
    for column, name in enumerate(("anterior", "centre", "posterior")):
        np.testing.assert_allclose(curves["sagittal"][name], result.curves.sagittal[:, column], atol=5.1e-4)


def test_a_calibrated_band_is_valid_too(valid: jsonschema.Draft202012Validator) -> None:
    bands = fake_bands()
    found = fake_result(band_90=bands).to_dict()
    valid.validate(found)
    np.testing.assert_allclose(found["curves"]["band_90"]["coronal"], bands.coronal, atol=5.1e-4)
    np.testing.assert_allclose(found["curves"]["band_90"]["sagittal"], bands.sagittal, atol=5.1e-4)
    found["curves"]["band_90"]["coronal"] = None
    valid.validate(found)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("extra",), 1),
        (("curves", "extra"), 1),
        (("curves", "z"), [0.0] * 208),
        (("curves", "coronal", "left"), [0.0] * 210),
        (("curves", "band_90", "coronal"), [-1.0] * 209),
        (("curves", "band_90", "sagittal"), [1.0] * 208),
        (("curves", "band_90", "sagittal"), [None] * 209),
        (("measurements", "posture"), "standing"),
        (("measurements", "max_cobb_deg"), -1.0),
        (("measurements", "scoliosis_curves", 0, "side"), "middle"),
        (("measurements", "scoliosis_curves", 0, "apex_level"), "T13"),
        (("scan", "pixel_spacing_mm"), [2.4]),
        (("model", "sha256"), "short"),
        (("quality", "flags"), ["a", "a"]),
        (("timing_ms", "total"), -1),
        (("notice",), "For diagnosis."),
        (("schema",), "edge-spine/result/2"),
    ],
)
def test_the_schema_is_strict(valid: jsonschema.Draft202012Validator, path: tuple[Any, ...], value: Any) -> None:
    found = copy.deepcopy(fake_result().to_dict())
    place: Any = found
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert not valid.is_valid(found)


def test_every_key_is_required(valid: jsonschema.Draft202012Validator) -> None:
    whole = fake_result().to_dict()
    for key in whole:
        assert not valid.is_valid({name: value for name, value in whole.items() if name != key}), key


def test_a_number_that_is_not_finite_is_never_written() -> None:
    result = fake_result()
    broken = replace(result, measurements=replace(result.measurements, volume_ml=math.nan))
    with pytest.raises(ValueError, match="JSON compliant"):
        broken.to_json()


# --- spine.ply


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


# --- writing


def test_formats_are_parsed_in_a_fixed_order() -> None:
    assert parse_formats("png, json,PNG") == ("json", "png")
    assert parse_formats("stl,png,ply,json") == (*DEFAULT_FORMATS, "stl")


@pytest.mark.parametrize("names", ["json,docx", "", " , "])
def test_an_unknown_format_is_named_with_the_known_ones(names: str) -> None:
    with pytest.raises(UsageError, match="json, ply, png") as caught:
        parse_formats(names)
    if "docx" in names:
        assert "'docx'" in str(caught.value)


def test_all_outputs_are_written_and_timed(tmp_path: Path, valid: jsonschema.Draft202012Validator) -> None:
    folder = tmp_path / "new" / "scan"
    result, paths = write_outputs(fake_result(), folder)
    assert sorted(path.name for path in paths) == sorted(path.name for path in folder.iterdir())
    assert sorted(path.name for path in paths) == ["preview.png", "result.json", "spine.ply"]
    written = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    valid.validate(written)
    assert 0 < written["timing_ms"]["write"] < result.timing_ms["write"]
    assert result.timing_ms["total"] == pytest.approx(result.timing_ms["write"])


def test_only_what_is_asked_for_is_written_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("old", encoding="utf-8")
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    _, paths = write_outputs(fake_result(), tmp_path, ["json"])
    assert paths == [tmp_path / "result.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "result.json"]
    assert json.loads(paths[0].read_text(encoding="utf-8"))["timing_ms"]["write"] < 50


def test_a_failed_write_leaves_the_old_files_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")
    real_write = Path.write_bytes

    def full_disk(path: Path, content: bytes) -> int:
        if path.name.startswith(".b"):
            real_write(path, content[:1])
            raise OSError(28, "No space left on device")
        return real_write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        atomic.write_files(tmp_path, {"a": b"new", "b": b"new"})
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
    with pytest.raises(OSError, match="No space"):
        atomic.write_files(tmp_path / "made", {"a": b"new", "b": b"new"})
    assert not (tmp_path / "made").exists()


def test_an_interruption_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path, content: bytes) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_files(tmp_path / "made", {"a": b"new"})
    assert list(tmp_path.iterdir()) == []


# --- preview.png

_BUSY = SimpleNamespace(accepted=False, flags=tuple(f"a-rather-long-name-of-a-flag-number-{n}" for n in range(9)))
PREVIEWS = {
    "usual": {},
    "straight": {"curves": fake_curves(lateral_mm=0.0)},
    "one curve": {"curves": fake_curves(lateral_mm=20.0, waves=0.5)},
    "severe": {"curves": fake_curves(lateral_mm=60.0)},
    "many curves": {"curves": fake_curves(lateral_mm=9.0, waves=3.0)},
    "busy": {"quality": _BUSY, "source": "a_very_long_name_of_a_zip_file" * 6 + "!entry.dcm"},
    "small and anisotropic": {"pixels": fake_pixels(150, 109), "pixel_spacing_mm": (13.0, 6.0)},
    "large": {"pixels": fake_pixels(3164, 1088), "pixel_spacing_mm": (0.607, 0.605)},
    "at the edge": {"curves": fake_curves(middle_mm=20.0, top_mm=5.0)},
    "bands": {"band_90": fake_bands()},
    "everything": {
        "curves": fake_curves(lateral_mm=30.0, waves=2.0),
        "quality": _BUSY,
        "band_90": replace(fake_bands(), sagittal_gain=0.25),
    },
    "wide bands": {"band_90": fake_bands(coronal_mm=11.0, sagittal_mm=88.0)},
}


@pytest.mark.parametrize("name", PREVIEWS)
def test_no_text_overlaps_or_leaves_the_page(name: str) -> None:
    canvas = preview_png.draw(fake_result(**PREVIEWS[name]))
    for index, (text, box) in enumerate(canvas.texts):
        assert box.inside(canvas.box), text
        for other_text, other in canvas.texts[:index]:
            assert not box.overlaps(other), (text, other_text)


@pytest.mark.parametrize("name", ["usual", "straight", "busy"])
def test_the_preview_says_what_it_must(name: str) -> None:
    result = fake_result(**PREVIEWS[name])
    texts = [text for text, _ in preview_png.draw(result).texts]
    for wanted in ("Research use only. Not for diagnosis.", "inferred, not seen", "100 mm", "supine"):
        assert wanted in texts
    for letter in "RLAP":
        assert letter in texts
    curves = result.measurements.scoliosis_curves
    if curves:
        assert texts.count(f"{curves[0].cobb_deg:.1f}°") == 2  # beside its apex, and in the table
        assert curves[0].upper_end_level in texts
    else:
        assert "none" in texts
    assert ("Accepted" if result.quality.accepted else "Not accepted") in texts


def test_the_png_decodes_to_the_page() -> None:
    result = fake_result()
    picture = cv2.imdecode(np.frombuffer(FORMATS["png"].render(result), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(picture, preview_png.draw(result).image)
    assert picture.shape == (1000, 1600, 3)


@pytest.mark.parametrize("spacing", [(2.4, 2.4), (13.0, 4.0), (0.6, 0.5)])
def test_a_point_of_the_scan_is_shown_where_the_view_says(spacing: tuple[float, float]) -> None:
    shape = (round(1900 / spacing[0]), round(640 / spacing[1]))
    row_mm, column_mm = np.mgrid[0 : shape[0], 0 : shape[1]] * np.array(spacing)[:, np.newaxis, np.newaxis]
    bell = np.exp(-(((row_mm - 600) / 25) ** 2) - ((column_mm - 310) / 12) ** 2).astype(np.float32)
    view = MillimetreView(Box(10, 20, 300, 700), left_mm=220.0, top_mm=-380.0, px_per_mm=1.5)
    shown = panels.picture(view, bell, spacing, 0.0, 1.0).astype(np.float64)
    rows, columns = np.mgrid[0 : shown.shape[0], 0 : shown.shape[1]] + 0.5
    centre = ((columns * shown).sum() / shown.sum() + 10, (rows * shown).sum() / shown.sum() + 20)
    np.testing.assert_allclose(centre, view.points(310.0, -600.0)[0], atol=0.35)


def test_the_centre_curve_is_drawn_on_the_coronal_view() -> None:
    result = fake_result(curves=fake_curves(lateral_mm=0.0))
    canvas = preview_png.draw(result)
    view = panels.shared_view(result, preview_png.cards_of(Canvas(1600, 1000, (0, 0, 0))))
    for row in (30, 100, 180):
        x, y = view.points(result.curves.coronal[row, 1], result.curves.z[row])[0]
        drawn = canvas.image[int(y), int(x)][::-1].astype(int)
        assert np.abs(drawn - palette.YELLOW).max() < 40


def test_the_band_is_drawn_around_the_sagittal_centre_and_named() -> None:
    result = fake_result(band_90=fake_bands(sagittal_mm=6.0))
    canvas, plain = preview_png.draw(result), preview_png.draw(replace(result, band_90=None))
    texts = [text for text, _ in canvas.texts]
    assert "90 % band: 1.5 mm either side" in texts and "90 % band: 7.6 mm either side" in texts
    assert not any("band" in text for text, _ in plain.texts)
    cards = preview_png.cards_of(Canvas(1600, 1000, (0, 0, 0)))
    shared, box = panels.shared_view(result, cards), panels.picture_box(cards[2])
    across, half = result.curves.sagittal, result.band_90.sagittal
    middle = float(across.max() + across.min()) / 2
    view = MillimetreView(box, middle - box.width / shared.px_per_mm / 2, shared.top_mm, shared.px_per_mm)
    for row in (20, 100, 180):
        for share, drawn in ((-0.8, True), (0.8, True), (-1.25, False), (1.25, False)):
            x, y = view.points(across[row, 1] + share * half[row], result.curves.z[row])[0]
            found = canvas.image[int(y), int(x)].astype(int)
            without = plain.image[int(y), int(x)].astype(int)
            assert (np.abs(found - without).max() > 20) == drawn, (row, share)


@pytest.mark.parametrize("name", ["usual", "severe"])
def test_the_surface_views_show_the_whole_spine(name: str) -> None:
    canvas = preview_png.draw(fake_result(**PREVIEWS[name]))
    box = panels.picture_box(preview_png.cards_of(Canvas(1600, 1000, (0, 0, 0)))[3])
    shown = canvas.image[box.y : box.bottom, box.x : box.right].max(axis=2) > 20
    width = box.width // 2
    for view in (shown[:, :width], shown[:, width : 2 * width]):
        assert view[:, 10:-10].any()
        assert not view[:, :2].any()
        assert not view[:, -2:].any()
        assert not view[:2].any()


def test_end_lines_differ_by_the_cobb_angle() -> None:
    result = fake_result()
    for curve in result.measurements.scoliosis_curves:
        upper, lower = end_lines(result.spine.centreline, curve)
        assert abs(upper.tilt_deg - lower.tilt_deg) == pytest.approx(curve.cobb_deg)
        # At the upper end of a curve convex to the patient's right (image left) the spine descends to the
        # image's left, so its perpendicular rises to the right; and the other way round.
        assert (upper.tilt_deg < lower.tilt_deg) == (curve.side == "right")


def test_long_text_is_shortened_to_its_width() -> None:
    text = shorten("a long name " * 20, 200, 18)
    assert "..." in text
    assert text_mask(text, 18, False)[0].shape[1] <= 200
    assert shorten("short", 200, 18) == "short"


def test_the_degree_sign_is_drawn_in_any_version_of_opencv() -> None:
    plain, _ = text_mask("14", 40, True)
    signed, _ = text_mask("14°", 40, True)
    assert 8 <= signed.shape[1] - plain.shape[1] <= 30
    assert signed[:20, plain.shape[1] :].any()
    assert not signed[26:, plain.shape[1] + 2 :].any()


# --- shading


@pytest.mark.parametrize(("azimuth", "width_mm"), [(0.0, 40.0), (90.0, 20.0), (-45.0, math.hypot(40, 20) / 2**0.5)])
def test_the_outline_is_that_of_the_ellipses(azimuth: float, width_mm: float) -> None:
    z = np.linspace(0.0, -100.0, 50)
    spine = Spine(np.column_stack([0 * z, 0 * z, z]), np.full(50, 20.0), np.full(50, 10.0))
    across = np.arange(-40, 40, 0.5)
    brightness, coverage = shade(spine, azimuth, np.linspace(10.0, -110.0, 121), across)
    assert coverage[60].sum() * 0.5 == pytest.approx(width_mm, abs=0.6)
    assert not coverage[:9].any()
    assert not coverage[-9:].any()
    lit = brightness[60][coverage[60] == 1]
    assert lit[len(lit) // 3] > lit[-2]  # the light stands to the viewer's left
    assert np.isfinite(brightness).all()


def test_the_side_that_faces_the_light_from_above_is_brighter() -> None:
    z = np.linspace(0.0, -100.0, 101)
    leaning = np.column_stack([0 * z, 0.5 * z, z])
    spine = Spine(leaning, np.full(101, 15.0), np.full(101, 15.0))
    across = np.arange(-20.0, 20.0)
    towards_viewer, _ = shade(spine, 0.0, np.array([-49.0, -50.0, -51.0]), across)
    away, _ = shade(spine, 180.0, np.array([-49.0, -50.0, -51.0]), across)
    # It comes towards a viewer in front as it descends, so what is seen from the front faces upwards.
    assert towards_viewer[1].max() > away[1].max() + 0.1
