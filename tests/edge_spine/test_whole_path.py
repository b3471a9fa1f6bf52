"""The bundled model, for real: the real scan, the bundled scan with its truth, and what must be refused."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_file

import edge_spine
from edge_spine import Scan, SpineEstimator, SpineResult, read_scan
from edge_spine.result import schema
from export.training.phantoms.phantom import make_subject
from export.training.phantoms.scanner import IDXA
from tests.edge_spine.cli.running import command

pytestmark = pytest.mark.slow

PACKAGE = Path(edge_spine.__file__).parent
DEMO_SCAN = PACKAGE / "data" / "synthetic_whole_body.dcm"
DEMO_SEED = 40_000_913
# the spine's midline in the real bone image, read off an enlarged view by eye: (row, column) in pixels
MIDLINE = (
    (142.5, 140.8),
    (167.5, 141.2),
    (192.5, 141.0),
    (217.5, 140.5),
    (237.5, 140.0),
    (255.0, 139.7),
    (285.0, 139.7),
    (305.0, 139.0),
    (328.0, 137.6),
)


def _assert_watertight(result: SpineResult) -> None:
    vertices, faces = result.spine.mesh()
    edges = Counter((a, b) for face in faces.tolist() for a, b in zip(face, face[1:] + face[:1], strict=True))
    assert max(edges.values()) == 1
    assert all((b, a) in edges for a, b in edges)
    corners = vertices[faces]
    volume = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert volume / 1000 == pytest.approx(result.measurements.volume_ml, rel=0.02)


def test_the_real_scan_gives_its_spine(real_bone: Path, estimator: SpineEstimator) -> None:
    scan = read_scan(real_bone)
    result = estimator(scan)
    jsonschema.Draft202012Validator(schema()).validate(json.loads(result.to_json()))
    _assert_watertight(result)
    rows, columns = np.array(MIDLINE).T
    row_mm, column_mm = scan.pixel_spacing_mm
    found = np.interp(rows * row_mm, -result.curves.z, result.curves.coronal[:, 1])
    assert np.abs(found - columns * column_mm).mean() < 3.0
    # vertebral widths at half maximum on this image run from 27 mm (T3) to 44 mm (L3)
    width = result.curves.coronal[:, 2] - result.curves.coronal[:, 0]
    assert 22 < width[20:40].mean() < 36 and 36 < width[160:190].mean() < 54
    # a plausible supine adult; this one's sagittal shape is unknown
    assert 10 < result.measurements.kyphosis_t4_t12_deg < 60
    assert 0 < result.measurements.lordosis_l1_l5_deg < 65
    assert 15 < np.ptp(result.curves.sagittal[:, 1]) < 90
    assert result.measurements.max_cobb_deg < 20


def _changed(scan: Scan, change: str) -> tuple[Scan, NDArray[np.float64]]:
    """Return the same scan as others would store it, and how far (mm, LPS) the body moved in it."""
    pixels, spacing = scan.pixels, scan.pixel_spacing_mm
    moved = np.zeros(3)
    if change == "shifted":
        pixels = cv2.warpAffine(pixels, np.float32([[1, 0, 8], [0, 1, -10]]), pixels.shape[::-1])
        moved = np.array([8 * spacing[1], 0.0, 10 * spacing[0]])
    elif change.startswith("scaled"):
        factor = float(change.split()[1])
        size = (round(pixels.shape[1] * factor), round(pixels.shape[0] * factor))
        resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
        spacing = (spacing[0] * pixels.shape[0] / size[1], spacing[1] * pixels.shape[1] / size[0])
        # the centre of the top-left pixel moves with the size of pixels
        apart = [(1 / factor - 1) / 2 * pitch for pitch in scan.pixel_spacing_mm]
        moved = np.array([-apart[1], 0.0, apart[0]])
        pixels = resized
    elif change == "12 bit":
        pixels = np.round(pixels / 255 * 4095)
    elif change == "inverted":
        pixels = 255 - pixels
    elif change == "noisy":
        noise = np.random.default_rng(0).normal(0, 4, pixels.shape)
        pixels = np.where(pixels > 0, np.clip(pixels + noise, 1, 255), 0)
    elif change == "feet cut":
        pixels = pixels[:640]
    return Scan(np.ascontiguousarray(pixels, dtype=np.float32), spacing, scan.source, None), moved


@pytest.mark.parametrize(
    "change",
    ["shifted", "scaled 0.8", "scaled 0.9", "scaled 1.1", "scaled 1.25", "12 bit", "inverted", "noisy", "feet cut"],
)
def test_the_real_scan_as_others_would_store_it(real_bone: Path, estimator: SpineEstimator, change: str) -> None:
    scan = read_scan(real_bone)
    other, moved = _changed(scan, change)
    before = estimator(scan).spine.centreline + moved
    result = estimator(other)
    after = result.spine.centreline
    # at the heights that both hold
    shared = (before[:, 2] <= after[0, 2]) & (before[:, 2] >= after[-1, 2])
    assert shared.sum() > 190
    apart = [before[shared, axis] - np.interp(-before[shared, 2], -after[:, 2], after[:, axis]) for axis in range(2)]
    # only the shape of the sagittal curve is known, so its mean over the shared rows is
    apart[1] -= apart[1].mean()
    assert np.hypot(*apart).mean() < 3.0
    assert (change == "feet cut") == ("feet-outside" in result.quality.flags)


def test_the_bundled_scan_is_near_its_truth(estimator: SpineEstimator) -> None:
    result = estimator(read_scan(DEMO_SCAN))
    truth = make_subject(DEMO_SEED, IDXA).truth(result.curves.z)
    assert np.abs(result.curves.coronal - truth.coronal).mean() < 3.0
    assert np.abs(result.curves.sagittal - truth.sagittal).mean() < 9.0
    assert result.measurements.scoliosis_curves[0].side == "right"
    _assert_watertight(result)


def _angles(result: SpineResult) -> list[float]:
    found = result.measurements
    return [found.max_cobb_deg, found.kyphosis_t4_t12_deg]


def test_a_mirrored_body_has_the_mirrored_spine(estimator: SpineEstimator) -> None:
    scan = read_scan(DEMO_SCAN)
    one, other = estimator(scan), estimator(replace(scan, pixels=np.ascontiguousarray(scan.pixels[:, ::-1])))
    last_mm = (scan.pixels.shape[1] - 1) * scan.pixel_spacing_mm[1]
    x = np.interp(-one.curves.z, -other.curves.z, last_mm - other.curves.coronal[:, 1])
    assert np.abs(x - one.curves.coronal[:, 1]).mean() < 0.5
    (first, *_), (second, *_) = one.measurements.scoliosis_curves, other.measurements.scoliosis_curves
    assert {first.side, second.side} == {"left", "right"}
    assert first.cobb_deg == pytest.approx(second.cobb_deg, abs=1.0)
    planes = [result.measurements.plane_of_maximal_curvature_deg for result in (one, other)]
    assert sum(planes) == pytest.approx(180.0, abs=10.0)


def test_inverted_greys_have_the_same_spine(estimator: SpineEstimator) -> None:
    scan = read_scan(DEMO_SCAN)
    one, other = estimator(scan), estimator(replace(scan, pixels=255 - scan.pixels))
    np.testing.assert_allclose(other.spine.centreline, one.spine.centreline, atol=0.05)
    assert _angles(other) == pytest.approx(_angles(one), abs=0.05)
    assert (one.quality.flags, other.quality.flags) == ((), ("inverted",))


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_another_spacing_scales_lengths_and_keeps_angles(estimator: SpineEstimator, factor: float) -> None:
    scan = read_scan(DEMO_SCAN)
    row_mm, column_mm = scan.pixel_spacing_mm
    one, other = estimator(scan), estimator(replace(scan, pixel_spacing_mm=(row_mm * factor, column_mm * factor)))
    for name, power in (("centreline_length_mm", 1), ("max_lateral_deviation_mm", 1), ("volume_ml", 3)):
        expected = getattr(one.measurements, name) * factor**power
        assert getattr(other.measurements, name) == pytest.approx(expected, rel=0.02), name
    assert _angles(other) == pytest.approx(_angles(one), abs=1.0)


def test_runs_alike_twice(estimator: SpineEstimator) -> None:
    one, two = (estimator(read_scan(DEMO_SCAN)).to_dict() for _ in range(2))
    one["timing_ms"] = two["timing_ms"] = {}
    assert one == two


@pytest.mark.hazard("bundle-changed")
@pytest.mark.parametrize("verb", ["run", "demo", "verify", "doctor"])
def test_one_flipped_byte_stops_every_verb(verb: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(PACKAGE / "models" / "spine", model)
    graph = model / "model.int8.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    arguments = {
        "run": ["run", DEMO_SCAN, "--out", tmp_path / "out"],
        "demo": ["demo", "--out", tmp_path / "out"],
        "verify": ["verify"],
        "doctor": ["doctor"],
    }[verb]
    done = command(*arguments, "--model", model)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    complaint = [line for line in done.stderr.splitlines() if "model.int8.onnx" in line]
    assert len(complaint) == 1 and "SHA-256" in complaint[0]
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_bad_input_gets_a_line_and_its_code(tmp_path: Path, make_dicom: object) -> None:
    whole = DEMO_SCAN.read_bytes()
    files = {
        "text.dcm": (b"this is no DICOM file", "unreadable"),
        "empty.dcm": (b"", "unreadable"),
        "truncated.dcm": (whole[: len(whole) // 2], "unreadable"),
        "dot.dcm": (make_dicom(np.zeros((1, 1), np.uint8)), "too-small"),  # type: ignore[operator]
        "chest.dcm": (
            make_dicom(  # type: ignore[operator]
                np.random.default_rng(0).integers(0, 255, (430, 350)).astype(np.uint8),
                Modality="DX",
                BodyPartExamined="CHEST",
                ProtocolName="Chest PA",
                Manufacturer="X",
                ManufacturerModelName="Y",
                ExposedArea=None,
                PixelSpacing=[1.0, 1.0],
            ),
            "not-dxa",
        ),
        "ct.dcm": (Path(str(get_testdata_file("CT_small.dcm", download=False))).read_bytes(), "not-dxa"),
    }
    for name, (content, _) in files.items():
        (tmp_path / name).write_bytes(content)
    out = tmp_path / "out"
    done = command("run", *(tmp_path / name for name in files), DEMO_SCAN, "--out", out, "--json")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found = {line["source"]: line["code"] for line in lines}
    assert found == {name: code for name, (_, code) in files.items()} | {DEMO_SCAN.name: None}
    assert all("\n" not in line["message"] and line["source"] in line["message"] for line in lines if line["code"])
    assert sorted(folder.name for folder in out.iterdir()) == [DEMO_SCAN.stem]
    (tmp_path / "nothing").mkdir()
    assert command("run", tmp_path / "nothing", "--out", out).returncode == 2
