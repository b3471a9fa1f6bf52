"""Matrix products in the thread that calls."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# OpenBLAS takes threads of its own for more multiplications: 65,536 times 4 (`interface/gemm.c`), and 2,304 times 4 if
# one factor is a vector (`interface/gemv.c`). Not on each processor: some have other code for small matrices.
_MOST, _MOST_BY_VECTOR = 2**18, 9216


def product(
    rows: NDArray[np.float32], weight: NDArray[np.float32], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return the product of matrices (N, K) and (K, M), in `out` (N, M) if given, computed in the calling thread.

    On matrices as small as the runtime's, OpenBLAS's own threads wait for each other longer than they compute, and for
    those of other callers too. So blocks of rows are multiplied, each too small for OpenBLAS to take threads.
    """
    count = rows.shape[0]
    blocks = _blocks(count, *weight.shape)
    if blocks == 1:
        return np.matmul(rows, weight, out=out)
    into = None if out is None else out.reshape(blocks, count // blocks, -1)
    return np.matmul(rows.reshape(blocks, count // blocks, -1), weight, out=into).reshape(count, -1)


@lru_cache(maxsize=64)
def _blocks(count: int, inner: int, width: int) -> int:
    most = _MOST if min(count, width) > 1 else _MOST_BY_VECTOR
    blocks = min(-(-count * inner * width // most), count)
    while count % blocks:
        blocks += 1
    return blocks
