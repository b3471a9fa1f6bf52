"""Objects that serve one thread at a time, shared by many."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from edge_spine.lending import Lender


def test_no_object_serves_two_threads_and_no_more_are_made_than_allowed() -> None:
    numbers, busy, clashes, together = count(1), set[int](), list[int](), list[int]()

    def work(_: int) -> None:
        with lender.lent() as number:
            if number in busy:
                clashes.append(number)
            busy.add(number)
            together.append(len(busy))
            time.sleep(0.001)
            busy.discard(number)

    lender = Lender(lambda: next(numbers), 3, 0)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))
    assert clashes == []
    # threads do work at once, and not more than three
    assert max(together) == 3 and next(numbers) == 3


def test_the_first_is_lent_before_another_is_made() -> None:
    def make() -> str:
        raise AssertionError("made without need")

    lender = Lender(make, 2, "first")
    for _ in range(3):
        with lender.lent() as one:
            assert one == "first"


def test_an_object_that_failed_is_not_lent_again_and_its_place_is_free() -> None:
    numbers = count(1)
    lender = Lender(lambda: next(numbers), 1, 0)
    for expected in (0, 1):
        with pytest.raises(ValueError, match="broken"), lender.lent() as number:
            assert number == expected
            raise ValueError("broken")
    done = threading.Event()
    threading.Thread(target=lambda: lender.lent().__enter__() == 2 and done.set(), daemon=True).start()
    assert done.wait(10)
