"""/health and /metrics."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("pynetdicom", reason="pip install '.[node]'")
pytest.importorskip("highdicom", reason="pip install '.[node]'")
from edge_spine.errors import EdgeSpineError
from edge_spine.node.monitor import HealthServer, Monitor
from tests.edge_spine.node.running import RunningNode, archive, free_port, scan_file, wait_for

MakeDicom = Callable[..., bytes]


@pytest.mark.slow
def test_health_and_metrics(tmp_path: Path, fake_model: Path, make_dicom: MakeDicom) -> None:
    with archive() as pacs, RunningNode(tmp_path, pacs.port, fake_model) as node:
        node.store(scan_file(tmp_path, make_dicom))
        wait_for(lambda: len(pacs.received) == 3 and node.idle(), "results")
        status, _ = node.get("/health")
        assert status == 200
        _, text = node.get("/metrics")
        for line in (
            'edge_spine_store_answers_total{answer="accepted"} 1.0',
            'edge_spine_scans_total{code="",status="done"} 1.0',
            'edge_spine_deliveries_total{outcome="delivered"} 1.0',
            "edge_spine_queue_scans 0.0",
        ):
            assert line in text
        assert node.get("/")[0] == 404


def got(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_health_is_a_status_and_metrics_are_text() -> None:
    monitor, state, port = Monitor(), {"ok": True, "queue": 3}, free_port()
    monitor.answers.labels("accepted").inc()
    monitor.turned_away.labels("unknown-address").inc()
    monitor.scans.labels("refused", "no-spine").inc()
    monitor.seconds.observe(0.3)
    monitor.deliveries.labels("postponed").inc()
    monitor.gauge("edge_spine_queue_scans", "Waiting scans", lambda: 3.0)
    with closing(HealthServer(port, monitor, lambda: state)):
        status, body = got(port, "/health")
        assert (status, json.loads(body)) == (200, state)
        state["ok"] = False
        assert got(port, "/health")[0] == 503
        assert got(port, "/elsewhere")[0] == 404
        status, text = got(port, "/metrics")
    assert status == 200
    for line in (
        'edge_spine_store_answers_total{answer="accepted"} 1.0',
        'edge_spine_turned_away_total{reason="unknown-address"} 1.0',
        'edge_spine_scans_total{code="no-spine",status="refused"} 1.0',
        'edge_spine_scan_seconds_bucket{le="0.5"} 1.0',
        'edge_spine_deliveries_total{outcome="postponed"} 1.0',
        "edge_spine_queue_scans 3.0",
    ):
        assert line in text


def test_a_client_that_is_gone_leaves_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    port, asked = free_port(), threading.Event()

    def health() -> dict[str, bool]:
        asked.set()
        time.sleep(0.1)
        return {"ok": True}

    with closing(HealthServer(port, Monitor(), health)):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            assert asked.wait(10)
            # closed with a reset
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(0.3)
        assert got(port, "/health")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_an_error_of_the_node_itself_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def health() -> dict[str, bool]:
        raise ValueError("SECRET")

    port = free_port()
    with closing(HealthServer(port, Monitor(), health)), pytest.raises(OSError):
        got(port, "/health")
    wait_for(lambda: "was not answered (ValueError)" in caplog.text, "a line of the log")
    assert "SECRET" not in caplog.text


def test_a_port_in_use_is_one_line() -> None:
    port = free_port()
    with closing(HealthServer(port, Monitor(), dict)), pytest.raises(EdgeSpineError, match="health_port") as caught:
        HealthServer(port, Monitor(), dict)
    assert "\n" not in str(caught.value)
