"""Choose the number format that a device computes fastest."""

from __future__ import annotations

import torch


def precision_of(device: str) -> str:
    """Return "bfloat16" or "float32".

    Processors without AVX-512 emulate bfloat16, which is many times slower than float32.
    """
    native = device != "cpu" or torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return "bfloat16" if native else "float32"


def autocast(device: str, enabled: bool = True) -> torch.autocast:
    """Return a context that computes in bfloat16 if `enabled` and if the device is faster with it."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=enabled and precision_of(device) == "bfloat16")
