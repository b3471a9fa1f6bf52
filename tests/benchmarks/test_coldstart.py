"""benchmarks/coldstart.py on real processes, once; and that a plain run imports nothing that it does not need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge_spine.engines import select
from tests.benchmarks.conftest import run_script

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SCAN = ROOT / "edge_spine/data/synthetic_whole_body.dcm"


def test_every_figure_is_there_and_they_fit_together(tmp_path: Path) -> None:
    _, printed, report = run_script("coldstart", tmp_path, "--runs", "1")
    marks = [values["median"] for values in report["marks_s"].values()]
    assert marks == sorted(marks) and marks[0] > 0 and marks[-1] < 60
    for part in ("command", "marks_s", "alone_ms"):
        for name, values in report[part].items():
            assert 0 < values["least"] <= values["median"] <= values["most"], name
    if sys.platform.startswith("linux"):
        assert 50 < report["command"]["peak_mb"]["median"] < 600
        assert report["command"]["processor_s"]["median"] > 0.1
    assert report["imports_ms"]["numpy"] > 1
    assert "at most 0.6 s" in printed and "within 60 ms of its reading" in printed and "install" not in report


def test_a_plain_run_loads_no_package_of_another_purpose() -> None:
    code = (
        "import sys, tempfile\nfrom edge_spine.cli.main import main\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        f"    options = ['--out', folder, '--write', 'json', '--engine', 'onnx-cpu', '-q']\n"
        f"    assert main(['run', {str(SCAN)!r}, *options]) == 0\n"
        "print('\\n'.join(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, cwd=ROOT
    )
    loaded = set(ended.stdout.splitlines())
    packages = {name.partition(".")[0] for name in loaded}
    assert {"edge_spine", "onnxruntime", "cv2", "pydicom"} <= packages
    assert not packages & {
        *("torch", "onnx", "openvino", "tensorrt", "pycuda", "scipy"),
        *("highdicom", "pynetdicom", "reportlab", "trimesh", "prometheus_client", "filelock"),
        *("pyarrow", "pandas", "ray", "distributed", "multiprocessing"),
    }
    drawing = {f"edge_spine.outputs.{name}" for name in ("preview_png", "drawing", "report_html", "glb", "stl")}
    # a processor that may cut off INT8 sums is checked against references when the engine is opened
    checking = set() if select._may_saturate() else {"edge_spine.engines.verification"}
    assert not loaded & (drawing | checking | {"edge_spine.comparison", "edge_spine.cohort"})
