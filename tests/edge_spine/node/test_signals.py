"""A service ends on its first signal; the second has its usual effect."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_spine.node.signals import until_signal

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="a process cannot send itself these signals there")


# Runs in a process of its own, which a signal that is not handled ends.
SIGNALLED = """
import signal, sys
from edge_spine.node.signals import until_signal

number = int(sys.argv[1])
handlers = lambda: [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
before, ended = handlers(), []
with until_signal(lambda: ended.append(handlers())) as was_interrupted:
    assert handlers() != before
    signal.raise_signal(number)
    assert was_interrupted() is (number == signal.SIGINT)
# from the first signal on, a second one has its usual effect
assert ended == [before] and handlers() == before
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_ends_and_is_remembered(number: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(int(number))], cwd=ROOT, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_without_a_signal_nothing_ends() -> None:
    before, ended = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(ValueError), until_signal(lambda: ended.append(1)) as was_interrupted:
        raise ValueError
    assert ended == [] and not was_interrupted()
    assert signal.getsignal(signal.SIGTERM) is before
