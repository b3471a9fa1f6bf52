"""Serve /health and Prometheus /metrics on loopback."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, MetricsHandler
from prometheus_client.process_collector import ProcessCollector

from edge_spine.errors import EdgeSpineError, reason_of

_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
_TIMEOUT_S = 5.0
_log = logging.getLogger(__name__)


class Monitor:
    """Prometheus metrics of the node; labels hold no names, ids or UIDs."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(f"edge_spine_{name}", help_text, labels, registry=registry)

        self.answers = counter("store_answers", "C-STORE requests by answer", "answer")
        self.turned_away = counter("turned_away", "Connections that were closed, by reason", "reason")
        self.aborts = counter("aborts", "Associations that ended without a release")
        self.scans = counter("scans", "Scans that were processed, by status and code", "status", "code")
        self.deliveries = counter("deliveries", "Attempts to deliver a scan's results", "outcome")
        self.seconds = Histogram(
            "edge_spine_scan_seconds", "From the queue to the outbox", buckets=_SECONDS, registry=registry
        )

    def gauge(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is computed at each request."""
        Gauge(f"edge_spine_{name}", help_text, registry=self.registry).set_function(value)


class HealthServer:
    """HTTP server of /health and /metrics on loopback; raise EdgeSpineError where the port is in use.

    `health` returns the content of /health; the HTTP status is 200 if its "ok" is true, else 503.
    """

    def __init__(self, port: int, monitor: Monitor, health: Callable[[], dict[str, Any]]) -> None:
        class Handler(MetricsHandler):
            registry = monitor.registry
            timeout = _TIMEOUT_S

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    super().do_GET()
                elif self.path == "/health":
                    found = health()
                    self._answer(200 if found["ok"] else 503, "application/json", json.dumps(found).encode())
                else:
                    self._answer(404, "text/plain", b"/health or /metrics")

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                # a client that is gone is no event of the node, and no traceback of its log
                error = sys.exc_info()[1]
                level = logging.DEBUG if isinstance(error, OSError) else logging.ERROR
                _log.log(level, "a request on the health port was not answered (%s)", type(error).__name__)

        try:
            self._server = Server(("127.0.0.1", port), Handler)
        except OSError as error:
            raise EdgeSpineError(
                f"127.0.0.1:{port}: cannot listen there ({reason_of(error)}); set another node.health_port, or 0"
            ) from None
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()
