"""The structured report: numbers, places on the stored image, and what readers of reports ask for."""

from __future__ import annotations

import io
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

from edge_spine.errors import OutputError
from edge_spine.estimator import SpineEstimator
from edge_spine.measure import AngleErrors, measure
from edge_spine.reading.orientation import turn_from_patient_orientation
from edge_spine.reading.read import scan_from_bytes
from edge_spine.result import SpineResult
from edge_spine.scan import Turn
from tests.edge_spine.fake_result import fake_bands, fake_curves
from tests.edge_spine.outputs.dicom_checks import (
    DEMO_SCAN,
    fake_dicom_result,
    header,
    ohif_measurements,
    points,
    program,
    read,
    render,
    usual,
)

hd = pytest.importorskip("highdicom", reason="pip install '.[dicom]'")


# by which OHIF knows its tool
COBB_TOOL = "Cornerstone3DTools@^0.1.0:CobbAngle:"


def find(group: Any, meaning: str) -> list[Any]:
    return [item for item in group.ContentSequence if item.ConceptNameCodeSequence[0].CodeMeaning == meaning]


def imaging_groups(report: Any) -> list[Any]:
    (container,) = find(report, "Imaging Measurements")
    return list(container.ContentSequence)


@pytest.fixture(scope="module")
def demo_groups(demo_result: SpineResult) -> list[Any]:
    """Groups of measurements in the report of the bundled scan."""
    return ohif_measurements(read(render("sr", demo_result)))


# --- what it says


def test_the_numbers_are_those_of_the_json() -> None:
    result = fake_dicom_result()
    expected = result.to_dict()["measurements"]
    found = {item["label"]: item["numbers"] for item in ohif_measurements(read(usual("sr")))}
    assert expected["scoliosis_curves"]
    for number, curve in enumerate(expected["scoliosis_curves"], start=1):
        numbers = found.pop(f"{COBB_TOOL}edge-spine lateral curve {number}")
        assert numbers == {"Cobb angle": (curve["cobb_deg"], "deg"), "Ferguson angle": (curve["ferguson_deg"], "deg")}
    assert found == {
        "edge-spine kyphosis T4-T12": {
            "Kyphosis T4-T12, inferred, not seen": (expected["kyphosis_t4_t12_deg"], "deg"),
        },
        "edge-spine lordosis L1-L5": {
            "Lordosis L1-L5, inferred, not seen": (expected["lordosis_l1_l5_deg"], "deg"),
        },
        "edge-spine centreline T1-L5": {
            "Path length": (expected["centreline_length_mm"], "mm"),
            "Greatest lateral deviation": (expected["max_lateral_deviation_mm"], "mm"),
            "Azimuth of the plane of maximal curvature, inferred": (
                expected["plane_of_maximal_curvature_deg"],
                "deg",
            ),
            "Volume": (expected["volume_ml"], "ml"),
            "90 % band of the centreline, mean half-width, coronal": (
                round(result.band_90.coronal.mean(), 3),
                "mm",
            ),
            "90 % band of the centreline, mean half-width, sagittal": (
                round(result.band_90.sagittal.mean(), 3),
                "mm",
            ),
        },
    }


def test_without_a_calibration_there_is_no_band() -> None:
    report = read(render("sr", fake_dicom_result(band_90=None)))
    assert not any("band" in name for item in ohif_measurements(report) for name in item["numbers"])


@pytest.mark.hazard("last-digit")
def test_intervals_are_uncertainties_in_the_unit_of_their_angle() -> None:
    plain = fake_dicom_result()
    known = measure(plain.spine, plain.levels, AngleErrors((0.0,), (4.0,), 5.0, 6.0))
    report = read(render("sr", replace(plain, measurements=known)))
    found = {}
    for group in imaging_groups(report):
        for number in (item for item in group.ContentSequence if item.ValueType == "NUM"):
            for part in number.get("ContentSequence", []):
                if part.RelationshipType == "HAS PROPERTIES":
                    (value,) = part.MeasuredValueSequence
                    assert value.MeasurementUnitsCodeSequence[0].CodeValue == "deg"
                    name = number.ConceptNameCodeSequence[0].CodeMeaning
                    found.setdefault(name, []).append(float(value.NumericValue))
    assert found == {
        "Cobb angle": [4.0, 4.0],
        "Kyphosis T4-T12, inferred, not seen": [5.0, 5.0],
        "Lordosis L1-L5, inferred, not seen": [6.0, 6.0],
    }


def test_levels_are_called_estimated_only_where_they_are() -> None:
    average = fake_dicom_result()
    found = replace(average, levels=replace(average.levels, z_error=np.full(17, 2.0)))
    for result, words in ((average, "average proportions"), (found, "found in the image")):
        (container,) = find(read(render("sr", result)), "Qualitative Evaluations")
        assert words in [item.TextValue for item in find(container, "Comment")][1]


@pytest.mark.hazard("place-on-wrong-side")
def test_each_curve_names_its_levels_and_side() -> None:
    result = fake_dicom_result()
    groups = imaging_groups(read(usual("sr")))
    for curve, group in zip(result.measurements.scoliosis_curves, groups, strict=False):
        sites = [item.ConceptCodeSequence[0].CodeMeaning for item in find(group, "Finding Site")]
        assert sites == [f"{curve.upper_end_level} vertebra", f"{curve.lower_end_level} vertebra"]
        (apex,) = find(group, "Level of the apex, estimated")
        assert apex.ConceptCodeSequence[0].CodeMeaning == f"{curve.apex_level} vertebra"
        (side,) = find(group, "Side to which the curve is convex")
        expected = {"left": codes.SCT.Left, "right": codes.SCT.Right}[curve.side]
        assert side.ConceptCodeSequence[0].CodeValue == expected.value
        for name in ("Algorithm Name", "Algorithm Version"):
            assert len(find(group, name)) == 1
        parameters = [item.TextValue for item in find(group, "Algorithm Parameters")]
        assert parameters == [f"model FAKE 0, SHA-256 {'0' * 64}, engine onnx-cpu, precision int8"]


@pytest.mark.hazard("inferred-as-measured")
def test_it_says_what_the_side_view_is_worth_where_that_is_known() -> None:
    plain = fake_dicom_result(band_90=fake_bands())
    told = replace(plain, band_90=replace(fake_bands(), sagittal_gain=0.25))
    texts = []
    for result in (plain, told):
        (container,) = find(read(render("sr", result)), "Qualitative Evaluations")
        texts.append([item.TextValue for item in find(container, "Comment")])
    sentence = "Side view inferred, on people it has not seen about 25 % better than an average spine."
    assert texts[1] == [*texts[0], sentence]


@pytest.mark.hazard("taken-for-diagnosis")
def test_it_is_unverified_and_carries_notice_flags_and_posture() -> None:
    result = fake_dicom_result()
    flagged = replace(result, quality=type(result.quality)(accepted=True, flags=("trunk-leans", "spine-faint")))
    report = read(render("sr", flagged))
    assert (report.VerificationFlag, report.CompletionFlag, report.PreliminaryFlag) == (
        "UNVERIFIED",
        "COMPLETE",
        "PRELIMINARY",
    )
    (container,) = find(report, "Qualitative Evaluations")
    comments = [item.TextValue for item in find(container, "Comment")]
    assert comments[0] == "CAUTION: Not for Diagnostic Use, for research use only."
    assert "lying down" in comments[1] and "inferred, not seen" in comments[1]
    assert [item.TextValue for item in find(container, "Quality flag")] == [
        "trunk-leans: trunk leans to one side",
        "spine-faint: spine is faint in the image",
    ]
    (accepted,) = find(container, "Accepted by the checks of quality")
    assert accepted.ConceptCodeSequence[0].CodeMeaning == "Yes"


def test_the_3d_curve_is_there_in_a_frame_of_its_own() -> None:
    result = fake_dicom_result(header(FrameOfReferenceUID="1.2.3.9"))
    report = read(render("sr", result))
    (container,) = find(report, "3D centreline, inferred, not seen")
    (comment,), (curve,) = find(container, "Comment"), find(container, "Centerline")
    assert "patient's left" in comment.TextValue
    np.testing.assert_allclose(points(curve, 3), result.spine.centreline, atol=6e-4)
    surface = read(render("stl-dcm", result))
    assert curve.ReferencedFrameOfReferenceUID == surface.FrameOfReferenceUID != "1.2.3.9"


# --- where it is


def test_the_upper_left_corner_of_the_first_pixel_is_zero() -> None:
    from edge_spine.outputs.structured_report import stored_points

    result = fake_dicom_result(pixel_spacing_mm=(2.0, 4.0))
    rows, columns = result.scan.pixels.shape
    x, z = np.array([0.0, 40.0, 4.0 * columns, -99.0]), np.array([0.0, -20.0, -2.0 * rows, 99.0])
    np.testing.assert_allclose(
        stored_points(result, x, z), [[0.5, 0.5], [10.5, 10.5], [columns, rows], [0.0, 0.0]], atol=1e-9
    )


def in_mm(result: SpineResult, found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x and z of places on an image that was not turned, by hand."""
    row_mm, column_mm = result.scan.pixel_spacing_mm
    return np.column_stack([(found[:, 0] - 0.5) * column_mm, -(found[:, 1] - 0.5) * row_mm])


@pytest.mark.hazard("place-on-wrong-side")
def test_cobb_lines_cross_the_end_vertebrae_at_the_angle(demo_result: SpineResult, demo_groups: list[Any]) -> None:
    spine = demo_result.spine
    groups = {item["label"]: item for item in demo_groups}
    curves = demo_result.measurements.scoliosis_curves
    assert len(curves) > 1
    for number, curve in enumerate(curves, start=1):
        group = groups[f"{COBB_TOOL}edge-spine lateral curve {number}"]
        assert (group["type"], group["points"].shape) == ("POLYLINE", (4, 2))
        ends = in_mm(demo_result, group["points"])
        upper, lower = ends[1] - ends[0], ends[2] - ends[3]
        angle = np.degrees(np.arccos(upper @ lower / np.linalg.norm(upper) / np.linalg.norm(lower)))
        assert angle == pytest.approx(curve.cobb_deg, abs=0.02)
        for line, row in ((ends[:2], curve.upper_end), (ends[2:], curve.lower_end)):
            np.testing.assert_allclose(line.mean(axis=0), spine.centreline[row, [0, 2]], atol=0.01)
            assert np.linalg.norm(line[1] - line[0]) == pytest.approx(2 * spine.half_width[row], abs=0.01)
        # What joins the two lines runs along the concave side; the patient's left has the larger x.
        concave, middle = ends[1:3, 0].mean(), spine.centreline[curve.apex, 0]
        assert concave < middle if curve.side == "left" else concave > middle


def test_the_centreline_runs_along_the_spine(demo_result: SpineResult, demo_groups: list[Any]) -> None:
    groups = {item["label"]: item for item in demo_groups}
    whole = in_mm(demo_result, groups["edge-spine centreline T1-L5"]["points"])
    np.testing.assert_allclose(whole, demo_result.spine.centreline[:, [0, 2]], atol=0.01)
    kyphosis = groups["edge-spine kyphosis T4-T12"]["points"]
    lordosis = groups["edge-spine lordosis L1-L5"]["points"]
    assert kyphosis[0, 1] < kyphosis[-1, 1] <= lordosis[0, 1] < lordosis[-1, 1]
    assert lordosis[-1, 1] == groups["edge-spine centreline T1-L5"]["points"][-1, 1]


# How an image is stored, and where its places lie for one who sees it upright: the size is the upright one.
TURNS = {
    ("L", "F"): lambda c, r, columns, rows: (c, r),
    ("R", "F"): lambda c, r, columns, rows: (columns - c, r),
    ("L", "H"): lambda c, r, columns, rows: (c, rows - r),
    ("R", "H"): lambda c, r, columns, rows: (columns - c, rows - r),
    ("F", "L"): lambda c, r, columns, rows: (r, c),
    ("H", "L"): lambda c, r, columns, rows: (rows - r, c),
    ("F", "R"): lambda c, r, columns, rows: (r, columns - c),
    ("H", "R"): lambda c, r, columns, rows: (rows - r, columns - c),
}


def stored_as(path: Path, orientation: tuple[str, str]) -> bytes:
    """Return a scan as a scanner that stores its images differently would."""
    dataset = pydicom.dcmread(path)
    upright = dataset.pixel_array
    turn = turn_from_patient_orientation(orientation)
    pixels = upright[::-1] if turn.flip_rows else upright
    pixels = pixels[:, ::-1] if turn.flip_columns else pixels
    pixels = np.ascontiguousarray(pixels.T if turn.transpose else pixels)
    dataset.Rows, dataset.Columns = pixels.shape
    if turn.transpose:
        dataset.ExposedArea = dataset.ExposedArea[::-1]
    dataset.PatientOrientation = list(orientation)
    dataset.PixelData = pixels.tobytes()
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


@pytest.mark.hazard("place-on-wrong-side")
@pytest.mark.parametrize(
    "orientation",
    [pytest.param(turn, marks=() if turn in (("L", "F"), ("H", "R")) else pytest.mark.slow) for turn in TURNS],
)
def test_places_are_on_the_image_as_it_is_stored(
    orientation: tuple[str, str], estimator: SpineEstimator, demo_result: SpineResult, demo_groups: list[Any]
) -> None:
    result = estimator(scan_from_bytes(stored_as(DEMO_SCAN, orientation), "turned.dcm"))
    assert bool(result.scan.turn != Turn()) == (orientation != ("L", "F"))
    report = read(render("sr", result))
    rows, columns = demo_result.scan.pixels.shape
    found = ohif_measurements(report)
    assert [item["label"] for item in found] == [item["label"] for item in demo_groups]
    for here, there in zip(found, demo_groups, strict=True):
        column, row = there["points"].T
        expected = np.column_stack(TURNS[orientation](column, row, columns, rows))
        np.testing.assert_allclose(here["points"], expected, atol=0.005)
    stored = pydicom.dcmread(io.BytesIO(stored_as(DEMO_SCAN, orientation))).pixel_array.astype(float)
    along = next(item for item in found if "centreline" in item["label"])["points"]
    sampled = stored[np.floor(along[:, 1]).astype(int), np.floor(along[:, 0]).astype(int)]
    # Bone under the curve, whichever way the image lies.
    assert np.median(sampled) > np.percentile(stored[stored > 0], 85)


def test_the_real_scan_is_marked_along_its_spine(real_bone: Path, estimator: SpineEstimator) -> None:
    result = estimator(scan_from_bytes(real_bone.read_bytes(), real_bone.name))
    groups = ohif_measurements(read(render("sr", result)))
    along = next(item for item in groups if "centreline" in item["label"])["points"]
    # Places read off an enlarged view by eye: (row, column) in pixels.
    midline = np.array([(142.5, 140.8), (192.5, 141.0), (237.5, 140.0), (285.0, 139.7), (328.0, 137.6)])
    column = np.interp(midline[:, 0] + 0.5, along[:, 1], along[:, 0])
    assert np.abs(column - (midline[:, 1] + 0.5)).mean() < 1.5


def test_nothing_leaves_the_image() -> None:
    result = fake_dicom_result(curves=fake_curves(middle_mm=5.0, lateral_mm=30.0))
    rows, columns = result.scan.pixels.shape
    for item in ohif_measurements(read(render("sr", result))):
        assert item["points"].min() >= 0
        assert (item["points"] <= (columns, rows)).all()


# --- other readers


def test_highdicom_reads_it_back(tmp_path: Path) -> None:
    result = fake_dicom_result()
    file = tmp_path / "report.dcm"
    file.write_bytes(usual("sr"))
    document = hd.sr.srread(file)
    groups = document.content.get_planar_roi_measurement_groups()
    curves = result.measurements.scoliosis_curves
    assert len(groups) == len(curves) + 3
    cobb = [group.get_measurements(name=codes.SCT.CobbAngle) for group in groups]
    assert [items[0].value for items in cobb if items] == [round(curve.cobb_deg, 3) for curve in curves]
    assert all(group.roi is not None and group.tracking_uid and group.tracking_identifier for group in groups)
    everything = hd.sr.utils.find_content_items(document, recursive=True)
    assert sum(item.value_type.value == "SCOORD3D" for item in everything) == 1
    evidence = document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"
    (context,) = document.content.get_observer_contexts()
    assert context.observer_identifying_attributes.name == "edge-spine"


@pytest.mark.parametrize("name", ["Doe^Jane", "Yamada^Tarou=山田^太郎=やまだ^たろう"])
def test_dcmtk_reads_it(name: str, tmp_path: Path) -> None:
    file = tmp_path / "report.dcm"
    source = header(SpecificCharacterSet="ISO_IR 192", PatientName=name)
    file.write_bytes(render("sr", fake_dicom_result(source)))
    ended = subprocess.run([program("dsrdump"), str(file)], capture_output=True, text=True, encoding="utf-8")
    assert ended.returncode == 0
    assert [line for line in ended.stderr.splitlines() if line.startswith(("E:", "F:"))] == []
    assert '"Cobb angle")="' in ended.stdout and "SCOORD3D" in ended.stdout


def test_ohif_finds_each_group_on_the_source_image(demo_result: SpineResult, demo_groups: list[Any]) -> None:
    found = demo_groups
    assert len(found) == len(demo_result.measurements.scoliosis_curves) + 3
    assert {item["image"] for item in found} == {demo_result.scan.sop_instance_uid}
    assert {item["type"] for item in found} == {"POLYLINE"}
    assert len({item["uid"] for item in found}) == len({item["label"] for item in found}) == len(found)


@pytest.mark.parametrize("uid", ["1.2.3.999", "1.2.840.10008.5.1.4.1.1.88.34"])
def test_a_source_that_is_no_standard_image_is_refused(uid: str) -> None:
    with pytest.raises(OutputError, match="SOPClassUID"):
        render("sr", fake_dicom_result(header(SOPClassUID=uid)))


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.840.10008.5.1.4.1.1.1",
        "1.2.840.10008.5.1.4.1.1.1.1",
        "1.2.840.10008.5.1.4.1.1.7",
    ],
)
def test_a_source_may_be_any_image_that_densitometers_send(uid: str) -> None:
    assert ohif_measurements(read(render("sr", fake_dicom_result(header(SOPClassUID=uid)))))
