"""The part `node` of `faults.py`: a node and an archive that fail, and senders that abort."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from clusters import HERE, answers, end, free_port, has_started
from measuring import SCAN
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from trials import Found, scan_bytes

from edge_spine.node.config import RESULTS

_PATIENCE_S = 300.0


class Archive:
    """A C-STORE service that keeps the objects of each patient and can go away.

    Attributes
    ----------
    objects : dict
        (PatientID, SOP class) to SOP instance UID to (StudyInstanceUID, document or None).
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.objects: dict[tuple[str, str], dict[str, tuple[str, bytes | None]]] = defaultdict(dict)
        self._server: Any = None
        self.come()

    def come(self) -> None:
        """Listen."""
        entity = AE("ARCHIVE")
        for storage_class in RESULTS.values():
            entity.add_supported_context(storage_class)
        handlers = [(evt.EVT_C_STORE, self._stored)]
        self._server = entity.start_server((HERE, self.port), block=False, evt_handlers=handlers)

    def go(self) -> None:
        """Stop listening, and abort what is under way."""
        self._server.shutdown()

    def _stored(self, event: evt.Event) -> int:
        found = event.dataset
        document = found.get("EncapsulatedDocument")
        self.objects[str(found.PatientID), str(found.SOPClassUID)][str(found.SOPInstanceUID)] = (
            str(found.StudyInstanceUID),
            None if document is None else bytes(document),
        )
        return 0x0000


class Node:
    """A node in a process of its own, which can be killed."""

    def __init__(self, folder: Path, model: str, archive_port: int) -> None:
        self.port, self.spool, self._folder = free_port(), folder / "spool", folder
        (folder / "node.toml").write_text(
            f'[node]\nae_title = "EDGE_SPINE"\nport = {self.port}\nspool = {json.dumps(str(self.spool))}\n'
            f'health_port = 0\nleast_free_mb = 1\nengine = "onnx-cpu"\nmodel = {json.dumps(model)}\n'
            f'[[peer]]\nae_title = "SCANNER"\naddress = "{HERE}"\n'
            f'[destination]\nae_title = "ARCHIVE"\nhost = "{HERE}"\nport = {archive_port}\n'
            "[delivery]\nfirst_retry_s = 0.2\nlongest_retry_s = 1.0\n",
            encoding="utf-8",
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.begin()

    def begin(self) -> None:
        """Start, and wait until it listens."""
        with (self._folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "edge_spine", "node", "--config", str(self._folder / "node.toml")]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        # nobody reads the reports
        assert self.process.stdout is not None
        self.process.stdout.close()
        if not has_started(self.process, lambda: answers(self.port)):
            raise RuntimeError(
                f"the node does not start:\n{(self._folder / 'log').read_text(errors='replace')[-2000:]}"
            )

    def kill(self) -> None:
        """Kill the process."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @property
    def idle(self) -> bool:
        """Whether no scan waits for processing or delivery."""
        folders = ("queue", "work", "outbox")
        return not any(path.is_file() for name in folders for path in (self.spool / name).rglob("*"))

    def kept(self) -> set[str]:
        """Return patients whose scan the node has set aside with a reason, for instance after three killed attempts."""
        aside = [path for name in ("failed", "quarantine") for path in (self.spool / name).glob("*.dcm")]
        return {str(dcmread(path).PatientID) for path in aside if path.with_name(f"{path.name}.reason.json").is_file()}


def _send(node: Node, content: bytes, fault: str) -> bool:
    """Send a scan; return whether the node has taken it."""
    dataset = dcmread(BytesIO(content))
    entity = AE("SCANNER")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 30
    entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate(HERE, node.port, ae_title="EDGE_SPINE")
    if not association.is_established:
        return False
    if fault == "cut":
        wire = association.dul.socket
        cutting = threading.Timer(0.002, lambda: wire and wire.socket and wire.socket.shutdown(socket.SHUT_RDWR))
        cutting.start()
    answer = Dataset()
    with suppress(RuntimeError, OSError, ValueError):
        answer = association.send_c_store(dataset)
    if fault == "abort":
        association.abort()
    elif association.is_established:
        association.release()
    return answer.get("Status") == 0x0000


def node(seconds: float, model: str, chance: random.Random, found: Found) -> None:
    """Send scans for a time while everything fails now and then, then wait for all results."""
    with tempfile.TemporaryDirectory(prefix="faults", ignore_cleanup_errors=True) as folder:
        archive = Archive()
        running = Node(Path(folder), model, archive.port)
        try:
            sent = _trouble(running, archive, seconds, chance)
            deadline = time.monotonic() + _PATIENCE_S
            while not running.idle and time.monotonic() < deadline:
                time.sleep(0.2)
            kept = running.kept()
            found.tried, found.kept = found.tried + len(sent), found.kept + len(kept & sent)
            _judge(sent - kept, archive, found)
        finally:
            assert running.process is not None
            end(running.process)
            archive.go()
        if running.process.returncode != 0:
            found.losses.append(f"node: status {running.process.returncode} after SIGTERM, 0 expected")


def _trouble(running: Node, archive: Archive, seconds: float, chance: random.Random) -> set[str]:
    """Send scans of different patients; return the patients whose scan was taken."""
    taken: set[str] = set()
    deadline, number = time.monotonic() + seconds, 0
    while time.monotonic() < deadline or not taken:
        number += 1
        patient = f"P{number}"
        content = scan_bytes(f"2.25.{10**6 + number}", 0, PatientID=patient)
        fault = chance.choice(("none", "none", "abort", "cut", "away", "kill"))
        if fault == "away":
            archive.go()
        if fault == "kill":
            threading.Timer(chance.uniform(0, 0.5), running.process.kill if running.process else print).start()
        # a scanner sends again what was not taken
        for attempt in range(10):
            if _send(running, content, fault if attempt == 0 else "none"):
                taken.add(patient)
                break
            if running.process is not None and running.process.poll() is not None:
                running.begin()
            time.sleep(0.2)
        if fault == "away":
            time.sleep(chance.uniform(0, 2))
            archive.come()
        if fault == "kill":
            time.sleep(0.6)
            running.kill()
            running.begin()
    return taken


def _judge(sent: set[str], archive: Archive, found: Found) -> None:
    study = str(dcmread(SCAN).StudyInstanceUID)
    documents: dict[str, set[bytes]] = defaultdict(set)
    for patient in sorted(sent):
        for name in ("sr", "sc", "stl-dcm"):
            objects = archive.objects.get((patient, str(RESULTS[name])), {})
            if not objects:
                found.losses.append(f"{patient} has no {name}")
            if len(objects) > 1:
                found.duplicates.append(f"{patient} has {len(objects)} objects {name}")
            for belongs_to, document in objects.values():
                if belongs_to != study:
                    found.wrong.append(f"{patient}: {name} of another study")
                if document is not None:
                    documents[name].add(document)
    # all scans show the same
    found.wrong += [f"{len(several)} different {name}" for name, several in documents.items() if len(several) > 1]
    found.wrong += [f"{patient} was never sent" for patient, _ in archive.objects if patient not in sent]
