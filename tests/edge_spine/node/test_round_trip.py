"""The acceptance test: DCMTK sends the bundled scan, the packaged model reads it, a real Orthanc keeps the results."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pydicom
import pytest

pytest.importorskip("pynetdicom", reason="pip install '.[node]'")
pytest.importorskip("highdicom", reason="pip install '.[node]'")

from tests.edge_spine.node.running import run_dcmtk


@pytest.mark.slow
def test_from_the_scanner_to_the_archive(tmp_path: Path) -> None:
    if sys.platform != "linux" or not shutil.which("Orthanc") or not shutil.which("unshare"):
        pytest.skip("Debian's orthanc and util-linux are needed")
    own_network = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    if subprocess.run([*own_network, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network of its own can be made here")
    scan = Path(str(files("edge_spine") / "data" / "synthetic_whole_body.dcm"))
    root = str(Path(__file__).resolve().parents[3])
    ended = subprocess.run(
        [*own_network, sys.executable, "-m", "tests.edge_spine.node.round_trip", str(tmp_path), str(scan)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=root,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])

    first, second = (each["objects"] for each in found["passes"])
    assert sorted(each["modality"] for each in first.values()) == ["M3D", "OT", "SR"]
    source = pydicom.dcmread(scan, stop_before_pixels=True)
    assert {each["study"] for each in first.values()} == {str(source.StudyInstanceUID)}
    assert {each["patient"] for each in first.values()} == {str(source.get("PatientID") or "")}
    assert second == first, "the second pass made other objects"
    assert found["left"] == []
    assert found["events"] == ["started", *(["received", "done", "delivered"] * 2)]
    assert all(size > 1000 for size in found["preview_bytes"]) and found["preview_bytes"]

    dump = run_dcmtk("dsrdump", str(tmp_path / "SR.dcm"))
    assert dump.returncode == 0, dump.stderr
    assert "Cobb" in dump.stdout and "Imaging Measurement Report" in dump.stdout
