"""SIGTERM ends every verb in order, a hang-up none. Signals are sent to other processes than the one that tests."""

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
from edge_spine.cli.signals import TERMINATED, orderly_signals
from tests.edge_spine.cli.running import PACKAGE, SPACING
from tests.edge_spine.fake_result import phantom_pixels

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
HANDLED = (signal.SIGTERM, signal.SIGHUP) if os.name != "nt" else ()


def run(folder: Path, name: str) -> tuple[int, list[str], list[str]]:
    """Run the command on three scans, the second of which sends a signal: exit status, scans with results, stderr."""
    (folder / "in").mkdir()
    for each in ("A", name, "Z"):
        np.save(folder / "in" / f"{each}.npy", phantom_pixels())
    program = [sys.executable, "-m", "tests.edge_spine.cli.signalled_run"]
    arguments = [folder / "in", "--out", folder / "out", "--pixel-spacing", SPACING, "--write", "json"]
    ended = subprocess.run([*program, *arguments], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120)
    return ended.returncode, sorted(path.name for path in (folder / "out").iterdir()), ended.stderr.splitlines()


@pytest.mark.slow
def test_a_hang_up_ends_nothing(tmp_path: Path) -> None:
    status, done, _ = run(tmp_path, "SIGHUP")
    assert (status, done) == (0, ["A", "SIGHUP", "Z"])


@pytest.mark.slow
def test_sigterm_ends_in_order(tmp_path: Path) -> None:
    status, done, said = run(tmp_path, "SIGTERM")
    assert (status, done, said[-1]) == (TERMINATED, ["A"], "edge-spine: terminated")


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


@pytest.mark.parametrize(("signals", "status"), [(1, TERMINATED), (2, -signal.SIGTERM)])
def test_the_second_signal_has_its_default_effect(signals: int, status: int) -> None:
    code = (
        "import signal\n"
        "from edge_spine.cli.signals import TERMINATED, Terminated, orderly_signals\n"
        "try:\n"
        "    with orderly_signals():\n"
        "        try:\n"
        "            signal.raise_signal(signal.SIGTERM)\n"
        "        finally:\n"
        f"            {signals} == 2 and signal.raise_signal(signal.SIGTERM)\n"
        "except Terminated:\n"
        "    raise SystemExit(TERMINATED)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent).returncode == status


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
