"""storescu -> node -> Orthanc -> REST, on the loopback interface of a network of its own.

    unshare --net python round_trip.py FOLDER SCAN

Orthanc 1.10 listens on every interface whatever it is told, so it gets an interface that leads nowhere. Prints JSON.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.edge_spine.node.running import RunningNode, free_port, wait_for

_SIOCSIFFLAGS, _IFF_UP_RUNNING = 0x8914, 0x41


def raise_loopback() -> None:
    """As ``ip link set lo up`` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP_RUNNING))


class Orthanc:
    """Debian's Orthanc with a configuration and a store of its own."""

    def __init__(self, folder: Path, *plugins: str) -> None:
        self.dicom_port, self.http_port = free_port(), free_port()
        (folder / "orthanc.json").write_text(
            json.dumps(
                {
                    "DicomAet": "ARCHIVE",
                    "DicomPort": self.dicom_port,
                    "DicomCheckCalledAet": True,
                    "HttpPort": self.http_port,
                    "RemoteAccessAllowed": False,
                    "StorageDirectory": str(folder / "store"),
                    "IndexDirectory": str(folder / "store"),
                    "Plugins": plugins,
                }
            )
        )
        with (folder / "orthanc.log").open("wb") as log:
            self.process = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
        wait_for(lambda: self.process.poll() is not None or self.answers(), "Orthanc does not start")

    def answers(self) -> bool:
        try:
            return bool(self.rest("/system"))
        except OSError:
            return False

    def rest(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as answer:
            content = answer.read()
            return json.loads(content) if "json" in answer.headers["Content-Type"] else content


def main(folder: Path, scan: Path) -> dict[str, Any]:
    """Send the scan twice; return what Orthanc holds after each time."""
    raise_loopback()
    orthanc = Orthanc(folder)
    passes = []
    try:
        with RunningNode(folder, orthanc.dicom_port) as node:
            for _ in range(2):
                sent = node.store(scan)
                assert sent.returncode == 0, sent.stderr
                started = time.monotonic()
                wait_for(lambda: len(orthanc.rest("/instances")) >= 3 and node.idle(), "three results in Orthanc")
                found = {}
                for instance in orthanc.rest("/instances"):
                    content = orthanc.rest(f"/instances/{instance}/file")
                    tags = orthanc.rest(f"/instances/{instance}/simplified-tags")
                    (folder / f"{tags['Modality']}.dcm").write_bytes(content)
                    found[tags["SOPInstanceUID"]] = {
                        "modality": tags["Modality"],
                        "study": tags["StudyInstanceUID"],
                        "patient": tags["PatientID"],
                        "sha256": hashlib.sha256(content).hexdigest(),
                    }
                passes.append({"objects": found, "seconds": time.monotonic() - started})
            previews = [
                len(orthanc.rest(f"/instances/{instance}/preview"))
                for instance in orthanc.rest("/instances")
                if orthanc.rest(f"/instances/{instance}/simplified-tags")["Modality"] == "OT"
            ]
            node.noted("delivered", 2)
            return {
                "passes": passes,
                "events": [entry["event"] for entry in node.audit()],
                "left": sorted(node.files()),
                "preview_bytes": previews,
            }
    finally:
        orthanc.process.kill()


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
