"""`run` in a process of its own that sends itself the signals after which its scans are named; FAKE estimator."""

from __future__ import annotations

import signal
import sys
from typing import Any

from edge_spine import estimator
from edge_spine.cli import main, signals
from edge_spine.scan import Scan
from tests.edge_spine.cli.conftest import FakeEstimator

HANDLED = (signal.SIGTERM, signal.SIGHUP)


class Signalling(FakeEstimator):
    """FAKE estimator: on a scan named like a signal it sends that signal to its own process."""

    def __call__(self, scan: Scan) -> Any:
        if scan.source.startswith("SIG"):
            signal.raise_signal(getattr(signal, scan.source.partition(".")[0]))
        return super().__call__(scan)


if __name__ == "__main__":
    # a slow machine must not end the process before the test can see how it ends
    estimator.SpineEstimator, signals.GRACE_S = Signalling, 120.0  # type: ignore[assignment,misc]
    before = [signal.getsignal(number) for number in HANDLED]
    status = main.main(["run", *sys.argv[1:]])
    assert [signal.getsignal(number) for number in HANDLED] == before
    raise SystemExit(status)
