"""The verb doctor."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from edge_spine.bundle.load import parse_manifest
from edge_spine.cli import main as cli
from edge_spine.cli.doctor import _EXTRAS, as_text, examine, missing_extras
from tests.edge_spine.cli.running import called

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_doctor_tells_what_is_here(fake_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--model", str(fake_model), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["usable"] is True
    assert found["auto"] in ("onnx-cpu", "openvino") or found["engines"]["onnx-cuda"] is None
    assert found["engines"]["onnx-cpu"] is None
    assert found["engines"]["tensorrt"]
    assert found["packages"]["numpy"].startswith(np.__version__)
    assert "CPUExecutionProvider" in found["onnxruntime_providers"]
    manifest = (fake_model / "manifest.json").read_bytes()
    files = parse_manifest(manifest)["files"]
    assert found["bundle"]["files"] == {name: entry["sha256"] for name, entry in files.items()}
    assert found["gpu"].get("problem") or found["gpu"]["name"]
    assert found["conflict"] is None and found["plans"]
    assert cli.main(["doctor", "--model", str(fake_model)]) == 0
    shown = capsys.readouterr().out
    assert "all hashes match" in shown
    assert "verdict" in shown
    assert "ready" in shown


@pytest.mark.slow
def test_doctor_tells_what_is_missing(fake_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for runtime in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, runtime, None)
    found = examine(fake_model)
    assert found["usable"] is False
    assert "pip install '.[cpu]'" in found["engines"]["onnx-cpu"]
    assert "NOT READY" in as_text(found)


@pytest.mark.slow
def test_all_missing_extras_are_named_in_one_command(fake_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    required = ["numpy>=1.26", 'onnxruntime>=1.20; extra == "cpu"', 'absent-one>=1; extra == "report"']
    required += ['edge-spine[dicom]; extra == "node"', "absent-two[x]>=2; extra == 'node'"]
    required += ['absent; python_version < "3" and extra == "dask"', 'absent; extra == "test"']
    monkeypatch.setattr(metadata, "requires", lambda name: required)
    assert missing_extras() == ["report", "node"]
    assert "pip install '.[report,node]'" in as_text(examine(fake_model))
    installed = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1" if name.startswith("absent") else installed(name))
    assert missing_extras() == []


def test_every_extra_of_the_runtime_is_looked_for() -> None:
    known = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(known) - set(_EXTRAS) == {"cuda", "tensorrt-cu12", "tensorrt-cu13", "export", "test"}
    assert set(_EXTRAS) <= set(known)


@pytest.mark.slow
def test_the_packaged_model_verifies_and_the_doctor_is_content() -> None:
    assert called("verify").returncode == 0
    assert called("doctor").returncode == 0
