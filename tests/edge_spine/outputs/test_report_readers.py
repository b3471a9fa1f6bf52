"""What other programs make of the structured report: OHIF's adapters from npm, and dcmqi's reader."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_spine.result import NOTICE, SpineResult
from tests.edge_spine.outputs.dicom_checks import fake_dicom_result, ohif_measurements, read, render

pytest.importorskip("highdicom", reason="pip install '.[dicom]'")

ADAPTERS = "@cornerstonejs/adapters"
# As OHIF's `hydrateStructuredReport`: the report, the images that it names, and what is known of their plane. The
# angle is also measured again by the viewer's tool, from the points.
HYDRATE = """
import fs from 'node:fs'
const [file, uid, rows, columns, rowPixelSpacing, columnPixelSpacing] = process.argv.slice(1)
console.log = () => {}
const dcmjs = (await import('dcmjs')).default
const { metaData } = await import('@cornerstonejs/core')
const { adaptersSR } = await import('@cornerstonejs/adapters')
const { utilities } = await import('@cornerstonejs/tools')
const dataset = dcmjs.data.DicomMetaDictionary.naturalizeDataset(
  dcmjs.data.DicomMessage.readFile(new Uint8Array(fs.readFileSync(file)).buffer).dict)
const plane = {
  rowCosines: [1, 0, 0], columnCosines: [0, 1, 0], imagePositionPatient: [0, 0, 0],
  rowPixelSpacing: +rowPixelSpacing, columnPixelSpacing: +columnPixelSpacing, rows: +rows, columns: +columns,
}
metaData.addProvider((type) => type === 'imagePlaneModule' ? plane : undefined)
const found = adaptersSR.Cornerstone3D.MeasurementReport.generateToolState(
  dataset, { [uid]: 'image', [`${uid}:1`]: 'image' }, metaData)
process.stdout.write(JSON.stringify(Object.fromEntries(Object.entries(found).map(([tool, items]) => [
  tool, items.map(({ annotation: { data }, findingSites, TrackingUniqueIdentifier }) => ({
    angle: data.cachedStats['imageId:image'].angle,
    measured: utilities.math.angle.angleBetweenLines(data.handles.points.slice(0, 2), data.handles.points.slice(2)),
    label: data.label, sites: findingSites.map((site) => (site[0] ?? site).CodeMeaning), uid: TrackingUniqueIdentifier,
  }))]))))
"""


def hydrated(report: bytes, result: SpineResult, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what OHIF's adapters turn a report into, by the viewer's tool."""
    node = shutil.which("node")
    modules = [Path(path) for path in os.environ.get("NODE_PATH", "").split(os.pathsep) if path]
    there = next((path for path in modules if (path / ADAPTERS).is_dir()), None)
    if node is None or there is None:
        pytest.skip(f"npm's package {ADAPTERS} is not in NODE_PATH (.ci/run installs it)")
    (folder / "report.dcm").write_bytes(report)
    # Cornerstone takes the spacing of rows for that along a row: exchanged here, so that its own angle can be compared
    shape, spacing = result.scan.pixels.shape, result.scan.pixel_spacing_mm[::-1]
    known = map(str, (folder / "report.dcm", result.scan.header.SOPInstanceUID, *shape, *spacing))
    # modules are looked for from the current folder on
    command = [node, "--input-type=module", "-e", HYDRATE, *known]
    ended = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=there.parent, timeout=300)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, list[dict[str, Any]]] = json.loads(ended.stdout)
    return found


@pytest.mark.hazard("inferred-as-measured", "taken-for-diagnosis")
@pytest.mark.slow
def test_ohif_turns_each_curve_into_a_cobb_angle_of_its_own(demo_result: SpineResult, tmp_path: Path) -> None:
    report = render("sr", demo_result)
    found = hydrated(report, demo_result, tmp_path)
    # what is inferred, not seen, never becomes a measurement on the image
    assert set(found) == {"CobbAngle"}
    curves = demo_result.measurements.scoliosis_curves
    assert len(found["CobbAngle"]) == len(curves) > 1
    groups = ohif_measurements(read(report))
    for number, (item, curve) in enumerate(zip(found["CobbAngle"], curves, strict=True), start=1):
        assert item["angle"] == round(curve.cobb_deg, 3)
        assert item["measured"] == pytest.approx(curve.cobb_deg, abs=0.02)
        assert item["sites"] == [f"{curve.upper_end_level} vertebra", f"{curve.lower_end_level} vertebra"]
        assert item["label"] == f"edge-spine lateral curve {number}: {NOTICE}"
        assert item["uid"] == groups[number - 1]["uid"]


@pytest.mark.hazard("unnamed-model")
def test_dcmqi_reads_the_angles_and_what_computed_them(tmp_path: Path) -> None:
    # an environment need not be active for its tests
    places = (str(Path(sys.executable).parent), os.environ.get("PATH", ""))
    reader = shutil.which("tid1500reader", path=os.pathsep.join(places))
    if reader is None:
        pytest.skip("the program tid1500reader is not installed (pip install dcmqi)")
    result = fake_dicom_result()
    (tmp_path / "report.dcm").write_bytes(render("sr", result))
    files = ["--inputDICOM", str(tmp_path / "report.dcm"), "--outputMetadata", str(tmp_path / "found.json")]
    ended = subprocess.run([reader, *files], capture_output=True, text=True, errors="replace", timeout=120)
    assert ended.returncode == 0, ended.stderr
    groups = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["Measurements"]
    curves = result.measurements.scoliosis_curves
    assert len(groups) == len(curves) + 3
    for group in groups:
        (parameters,) = group["measurementAlgorithmIdentification"]["AlgorithmParameters"]
        assert all(result.model[key] in parameters for key in ("name", "version", "sha256", "engine", "precision"))
    for curve, group in zip(curves, groups, strict=False):
        assert float(group["measurementItems"][0]["value"]) == round(curve.cobb_deg, 3)
        _, *levels, comment = (item["conceptValue"] for item in group["qualitativeEvaluations"])
        ends = (curve.apex_level, curve.upper_end_level, curve.lower_end_level)
        assert [level["CodeMeaning"] for level in levels] == [f"{level} vertebra" for level in ends]
        assert NOTICE in comment
