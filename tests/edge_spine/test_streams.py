"""Streams that are closed, full, or without a reader."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from edge_spine.cli.common import tell
from edge_spine.errors import EdgeSpineError
from edge_spine.streams import close_streams, say

ROOT = Path(__file__).resolve().parents[2]
needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")


def test_a_line_is_written_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert say("one") is None and say("two", sys.stderr, end="") is None
    for json in (False, True):
        tell(Namespace(json=json), {"three": 3}, "three")
    assert capsys.readouterr() == ('one\nthree\n{"three": 3}\n', "two")


@needs_full_device
def test_what_cannot_be_written_is_dropped_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        # more than any buffer holds
        assert {say("x" * 1000) for _ in range(100)} == {"No space left on device"}
        with pytest.raises(EdgeSpineError, match="No space left"):
            tell(Namespace(json=False), {}, "x")
        close_streams()


def test_a_reader_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert say("read") is None
        os.close(reading)
        assert "pipe" in str(say("lost")).lower() or os.name == "nt"
        close_streams()
        # it leads to the null device now
        assert say("dropped") is None
    assert say("closed", stream) == "it is closed"


def test_lines_that_a_full_disk_held_back_come_later() -> None:
    class Disk(io.RawIOBase):
        full, content = True, b""

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            if self.full:
                raise OSError(28, "No space left on device")
            self.content += bytes(data)  # type: ignore[call-overload]
            return len(bytes(data))  # type: ignore[call-overload]

    disk = Disk()
    stream = io.TextIOWrapper(io.BufferedWriter(disk), encoding="utf-8")
    assert say("first", stream) == "No space left on device"
    disk.full = False
    assert say("second", stream) is None
    assert disk.content == b"first\nsecond\n"


@pytest.mark.skipif(os.name == "nt", reason="a shell that closes streams is needed")
def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "import os, sys; from edge_spine.streams import open_streams, say, close_streams; open_streams()\n"
        "file = open(sys.argv[1], 'w'); os.write(1, b'lost'); os.write(2, b'lost')\n"
        "assert file.fileno() > 2 and say('lost') is None and say('lost', sys.stderr) is None; close_streams()\n"
    )
    for closing in (">&-", "2>&-", "<&- >&- 2>&-"):
        shell = f'exec "$0" -c "$1" "$2" {closing}'
        ended = subprocess.run(
            ["sh", "-c", shell, sys.executable, code, str(tmp_path / "file")],
            cwd=ROOT,
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, (closing, ended)
        assert (tmp_path / "file").read_bytes() == b""
