"""The GPU extras can be resolved, except for TensorRT's libraries, which are not on PyPI."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
EXTRAS = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]


def test_the_extras_of_gpus_exist_and_do_not_overwrite_each_other() -> None:
    assert "tensorrt" not in EXTRAS
    assert any(name.startswith("onnxruntime-gpu[cuda,cudnn]>=1.21") for name in EXTRAS["cuda"])
    for extra in ("tensorrt-cu12", "tensorrt-cu13"):
        assert {name.partition(">")[0] for name in EXTRAS[extra]} == {
            "filelock",
            "onnx",
            "onnxruntime",
            "platformdirs",
            "pycuda",
            extra,
        }


@pytest.mark.slow
def test_the_extras_of_gpus_resolve_together() -> None:
    """Resolve all extras together, which implies that each resolves alone.

    uv reads the packages' metadata, where pip would download their wheels.

    TensorRT's bindings stand for the whole, whose libraries are fetched from NVIDIA's index while it builds.
    """
    pytest.importorskip("uv", reason="pip install '.[test]'")
    extras = ("cuda", "tensorrt-cu12", "tensorrt-cu13")
    requirements = {name.replace(f"{extra}>", f"{extra}-bindings>") for extra in extras for name in EXTRAS[extra]}
    command = [sys.executable, "-m", "uv", "pip", "compile", "--python", sys.executable, "--no-annotate", "-"]
    ended = subprocess.run(
        command, input="\n".join(sorted(requirements)), capture_output=True, text=True, timeout=600, check=False
    )
    if "Failed to fetch" in ended.stderr:
        pytest.skip("no package index can be reached")
    assert ended.returncode == 0, ended.stderr
    assert {"onnxruntime-gpu", "tensorrt-cu12-bindings", "tensorrt-cu13-bindings"} <= {
        line.partition("==")[0] for line in ended.stdout.splitlines()
    }
