"""Serve /health and Prometheus /metrics on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector

from edge_spine.errors import EdgeSpineError

_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
_TIMEOUT_S = 5.0


class Monitor:
    """Prometheus counters of the node; labels hold no names, ids or UIDs."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._answers = Counter(
            "edge_spine_store_answers", "C-STORE requests by answer", ["answer"], registry=self.registry
        )
        self._turned_away = Counter(
            "edge_spine_turned_away", "Connections that were closed, by reason", ["reason"], registry=self.registry
        )
        self._scans = Counter(
            "edge_spine_scans",
            "Scans that were processed, by status and code",
            ["status", "code"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "edge_spine_scan_seconds", "From the queue to the outbox", buckets=_SECONDS, registry=self.registry
        )
        self._deliveries = Counter(
            "edge_spine_deliveries", "Attempts to deliver a scan's results", ["outcome"], registry=self.registry
        )

    def answered(self, answer: str) -> None:
        """Count a C-STORE response."""
        self._answers.labels(answer).inc()

    def turned_away(self, reason: str) -> None:
        """Count a closed connection."""
        self._turned_away.labels(reason).inc()

    def processed(self, status: str, code: str | None, seconds: float) -> None:
        """Count a processed scan and its time in s."""
        self._scans.labels(status, code or "").inc()
        self._seconds.observe(seconds)

    def delivered(self, outcome: str) -> None:
        """Count a delivery attempt."""
        self._deliveries.labels(outcome).inc()

    def watch(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is computed at each request."""
        Gauge(name, help_text, registry=self.registry).set_function(value)


class HealthServer:
    """HTTP server of /health and /metrics on loopback.

    Parameters
    ----------
    port : int
        Port to listen on.
    monitor : Monitor
        Content of /metrics.
    health : callable
        Returns the content of /health; the status is 200 if its "ok" is true, else 503.

    Raises
    ------
    EdgeSpineError
        The port is in use.
    """

    def __init__(self, port: int, monitor: Monitor, health: Callable[[], dict[str, Any]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = _TIMEOUT_S

            def do_GET(self) -> None:
                if self.path == "/health":
                    found = health()
                    self._answer(200 if found["ok"] else 503, "application/json", json.dumps(found).encode())
                elif self.path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(monitor.registry))
                else:
                    self._answer(404, "text/plain", b"/health or /metrics")

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Suppress the access log."""

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise EdgeSpineError(
                f"127.0.0.1:{port}: cannot listen there ({error.strerror}); set another node.health_port, or 0"
            ) from None
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()
