"""A service ends on its first signal; the second has its usual effect."""

from __future__ import annotations

import os
import signal

import pytest

from edge_spine.node.signals import until_signal

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a process cannot send itself these signals there")


@pytest.mark.parametrize(("number", "interrupted"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_the_first_signal_ends_and_is_remembered(number: int, interrupted: bool) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    ended: list[dict[int, object]] = []

    def end() -> None:
        ended.append({each: signal.getsignal(each) for each in before})

    with until_signal(end) as was_interrupted:
        assert {each: signal.getsignal(each) for each in before} != before
        os.kill(os.getpid(), number)
        assert was_interrupted() is interrupted
    # from the first signal on, a second one has its usual effect
    assert ended == [before]
    assert {each: signal.getsignal(each) for each in before} == before


def test_without_a_signal_nothing_ends() -> None:
    before, ended = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(ValueError), until_signal(lambda: ended.append(1)) as was_interrupted:
        raise ValueError
    assert ended == [] and not was_interrupted()
    assert signal.getsignal(signal.SIGTERM) is before
