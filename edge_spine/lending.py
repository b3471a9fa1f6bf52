"""Share objects that serve one thread at a time among any number of threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Lender(Generic[T]):
    """Lend objects of one kind, each to one thread at a time.

    `first` exists already. Where all are lent, `make` is called in the thread that needs one more, until there are
    `most`; further threads wait until one is returned.
    """

    def __init__(self, make: Callable[[], T], most: int, first: T) -> None:
        self._make = make
        self._room = threading.Semaphore(most)
        # `append` and `pop` of a list are atomic
        self._idle = [first]

    @contextmanager
    def lent(self) -> Iterator[T]:
        """Lend an object for the block. It is not lent again after an exception, which may have left it unfinished."""
        with self._room:
            try:
                one = self._idle.pop()
            except IndexError:
                one = self._make()
            yield one
            self._idle.append(one)
