"""Whether this machine has an NVIDIA GPU."""

from __future__ import annotations

import pytest

from edge_spine.engines.driver import NoGpu, find_gpu


def has_gpu() -> bool:
    try:
        find_gpu()
    except NoGpu:
        return False
    return True


needs_gpu = pytest.mark.skipif(not has_gpu(), reason="no GPU on this machine")
no_gpu = pytest.mark.skipif(has_gpu(), reason="there is a GPU on this machine")
