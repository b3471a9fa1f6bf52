"""SIGTERM ends every verb in order, a hang-up none."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from edge_spine.cli import main as cli
from edge_spine.cli.signals import TERMINATED, Terminated, orderly_signals
from tests.edge_spine.cli.conftest import FakeEstimator
from tests.edge_spine.cli.running import PACKAGE, SPACING
from tests.edge_spine.fake_result import phantom_pixels

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
HANDLED = (signal.SIGTERM, signal.SIGHUP) if os.name != "nt" else ()


class Signalling(FakeEstimator):
    """FAKE: sends this process the signal that the scan is named after."""

    def __call__(self, scan):  # type: ignore[no-untyped-def]
        if scan.source.startswith("SIG"):
            signal.raise_signal(getattr(signal, scan.source.partition(".")[0]))
        return super().__call__(scan)


def run(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[str]]:
    monkeypatch.setattr("edge_spine.estimator.SpineEstimator", Signalling)
    # A slow machine must not end the process that runs the tests.
    monkeypatch.setattr("edge_spine.cli.signals.GRACE_S", 120.0)
    before = [signal.getsignal(number) for number in HANDLED]
    (folder / "in").mkdir()
    for each in ("A", name, "Z"):
        np.save(folder / "in" / f"{each}.npy", phantom_pixels())
    arguments = ["run", str(folder / "in"), "--out", str(folder / "out"), "--pixel-spacing", SPACING]
    status = cli.main([*arguments, "--write", "json"])
    assert [signal.getsignal(number) for number in HANDLED] == before
    return status, sorted(path.name for path in (folder / "out").iterdir())


def test_a_hang_up_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path, "SIGHUP", monkeypatch) == (0, ["A", "SIGHUP", "Z"])


def test_sigterm_ends_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "SIGTERM", monkeypatch) == (TERMINATED, ["A"])
    assert capsys.readouterr().err.splitlines()[-1] == "edge-spine: terminated"


def test_every_verb_runs_with_these_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """All verbs pass through one place; a handler is what the kernel asks of process 1."""
    found = []

    def verb(_: Namespace) -> int:
        found.extend(signal.getsignal(number) for number in HANDLED)
        return 0

    parser = Namespace(parse_args=lambda *_: Namespace(verb=verb, verbosity=0))
    monkeypatch.setattr(cli, "_parser", lambda: parser)
    assert cli.main([]) == 0
    assert callable(found[0]) and found[1] is signal.SIG_IGN


def test_only_the_main_thread_has_handlers() -> None:
    from concurrent.futures import ThreadPoolExecutor

    def work() -> object:
        with orderly_signals():
            return signal.getsignal(signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == signal.getsignal(signal.SIGTERM)


def test_the_second_signal_has_its_default_effect() -> None:
    with pytest.raises(Terminated), orderly_signals():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.slow
def test_a_library_that_does_not_return_is_ended() -> None:
    code = (
        "import hashlib, edge_spine.cli.signals as signals\n"
        "signals.GRACE_S = 0.2\n"
        "with signals.orderly_signals():\n"
        "    print('ready', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 2_000_000_000)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=PACKAGE.parent, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    time.sleep(0.5)
    process.terminate()
    assert process.wait(60) == TERMINATED
    process.stdout.close()


@pytest.mark.slow
def test_process_1_of_a_container_obeys_sigterm(tmp_path: Path) -> None:
    unshare = [shutil.which("unshare") or "unshare", "--pid", "--fork", "--kill-child"]
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("this user cannot make a name space of processes")
    code = (
        "import os, time; from argparse import Namespace; from edge_spine.cli import main\n"
        "def verb(_):\n    print(os.getpid(), flush=True)\n    time.sleep(60)\n"
        "main._parser = lambda: Namespace(parse_args=lambda *_: Namespace(verb=verb, verbosity=0))\n"
        "raise SystemExit(main.main([]))\n"
    )
    outer = subprocess.Popen([*unshare, sys.executable, "-c", code], cwd=PACKAGE.parent, stdout=subprocess.PIPE)
    try:
        assert outer.stdout is not None and outer.stdout.readline() == b"1\n"
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text(encoding="ascii").split()
        os.kill(int(children[0]), signal.SIGTERM)
        assert outer.wait(30) == TERMINATED
    finally:
        outer.kill()
        outer.wait()
        outer.stdout.close()
