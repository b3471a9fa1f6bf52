"""Map a function over items, in other processes or in this one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any


@contextmanager
def ordered_map(
    workers: int, prepare: Callable[..., object] | None = None, arguments: tuple[Any, ...] = (), chunk: int = 1
) -> Iterator[Callable[..., Iterator[Any]]]:
    """Yield a `map` that runs in `workers` processes, or in this process where that is 1.

    Parameters
    ----------
    workers : int
        Number of processes.
    prepare, arguments
        What is called once in each process before its first item.
    chunk : int
        Items that a process takes at a time.
    """
    if workers == 1:
        if prepare is not None:
            prepare(*arguments)
        yield map
        return
    with multiprocessing.get_context("spawn").Pool(workers, prepare, arguments) as pool:
        yield partial(pool.imap, chunksize=chunk)
