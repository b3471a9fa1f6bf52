"""FAKE versions of TensorRT, and a FAKE GPU."""

from __future__ import annotations

from types import SimpleNamespace

from edge_spine.engines.driver import Gpu

GPU = Gpu(name="FAKE GPU", compute_capability="8.7", driver="12.6", integrated=True)


class FakeTrt:
    """FAKE TensorRT module for what is asked of a version."""

    __name__, __version__ = "tensorrt", "10.3.0"

    def __init__(self, *, flags: tuple[str, ...], network: tuple[str, ...], levels: tuple[str, ...]) -> None:
        self.BuilderFlag = SimpleNamespace(**dict.fromkeys(flags, 1))
        self.NetworkDefinitionCreationFlag = SimpleNamespace(**{name: n for n, name in enumerate(network)})
        self.HardwareCompatibilityLevel = SimpleNamespace(**dict.fromkeys(levels, 1))


VERSIONS = {
    "8.6": FakeTrt(flags=("FP16", "INT8"), network=("EXPLICIT_BATCH",), levels=("NONE", "AMPERE_PLUS")),
    "10.3": FakeTrt(flags=("FP16", "INT8"), network=("EXPLICIT_BATCH", "STRONGLY_TYPED"), levels=("NONE",)),
    "10.13": FakeTrt(
        flags=("FP16", "INT8"),
        network=("EXPLICIT_BATCH", "STRONGLY_TYPED"),
        levels=("NONE", "SAME_COMPUTE_CAPABILITY"),
    ),
    "11.4": FakeTrt(flags=("TF32",), network=("STRONGLY_TYPED",), levels=("SAME_COMPUTE_CAPABILITY",)),
}
