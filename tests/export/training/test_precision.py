from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="pip install '.[export]'")

import torch

from export.training.precision import autocast, precision_of


@pytest.mark.parametrize(("capability", "wanted"), [("AVX2", "float32"), ("AVX512", "bfloat16")])
def test_bfloat16_is_for_processors_that_compute_in_it(
    capability: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    assert precision_of("cpu") == wanted
    layer = torch.nn.Linear(2, 2)
    with autocast("cpu"):
        assert str(layer(torch.zeros(1, 2)).dtype) == f"torch.{wanted}"
    with autocast("cpu", enabled=False):
        assert layer(torch.zeros(1, 2)).dtype == torch.float32


def test_a_gpu_computes_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    assert precision_of("cuda") == "bfloat16"
