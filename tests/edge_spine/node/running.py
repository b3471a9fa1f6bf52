"""A node in a process of its own, clients from DCMTK, and a pynetdicom archive whose answers the test chooses."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from edge_spine.node.config import RESULTS

STARTING_S, PATIENCE_S = 60.0, 60.0


def dcmtk(name: str) -> str:
    """Name one of DCMTK's programs; pynetdicom installs others of the same names beside Python."""
    path = f"/usr/bin/{name}"
    if not Path(path).exists():
        pytest.skip(f"DCMTK's {name} is not installed (Debian: dcmtk)")
    return path


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(what: Callable[[], Any], why: str, patience_s: float = PATIENCE_S) -> Any:
    """Ask until the answer is true; fail with `why` where it never is."""
    deadline = time.monotonic() + patience_s
    while not (answer := what()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {patience_s:g} s: {why}")
        time.sleep(0.05)
    return answer


class RunningNode:
    """``edge-spine node`` as a process.

    Parameters
    ----------
    folder : Path
        For its configuration, spool and log.
    archive_port : int
        Where results go.
    model : Path
        A bundle.
    tables, delivery, peers, destination : str
        More of node.toml.
    program : sequence of str
        What is run instead of ``-m edge_spine``.
    **node
        More keys of the table [node].
    """

    def __init__(
        self,
        folder: Path,
        archive_port: int,
        model: Path | None = None,
        *,
        tables: str = "",
        delivery: str = "[delivery]\nfirst_retry_s = 0.2\nlongest_retry_s = 0.5\n",
        peers: str = '[[peer]]\nae_title = "SCANNER"\naddress = "127.0.0.1"\n',
        destination: str = "",
        program: tuple[str, ...] = ("-m", "edge_spine"),
        **node: Any,
    ) -> None:
        self.folder, self.port, self.health_port = folder, free_port(), free_port()
        self.spool = folder / "spool"
        keys = {
            "ae_title": "EDGE_SPINE",
            "port": self.port,
            "health_port": self.health_port,
            "spool": str(self.spool),
            "least_free_mb": 1,
            "engine": "onnx-cpu",
            **({"model": str(model)} if model else {}),
            **node,
        }
        lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
        self.config = folder / "node.toml"
        self.config.write_text(
            f'[node]\n{lines}\n{peers}[destination]\nae_title = "ARCHIVE"\nhost = "127.0.0.1"\nport = {archive_port}\n'
            f"{destination}{delivery}{tables}",
            encoding="utf-8",
        )
        self._program = program
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "node.log"

    def start(self, *, wait: bool = True) -> RunningNode:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._program, "node", "--config", str(self.config), "-v"],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
            )
        if wait:
            wait_for(lambda: self.process.poll() is not None or self.answers(), "the node does not start", STARTING_S)
            assert self.process.poll() is None, self.log.read_text()
        return self

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def health(self) -> dict[str, Any]:
        return dict(json.loads(self.get("/health")[1]))

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def store(
        self, *files: Path, title: str = "SCANNER", options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Send files with DCMTK's storescu."""
        return run_dcmtk(
            "storescu",
            "-d",
            "-aet",
            title,
            "-aec",
            "EDGE_SPINE",
            "-R",
            *options,
            "127.0.0.1",
            str(self.port),
            *map(str, files),
        )

    def echo(
        self, *options: str, title: str = "SCANNER", called: str = "EDGE_SPINE"
    ) -> subprocess.CompletedProcess[str]:
        return run_dcmtk("echoscu", *options, "-aet", title, "-aec", called, "127.0.0.1", str(self.port))

    def kill(self) -> None:
        """As a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=10)

    def stop(self) -> int:
        """As systemd would; returns the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=30)

    def idle(self) -> bool:
        """Whether nothing waits and nothing is in work."""
        found = self.health()
        in_work = [path for path in (self.spool / "work").rglob("*") if path.is_file()]
        return found["queue"] == 0 and found["outbox"] == 0 and not in_work

    def files(self) -> set[str]:
        """List what lies in the spool, without what is always there."""
        return {
            path.relative_to(self.spool).as_posix()
            for path in self.spool.rglob("*")
            if path.is_file() and path.name not in (".lock", "audit.jsonl")
        }

    def scans(self) -> set[str]:
        """List the same without the outbox, where results of earlier scans may be sent again at any time."""
        return {name for name in self.files() if not name.startswith("outbox/")}

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.spool / "audit.jsonl").read_text().splitlines()]

    def noted(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until the audit log has `count` entries of an event, and return them."""
        wait_for(lambda: [entry["event"] for entry in self.audit()].count(event) >= count, f"{event} in the audit")
        return [entry for entry in self.audit() if entry["event"] == event]

    def __enter__(self) -> RunningNode:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


def acknowledged(sent: subprocess.CompletedProcess[str]) -> bool:
    """Return whether the node accepted the scan; it may have been killed before the association was released."""
    return "0x0000: Success" in sent.stdout + sent.stderr


def run_dcmtk(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([dcmtk(name), *arguments], capture_output=True, text=True, timeout=120, check=False)


class Archive:
    """A C-STORE service in this process that keeps what it is sent, and answers what `answer` says.

    Attributes
    ----------
    received : list of tuple
        SOP instance UID and encoded data set of every object, in order.
    associations : list of list
        SOP instance UIDs by association.
    """

    def __init__(self, port: int | None = None, title: str = "ARCHIVE") -> None:
        self.port = port or free_port()
        self.answer: Callable[[int], int] = lambda _count: 0x0000
        self.received: list[tuple[str, bytes]] = []
        self.associations: list[list[str]] = []
        entity = AE(title)
        entity.require_called_aet = True
        entity.add_supported_context(Verification)
        for storage_class in RESULTS.values():
            entity.add_supported_context(storage_class)
        self._server = entity.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[
                (evt.EVT_ESTABLISHED, lambda event: self.associations.append([])),
                (evt.EVT_C_STORE, self._stored),
            ],
        )

    def _stored(self, event: evt.Event) -> Dataset:
        status = self.answer(len(self.received))
        if status == 0x0000:
            uid = str(event.request.AffectedSOPInstanceUID)
            self.received.append((uid, event.encoded_dataset()))
            self.associations[-1].append(uid)
        answer = Dataset()
        answer.Status = status
        return answer

    def uids(self) -> set[str]:
        return {uid for uid, _ in self.received}

    def close(self) -> None:
        self._server.shutdown()


@contextmanager
def archive(port: int | None = None) -> Iterator[Archive]:
    running = Archive(port)
    try:
        yield running
    finally:
        running.close()


def scan_file(folder: Path, make_dicom: Callable[..., bytes], number: int = 1, **attributes: Any) -> Path:
    """Write a small whole-body file that the FAKE bundle accepts, with a UID of its own."""
    from tests.edge_spine.fake_result import phantom_pixels

    pixels = phantom_pixels().round().astype("uint8")
    values = {"SOPInstanceUID": f"2.25.{1000 + number}", "StudyInstanceUID": "2.25.7", "SeriesInstanceUID": "2.25.8"}
    path = folder / f"scan-{number}.dcm"
    content = make_dicom(pixels, **{"ExposedArea": [658, 1920], **values, **attributes})
    path.write_bytes(content)
    return path


def memory_mb(process: int) -> float:
    """Return the resident memory of a process; Linux only."""
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        pytest.skip("this system has no /proc")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
