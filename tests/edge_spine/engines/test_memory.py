"""Which errors say that memory of a GPU ran out."""

from __future__ import annotations

import pytest

from edge_spine.engines.memory import ran_out, require_memory
from edge_spine.errors import GpuMemoryShort


def test_what_is_needed_must_be_free() -> None:
    require_memory("tensorrt", "running the plan", 5, 5)
    with pytest.raises(GpuMemoryShort) as caught:
        require_memory("tensorrt", "running the plan", 3 << 20, (3 << 20) - 1)
    assert str(caught.value) == (
        "tensorrt: gpu-memory: running the plan needs about 3 MiB of the GPU's memory, of which 2 MiB are free; end "
        "other processes that use the GPU, or take --model lite, no --blocks, or --engine onnx-cpu"
    )


@pytest.mark.parametrize(
    ("engine", "said", "short"),
    [
        ("tensorrt", "cuMemAlloc failed: out of memory", True),
        ("onnx-cuda", "CUDA failure 2: out of memory ; GPU=0 ; hostname=x", True),
        ("onnx-cuda", "bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 1024", True),
        ("onnx-cuda", "no kernel image is available", False),
        ("onnx-cpu", "Failed to allocate memory for requested buffer of size 1024", False),
    ],
)
def test_a_librarys_words_are_known(engine: str, said: str, short: bool) -> None:
    found = ran_out(engine, RuntimeError(said))
    assert (found is not None) is short
    if found is not None:
        assert str(found).startswith(f"{engine}: gpu-memory: the GPU ran out of memory ({said})")
