"""ONNX Runtime: its provider is never replaced, and its exact sums are those of VNNI."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import edge_spine.engines.onnx as onnx_engine
from edge_spine.engines import engine_problems, open_engine
from edge_spine.engines.onnx import OnnxEngine
from edge_spine.engines.quiet_import import import_onnxruntime
from edge_spine.engines.verification import read_references
from edge_spine.errors import EngineUnavailable


def has_cuda() -> bool:
    return engine_problems()["onnx-cuda"] is None


def test_a_provider_that_onnxruntime_replaces_is_an_error(bundle, monkeypatch) -> None:
    """ONNX Runtime starts on the processor when CUDA's libraries fail to load; nobody asked for that."""
    if has_cuda():
        pytest.skip("CUDA works here, so nothing is replaced")
    monkeypatch.setattr(onnx_engine, "runtime_with", lambda name: import_onnxruntime())
    with pytest.raises(EngineUnavailable, match="could not start CUDAExecutionProvider"):
        open_engine(bundle, "onnx-cuda")
    with open_engine(bundle, "auto") as engine:
        assert engine.name in ("onnx-cpu", "openvino")


def test_a_session_does_not_keep_the_bytes_of_its_model(bundle) -> None:
    content = bundle.read(bundle.file_with_role("engine"))
    before = sys.getrefcount(content)
    with OnnxEngine(content):
        assert sys.getrefcount(content) == before


@pytest.mark.slow
def test_exact_sums_give_the_packaged_models_answers(packaged) -> None:
    """The real session with the real model: where VNNI is, both ways agree to rounding."""
    crops, _ = read_references(packaged)
    image = np.repeat(crops[0][None, None].astype(np.float32) / 255, 3, axis=1)
    answers = []
    for exact in (False, True):
        with OnnxEngine(packaged.read("model.int8.onnx"), exact_integers=exact) as engine:
            answers.append(engine.infer(image))
    assert np.abs(answers[0] - answers[1]).max() * 224 < 0.5
