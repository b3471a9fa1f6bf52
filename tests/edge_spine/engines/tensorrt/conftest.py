"""A FAKE PyCUDA and TensorRT in place of the real ones."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from edge_spine.engines.tensorrt import cuda as cuda_module
from edge_spine.engines.tensorrt import engine as tensorrt
from tests.edge_spine.engines.tensorrt.fakes import GPU, FakeCuda, fake_tensorrt


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    package = ModuleType("pycuda")
    package.driver = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
    monkeypatch.setattr(cuda_module, "load_driver", lambda: fake.library)
    monkeypatch.setattr(cuda_module, "_retained", None)
    monkeypatch.setattr(tensorrt, "require_gpu", lambda name: GPU)
    monkeypatch.setattr(tensorrt, "_installed", lambda package: False)
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda: fake_tensorrt(fake))
    return fake
