"""The packaged spine-lite: found by its name, small, as near to its PyTorch network as the large model, and a spine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_spine import SpineEstimator, read_scan
from edge_spine.bundle import load_bundle
from edge_spine.bundle.load import MODELS
from edge_spine.engines import open_engine
from edge_spine.engines.verification import verify
from edge_spine.errors import BundleError

ROOT = Path(__file__).resolve().parents[2]
SCAN = ROOT / "edge_spine/data/synthetic_whole_body.dcm"


def test_models_go_by_name_and_folders_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(MODELS) == {"spine", "lite"}
    assert load_bundle().sha256 == load_bundle("spine").sha256
    lite = load_bundle("lite")
    assert lite.name == "spine-lite" and "spine-lite" in lite.manifest["architecture"]
    monkeypatch.chdir(tmp_path)
    for folder in ("./lite", Path("lite")):
        with pytest.raises(BundleError, match="no such model bundle"):
            load_bundle(folder)


def test_it_is_at_most_10_mb() -> None:
    lite = load_bundle("lite")
    assert sum(file.stat().st_size for file in lite.folder.iterdir()) <= 10e6


def test_it_passes_the_gate_of_the_large_model_and_has_bands() -> None:
    lite = load_bundle("lite")
    with open_engine(lite, "onnx-cpu") as engine:
        found = verify(lite, engine)
    assert found.passed and found.precision == "int8" and found.references >= 20
    assert lite.bands is not None and lite.population is not None


@pytest.mark.slow
def test_it_sees_the_spine_that_the_large_model_sees() -> None:
    scan = read_scan(SCAN)
    results = []
    for model in ("spine", "lite"):
        with SpineEstimator(engine="onnx-cpu", model=model) as estimator:
            results.append(estimator(scan))
    large, lite = results
    assert lite.quality.accepted
    assert np.abs(lite.curves.coronal - large.curves.coronal).mean() < 1.5
    # they learnt from other images: each must stay within what the other calls possible
    assert large.band_90 is not None
    away = np.abs(lite.curves.sagittal[:, 1] - large.curves.sagittal[:, 1])
    assert (away < large.band_90.sagittal).mean() > 0.95


@pytest.mark.slow
def test_the_command_line_takes_it_and_the_result_names_it(tmp_path: Path) -> None:
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "edge_spine", "run", str(SCAN), "--out", str(tmp_path)),
            *("--model", "lite", "--engine", "onnx-cpu", "--write", "json"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert ended.returncode == 0, ended.stderr
    result = json.loads((tmp_path / SCAN.stem / "result.json").read_text(encoding="utf-8"))
    assert result["model"]["name"] == "spine-lite"
    assert result["model"]["sha256"] == load_bundle("lite").sha256
