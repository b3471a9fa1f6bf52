"""NVIDIA's driver. Where there is none, it is played by a FAKE: only the order and reading of its calls is tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_spine.engines import driver
from edge_spine.engines.driver import Gpu, NoGpu, choose_gpu, find_gpu, require_cuda, require_gpu
from edge_spine.errors import EngineUnavailable, UsageError


class FakeDriver:
    """FAKE libcuda with one Orin."""

    def __init__(self, **status: int) -> None:
        self.status, self.devices = status, 1

    def __getattr__(self, name: str) -> Any:
        numbers = {"cuDeviceGetCount": self.devices, "cuDeviceGet": 0, "cuDriverGetVersion": 12060}

        def call(*arguments: Any) -> int:
            if self.status.get(name, 0):
                return self.status[name]
            if name == "cuGetErrorString":
                arguments[1]._obj.value = b"FAKE reason" if arguments[0] == 100 else None
            if name == "cuDeviceGetName":
                arguments[0].value = b"Orin"
            elif name == "cuDeviceGetAttribute":
                arguments[0]._obj.value = {75: 8, 76: 7, 18: 1, 16: 8}[arguments[1]]
            elif name in numbers:
                arguments[0]._obj.value = numbers[name]
            return 0

        return call


def test_a_gpu_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver.ctypes, "CDLL", lambda _: FakeDriver())
    orin = Gpu(name="Orin", compute_capability="8.7", driver="12.6", integrated=True, multiprocessors=8)
    assert find_gpu() == orin
    assert require_gpu("tensorrt") == find_gpu()


@pytest.mark.parametrize(
    ("fake", "message"),
    [
        (FakeDriver(cuInit=100), "cuInit returned 100 (FAKE reason); CUDA_VISIBLE_DEVICES is ''"),
        (FakeDriver(cuDeviceGetCount=3), "cuDeviceGetCount returned 3; CUDA_VISIBLE_DEVICES is ''"),
        (FakeDriver(cuDeviceGetAttribute=1), "cuDeviceGetAttribute returned 1"),
        (object(), "too old: it has no cuInit"),
    ],
)
def test_a_driver_that_does_not_work_is_said(monkeypatch: pytest.MonkeyPatch, fake: Any, message: str) -> None:
    monkeypatch.setattr(driver.ctypes, "CDLL", lambda _: fake)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(EngineUnavailable, match=r"^onnx-cuda: ") as caught:
        require_gpu("onnx-cuda")
    assert message in str(caught.value)


def test_a_driver_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeDriver()
    fake.devices = 0
    monkeypatch.setattr(driver.ctypes, "CDLL", lambda _: fake)
    with pytest.raises(NoGpu, match="has no GPU"):
        find_gpu()


def test_no_driver_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_LIBRARY", "libcuda-that-nobody-has.so.1")
    with pytest.raises(NoGpu, match=r"^no NVIDIA driver was found on this machine$"):
        find_gpu()


class FakeManagement:
    """FAKE NVML of one desktop card."""

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            if name == "nvmlSystemGetDriverVersion":
                arguments[0].value = b"580.95.05"
            elif name == "nvmlDeviceGetPerformanceState":
                arguments[1]._obj.value = 2
            elif name == "nvmlDeviceGetEnforcedPowerLimit":
                arguments[1]._obj.value = 450000
            return 0

        return call


def test_driver_and_power_are_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(driver.ctypes, "CDLL", lambda _: FakeManagement())
    assert driver.driver_state() == {"driver": "580.95.05", "power": "P2, limit 450 W"}
    mode = tmp_path / "status"
    mode.write_text("pmode:0002 fmode:quiet\n")
    monkeypatch.setattr(driver, "_POWER_MODE", mode)
    for library in (object(), OSError()):

        def load(_: str, library: Any = library) -> Any:
            if isinstance(library, OSError):
                raise library
            return library

        monkeypatch.setattr(driver.ctypes, "CDLL", load)
        assert driver.driver_state() == {"driver": "unknown", "power": "pmode:0002 fmode:quiet"}


@pytest.mark.parametrize(
    ("before", "number", "after"),
    [(None, 1, "1"), ("2,3", 1, "3"), ("GPU-a, GPU-b", 0, "GPU-a"), ("2", 1, None)],
)
def test_one_gpu_is_chosen_for_every_library(
    monkeypatch: pytest.MonkeyPatch, before: str | None, number: int, after: str | None
) -> None:
    monkeypatch.setattr(driver.os, "environ", {} if before is None else {"CUDA_VISIBLE_DEVICES": before})
    if after is None:
        with pytest.raises(UsageError, match="device 1 is asked for, but CUDA_VISIBLE_DEVICES leaves 1 GPUs"):
            choose_gpu(number)
        return
    choose_gpu(number)
    assert driver.os.environ == {"CUDA_VISIBLE_DEVICES": after, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_a_driver_that_is_too_old_is_named_with_the_one_that_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "driver_state", lambda: {"driver": "550.54.15", "power": "unknown"})
    gpu = Gpu(name="FAKE", compute_capability="8.9", driver="12.4", integrated=False, multiprocessors=128)
    require_cuda("tensorrt", gpu, "TensorRT for CUDA 12", "12.2", "use onnx-cpu")
    with pytest.raises(EngineUnavailable) as caught:
        require_cuda("tensorrt", gpu, "TensorRT for CUDA 13", "13", "pip install another")
    assert str(caught.value) == (
        "tensorrt: TensorRT for CUDA 13 needs a driver for CUDA 13, 580 or newer; found is driver 550.54.15 for CUDA "
        "12.4; update the driver or pip install another"
    )
