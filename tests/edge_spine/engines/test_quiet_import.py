"""Runtimes report nothing to their makers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.edge_spine.engines.processors import has_openvino

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.skipif(sys.platform == "win32", reason="the home folder is found in another way there")
@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "--engine", "onnx-cpu"],
        ["verify", "--engine", "openvino"],
        pytest.param(["doctor"], marks=pytest.mark.slow),
    ],
)
def test_nothing_is_reported_or_kept_in_the_users_home(arguments: list[str], tmp_path: Path, fake_model: Path) -> None:
    """ONNX Runtime 1.32 and OpenVINO 2026.4 both start a file for their makers there when they are imported."""
    if "openvino" in arguments and not has_openvino():
        pytest.skip("openvino is not installed here")
    without = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "CI"}
    surroundings = {name: value for name, value in os.environ.items() if name not in without}
    ended = subprocess.run(
        [sys.executable, "-m", "edge_spine", *arguments, "--model", str(fake_model)],
        env={**surroundings, "HOME": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
