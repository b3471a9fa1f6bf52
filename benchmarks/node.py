"""Measure the DICOM node: scans accepted and processed per second, latency, and memory over time.

`python benchmarks/node.py [--count 2000] [--batch 500] [--json FILE]` starts a node with the packaged model and an
archive in separate processes and sends copies of the bundled scan with different UIDs, each batch in one association.
All share this machine's processors. Latency is the time from the C-STORE response until all results of the scan are in
the archive; in a batch it is mostly waiting, so single scans are timed as well.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from clusters import answers, end, free_port, has_started
from measuring import SCAN, described, laid_out, machine, options_of, quantiles, status_mb, write_json

# Scans that are sent one by one before the batches.
ALONE = 20
SERIES = ("accepted_per_s", "processed_and_delivered_per_s", "alone_latency_s", "batch_latency_s")


def archive(port: int) -> None:
    """Run an archive that accepts and discards all objects."""
    from pynetdicom import AE, evt

    from edge_spine.node.config import RESULTS

    entity = AE("ARCHIVE")
    for storage_class in RESULTS.values():
        entity.add_supported_context(storage_class)
    entity.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, lambda _event: 0x0000)])


def send(port: int, numbers: Iterable[int]) -> float:
    """Send copies of the bundled scan in one association; return the time in s."""
    from pydicom import dcmread
    from pynetdicom import AE

    scan = dcmread(SCAN)
    entity = AE("SCANNER")
    entity.add_requested_context(scan.SOPClassUID, scan.file_meta.TransferSyntaxUID)
    started = time.perf_counter()
    association = entity.associate("127.0.0.1", port, ae_title="EDGE_SPINE")
    for number in numbers:
        scan.SOPInstanceUID = scan.file_meta.MediaStorageSOPInstanceUID = f"2.25.{10**9 + number}"
        answer = association.send_c_store(scan)
        if answer.get("Status") != 0x0000:
            raise RuntimeError(f"scan {number} was answered {answer.get('Status')}")
    association.release()
    return time.perf_counter() - started


def latencies_s(spool: Path) -> list[float]:
    """Return the time (s) from "received" to "delivered" of each scan in the audit, by order of delivery."""
    received, found = {}, []
    for line in (spool / "audit.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        moment = datetime.fromisoformat(entry["time"])
        if entry["event"] == "received":
            received[entry["scan"]] = moment
        elif entry["event"] == "delivered":
            found.append((moment - received[entry["scan"]]).total_seconds())
    return found


def wait_until_delivered(spool: Path, count: int, node: subprocess.Popen[bytes]) -> None:
    """Wait for `count` deliveries; raise if the node exits."""
    while (audit := (spool / "audit.jsonl").read_text(encoding="utf-8")).count('"delivered"') < count:
        if node.poll() is not None or '"dead-letter"' in audit:
            raise RuntimeError("the node has ended, or gave up on a delivery")
        time.sleep(0.2)


def measure(count: int, batch: int, folder: Path) -> dict[str, Any]:
    """Run the benchmark; return the figures."""
    port, archive_port, spool = free_port(), free_port(), folder / "spool"
    config = folder / "node.toml"
    config.write_text(
        f'[node]\nae_title = "EDGE_SPINE"\nport = {port}\nspool = {json.dumps(str(spool))}\nhealth_port = 0\n'
        '[[peer]]\nae_title = "SCANNER"\naddress = "127.0.0.1"\n'
        f'[destination]\nae_title = "ARCHIVE"\nhost = "127.0.0.1"\nport = {archive_port}\n',
        encoding="utf-8",
    )
    pacs = multiprocessing.get_context("spawn").Process(target=archive, args=(archive_port,), daemon=True)
    pacs.start()
    with (folder / "log").open("wb") as log:
        node = subprocess.Popen(
            [sys.executable, "-m", "edge_spine", "node", "--config", str(config)], stdout=log, stderr=log
        )
    try:
        if not has_started(node, lambda: answers(port)):
            raise RuntimeError(f"the node does not start:\n{(folder / 'log').read_text(errors='replace')[-2000:]}")
        for number in range(ALONE):
            send(port, [number])
            wait_until_delivered(spool, number + 1, node)
        alone = latencies_s(spool)
        accepted, processed, memory = [], [], {ALONE: status_mb("VmRSS", node.pid)}
        for first in range(0, count, batch):
            numbers = range(ALONE + first, ALONE + min(first + batch, count))
            started = time.perf_counter()
            accepted.append(len(numbers) / send(port, numbers))
            wait_until_delivered(spool, numbers.stop, node)
            processed.append(len(numbers) / (time.perf_counter() - started))
            memory[numbers.stop] = status_mb("VmRSS", node.pid)
        return {
            "scans": count,
            "batch": batch,
            "accepted_per_s": accepted,
            "processed_and_delivered_per_s": processed,
            "alone_latency_s": alone,
            "batch_latency_s": latencies_s(spool)[ALONE:],
            "memory_mb_after": memory,
        }
    finally:
        end(node)
        pacs.kill()


def main() -> int:
    """Run from the command line."""
    parser = options_of(__doc__)
    parser.add_argument("--count", type=int, default=2000, help="scans (default 2000)")
    parser.add_argument("--batch", type=int, default=500, help="scans in one association (default 500)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.count, options.batch, Path(folder))
    found["machine"] = machine("onnxruntime", "openvino", "pynetdicom")
    rows = [(name, min(found[name]), *quantiles(found[name]).values(), max(found[name])) for name in SERIES]
    print(f"{described(found['machine'])}\n{laid_out(('', 'least', 'p50', 'p90', 'p99', 'most'), rows)}")
    print("\n" + laid_out(("after scans", "memory, MB"), found["memory_mb_after"].items()))
    write_json(options.json, found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
