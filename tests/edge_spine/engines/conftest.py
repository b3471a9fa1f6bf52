"""The FAKE and the packaged bundle, and the graphs that TensorRT gets of the packaged one, derived once."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_spine.bundle import load_bundle
from edge_spine.bundle.load import Bundle
from edge_spine.engines.forms import form_graph
from tests.edge_spine.engines.processors import needs_openvino


@pytest.fixture(scope="session")
def bundle(fake_model: Path) -> Bundle:
    return load_bundle(fake_model)


@pytest.fixture(params=["onnx-cpu", pytest.param("openvino", marks=needs_openvino)])
def processor(request: pytest.FixtureRequest) -> str:
    """Return the name of each engine that runs on the processor, in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def packaged() -> Bundle:
    return load_bundle()


@pytest.fixture(scope="session")
def symmetric(packaged: Bundle) -> bytes:
    return form_graph(packaged, "int8-trt")


@pytest.fixture(scope="session")
def half(packaged: Bundle) -> bytes:
    """A float16 graph of the packaged network: its INT8 weights in float16, since the package brings no float file."""
    return form_graph(packaged, "fp16")


@pytest.fixture(scope="session")
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has wheels for Linux x86_64 only")
