"""The structured report in the real OHIF viewer, on request: npm's package @ohif/app is 50 MB and needs minutes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_spine.result import NOTICE, SpineResult
from tests.edge_spine.outputs import ohif_viewer
from tests.edge_spine.outputs.dicom_checks import DEMO_SCAN, render

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.hazard("inferred-as-measured", "taken-for-diagnosis")
def test_ohif_shows_the_report_and_takes_over_its_cobb_angles_alone(demo_result: SpineResult, tmp_path: Path) -> None:
    if not (dist := os.environ.get("EDGE_SPINE_OHIF")):
        pytest.skip("takes minutes: EDGE_SPINE_OHIF=FOLDER, the folder dist of npm's package @ohif/app, asks for it")
    if not (shutil.which("Orthanc") and Path(ohif_viewer.DICOMWEB).exists() and shutil.which("chromedriver")):
        pytest.skip("Debian's packages orthanc, orthanc-dicomweb and chromium-driver are not all installed")
    (tmp_path / "report.dcm").write_bytes(render("sr", demo_result))
    folder = Path(os.environ.get("EDGE_SPINE_SCREENSHOTS", tmp_path))
    files = (tmp_path, Path(dist).resolve(), DEMO_SCAN, tmp_path / "report.dcm")
    command = ["unshare", "--net", sys.executable, ohif_viewer.__file__, *map(str, files)]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=900, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert ended.returncode == 0, ended.stderr
    shown = json.loads(ended.stdout)
    for picture in tmp_path.glob("*.png"):
        shutil.copy(picture, folder) if folder != tmp_path else None
    curves = demo_result.measurements.scoliosis_curves
    for curve in curves:
        assert f"Cobb angle: {curve.cobb_deg:.2f} deg" in shown["report"]
    assert "Kyphosis T4-T12, inferred, not seen" in shown["report"]
    # The viewer measures the angles again, with the two spacings exchanged.
    row, column = demo_result.scan.pixel_spacing_mm
    angles = sorted(map(float, re.findall(r"([\d.]+)\s*\N{DEGREE SIGN}", shown["taken_over"])), reverse=True)
    off = abs(row / column - 1)
    assert angles == [pytest.approx(curve.cobb_deg, rel=2 * off, abs=0.02) for curve in curves]
    for number in range(1, 1 + len(curves)):
        assert f"edge-spine lateral curve {number}: {NOTICE}" in shown["listed"]
    assert "yphosis" not in shown["taken_over"] + shown["listed"]
