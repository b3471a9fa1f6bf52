"""What the tests of the runtime share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def fake_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a FAKE bundle: constant networks, so that only the walk around them is under test."""
    pytest.importorskip("onnx", reason="the fake bundle is built with onnx: install edge-spine[export]")
    pytest.importorskip("onnxruntime", reason="an engine is needed: install edge-spine[cpu]")
    from tests.edge_spine.fake_bundle import fake_bundle

    return fake_bundle(tmp_path_factory.mktemp("model"))
