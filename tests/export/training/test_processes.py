"""Items come back in order, and each process is prepared, wherever they are computed."""

from __future__ import annotations

import os

import pytest

from export.training.processes import ordered_map


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_order_is_kept_and_processes_are_prepared(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREPARED", raising=False)
    names = ["PREPARED"] * 20
    with ordered_map(workers, _prepare, ("yes",), chunk=3) as mapped:
        assert list(mapped(os.getenv, names)) == ["yes"] * 20
        assert list(mapped(abs, range(-20, 0))) == list(range(20, 0, -1))
        assert (os.getpid() in mapped(_process, names)) == (workers == 1)


def _prepare(answer: str) -> None:
    os.environ["PREPARED"] = answer


def _process(_: str) -> int:
    return os.getpid()
