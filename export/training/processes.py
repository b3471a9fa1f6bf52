"""Map a function over items, in other processes or in this one."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any

from edge_spine.errors import EdgeSpineError

# Parts that wait or are done, for each process: a slow item stops no other, and results do not pile up.
_AHEAD = 2


@contextmanager
def ordered_map(
    workers: int,
    prepare: Callable[..., object] | None = None,
    arguments: tuple[Any, ...] = (),
    chunk: int = 1,
    lost: Callable[[Any], Any] | None = None,
) -> Iterator[Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]]:
    """Yield a `map` that runs in `workers` processes, or in this process where that is 1.

    Where a process ends by itself, what was under way is tried once more, one item at a time in a process of its own.

    Parameters
    ----------
    workers : int
        Number of processes.
    prepare, arguments
        What is called once in each process before its first item.
    chunk : int
        Items that a process takes at a time.
    lost : callable, optional
        Returns the result of an item whose process ends again.

    Raises
    ------
    EdgeSpineError
        A process ends again, and there is no `lost`.
    """
    if workers == 1:
        if prepare is not None:
            prepare(*arguments)
        yield map
        return

    def start(count: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), prepare, arguments)

    def submit(function: Callable[[Any], Any], part: list[Any]) -> Future[list[Any]]:
        nonlocal pool
        try:
            return pool.submit(_several, function, part)
        except BrokenProcessPool:
            pool = start(workers)
            return pool.submit(_several, function, part)

    def alone(function: Callable[[Any], Any], item: Any) -> Any:
        with start(1) as own:
            try:
                return own.submit(function, item).result()
            except BrokenProcessPool:
                if lost is not None:
                    return lost(item)
                raise EdgeSpineError(
                    "a worker ended by itself, perhaps for lack of memory: take fewer --workers"
                ) from None

    def answers(function: Callable[[Any], Any], part: list[Any], future: Future[list[Any]]) -> Iterator[Any]:
        try:
            yield from future.result()
        except BrokenProcessPool:
            yield from (alone(function, item) for item in part)

    def mapped(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        left = iter(items)
        waiting: deque[tuple[list[Any], Future[list[Any]]]] = deque()
        while part := list(islice(left, chunk)):
            waiting.append((part, submit(function, part)))
            if len(waiting) > _AHEAD * workers:
                yield from answers(function, *waiting.popleft())
        while waiting:
            yield from answers(function, *waiting.popleft())

    pool = start(workers)
    try:
        yield mapped
    finally:
        pool.shutdown(cancel_futures=True)


def _several(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    return [function(item) for item in items]
