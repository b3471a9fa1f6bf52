"""What the tests of the runtime share."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from edge_spine.result import schema


@pytest.fixture(scope="session")
def fake_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a FAKE bundle: constant networks, so that only the walk around them is under test."""
    pytest.importorskip("onnx", reason="the fake bundle is built with onnx: pip install '.[export]'")
    pytest.importorskip("onnxruntime", reason="an engine is needed: pip install '.[cpu]'")
    from tests.edge_spine.fake_bundle import fake_bundle

    return fake_bundle(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def valid() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(schema())
