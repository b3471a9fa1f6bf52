from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install '.[export]'")

from export import gate
from tests.edge_spine.fake_bundle import fake_output


class SaturatingEngine(AbstractContextManager["SaturatingEngine"]):
    """FAKE processor that cuts off INT8 sums unless told to be exact."""

    name = "onnx-cpu"

    def __init__(self, model: bytes, *, precision: str, exact_integers: bool = False) -> None:
        self.exact = exact_integers

    def __exit__(self, *_: object) -> None:
        pass

    def infer(self, tensor: np.ndarray) -> np.ndarray:
        return fake_output()[np.newaxis] + np.float32(0 if self.exact else 0.05)


def test_the_gate_judges_the_file_and_not_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "OnnxEngine", SaturatingEngine)
    crops, expected = np.zeros((2, 224, 224), np.uint8), np.stack([fake_output()] * 2)
    more: dict[str, Any] = {"precision": "int8", "model_pixel_mm": 2.2}
    assert gate.pass_gate(b"FAKE", crops, expected, **more).passed
    with pytest.raises(gate.GateError, match="no bundle written"):
        gate.pass_gate(b"FAKE", crops, expected + np.float32(0.05), **more)
