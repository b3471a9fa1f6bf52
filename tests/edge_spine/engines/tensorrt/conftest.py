"""A FAKE PyCUDA and TensorRT in place of the real ones."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from edge_spine.engines.tensorrt import cuda as cuda_module
from edge_spine.engines.tensorrt import engine as tensorrt
from tests.edge_spine.engines.tensorrt.fakes import GPU, VERSIONS, FakeCuda, fake_tensorrt


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A FAKE GPU, beside TensorRT 10.3 as a Jetson has it: no package of pip."""
    monkeypatch.setattr(tensorrt, "require_gpu", lambda name: GPU)
    monkeypatch.setattr(tensorrt, "_installed", lambda package: None)
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda: VERSIONS["10.3"])


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch, fake_gpu: None) -> FakeCuda:
    fake = FakeCuda()
    package = ModuleType("pycuda")
    package.driver = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
    monkeypatch.setattr(cuda_module, "load_driver", lambda: fake.library)
    monkeypatch.setattr(cuda_module, "_retained", None)
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda: fake_tensorrt(fake))
    return fake
