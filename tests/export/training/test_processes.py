"""Items come back in order, each process is prepared, and one that dies is noticed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from edge_spine.errors import EdgeSpineError
from export.training.processes import ordered_map

IN_PROCESSES = pytest.param(2, marks=pytest.mark.slow)


@pytest.mark.parametrize("workers", [1, IN_PROCESSES])
def test_order_is_kept_and_processes_are_prepared(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREPARED", raising=False)
    names = ["PREPARED"] * 20
    with ordered_map(workers, _prepare, ("yes",), chunk=3) as mapped:
        assert list(mapped(os.getenv, names)) == ["yes"] * 20
        assert list(mapped(abs, range(-20, 0))) == list(range(20, 0, -1))
        assert (os.getpid() in mapped(_process, names)) == (workers == 1)


@pytest.mark.slow
def test_items_are_taken_as_results_are_used() -> None:
    taken = []

    def items() -> Iterator[int]:
        for k in range(1000):
            taken.append(k)
            yield k

    with ordered_map(2, chunk=3) as mapped:
        assert next(mapped(abs, items())) == 0
        assert len(taken) < 50


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 3])
def test_an_item_whose_process_dies_costs_no_other(chunk: int) -> None:
    with ordered_map(2, chunk=chunk, lost=lambda item: f"lost {item}") as mapped:
        found = list(mapped(_dies_at_five, range(12)))
        assert found == [f"lost {k}" if k == 5 else k for k in range(12)]
        assert list(mapped(abs, [-1])) == [1]


@pytest.mark.slow
def test_a_process_that_dies_ends_the_work_with_one_line() -> None:
    with ordered_map(2) as mapped, pytest.raises(EdgeSpineError, match="ended by itself"):
        list(mapped(_dies_at_five, range(8)))


@pytest.mark.slow
def test_an_error_of_an_item_is_raised_as_it_is() -> None:
    with ordered_map(2) as mapped, pytest.raises(ZeroDivisionError):
        list(mapped(_inverse, [2, 0, 1]))


def _prepare(answer: str) -> None:
    os.environ["PREPARED"] = answer


def _process(_: str) -> int:
    return os.getpid()


def _dies_at_five(item: int) -> int:
    if item == 5:
        os._exit(1)
    return item


def _inverse(item: int) -> float:
    return 1 / item
