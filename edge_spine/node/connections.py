"""Listening socket with limits on addresses, number of connections, idle time and received bytes.

pynetdicom counts a connection as an association from its first byte and waits 30 s for the rest, so that a few silent
connections block all others. Here the connection that has been silent longest is closed when there are too many.
"""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.transport import ThreadedAssociationServer

# The largest A-ASSOCIATE-RQ of scanners is about 20 kB, and the node requests data PDUs of 128 KiB at most.
MAX_PDU_BYTES = 2**20
MAX_WAITING, MAX_ASSOCIATIONS = 16, 32
PDU_TIMEOUT_S = 30.0
HANDSHAKE_TIMEOUT_S = 5.0


@dataclass
class _Connection:
    socket: socket.socket
    active: float
    established: bool = False
    held: int = 0


class Connections:
    """Open connections with the time of their last data and the bytes that they hold in memory.

    `is_known` returns whether an address may connect. The largest accepted object has `most_object_bytes`; all
    connections together hold at most four times as much. `on_refusal` is called with a reason for each connection that
    is closed here.
    """

    def __init__(
        self, is_known: Callable[[str], bool], most_object_bytes: int, on_refusal: Callable[[str], None]
    ) -> None:
        self._is_known, self._on_refusal = is_known, on_refusal
        # One object and the PDUs around it.
        self._most_bytes = most_object_bytes + MAX_PDU_BYTES
        self._open: dict[int, _Connection] = {}
        self._lock = threading.Lock()

    def admit(self, connection: socket.socket, address: str) -> bool:
        """Accept a new connection; if there are too many, close the one that has been silent longest."""
        if not self._is_known(address):
            self._on_refusal("unknown-address")
            return False
        with self._lock:
            self._forget_closed()
            crowded_out = [
                min(group, key=lambda kept: kept.active)
                for established, most in ((False, MAX_WAITING), (True, MAX_ASSOCIATIONS))
                if len(group := [kept for kept in self._open.values() if kept.established == established]) >= most
            ]
            self._open[id(connection)] = _Connection(connection, time.monotonic())
        for silent in crowded_out:
            self._on_refusal("crowded-out")
            # Its own thread then closes it.
            with suppress(OSError):
                silent.socket.shutdown(socket.SHUT_RDWR)
        return True

    def replace(self, connection: socket.socket, by: socket.socket) -> None:
        """Replace a connection by its TLS socket."""
        with self._lock:
            # A wrapped plain socket counts as closed and may already be removed.
            self._open.pop(id(connection), None)
            self._open[id(by)] = _Connection(by, time.monotonic())

    def establish(self, connection: socket.socket | None) -> None:
        """Mark a connection as an established association."""
        with self._lock:
            if id(connection) in self._open:
                self._open[id(connection)].established = True

    def release(self, connection: socket.socket | None) -> None:
        """Reset the bytes that a connection holds, after its object was stored."""
        with self._lock:
            if id(connection) in self._open:
                self._open[id(connection)].held = 0

    def receive(self, connection: socket.socket, count: int) -> bytearray:
        """Read `count` bytes, or fewer if the peer closes the connection.

        Raise OSError where the peer announces or sends too much, or is too slow.
        """
        with self._lock:
            self._forget_closed()
            known = self._open.get(id(connection)) or _Connection(connection, 0.0)
            known.active = time.monotonic()
            everything = sum(kept.held for kept in self._open.values())
            too_much = (
                count > MAX_PDU_BYTES
                or known.held + count > self._most_bytes
                or everything + count > 4 * self._most_bytes
            )
            known.held += 0 if too_much else count
        if too_much:
            self._on_refusal("too-large")
            raise OSError("more data than accepted")
        received, deadline = bytearray(), time.monotonic() + PDU_TIMEOUT_S
        while len(received) < count:
            connection.settimeout(max(deadline - time.monotonic(), 0.01))
            piece = connection.recv(min(count - len(received), 65_536))
            if not piece:
                break
            received += piece
        return received

    def _forget_closed(self) -> None:
        self._open = {key: kept for key, kept in self._open.items() if kept.socket.fileno() >= 0}


class GuardedServer(ThreadedAssociationServer):
    """pynetdicom's server with the limits of `Connections`; the TLS handshake runs in the connection's thread.

    It listens at `address` (host, port) in a thread of its own from construction until `shutdown`. Raise OSError where
    the address is not available. `handlers` are pairs of a pynetdicom event and the function that handles it.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        entity: ApplicationEntity,
        address: tuple[str, int],
        connections: Connections,
        tls: ssl.SSLContext | None,
        handlers: list[EventHandlerType],
    ) -> None:
        self.connections, self._tls = connections, tls
        super().__init__(entity, address, entity.ae_title, entity.supported_contexts, evt_handlers=handlers)
        self.bind(evt.EVT_CONN_OPEN, self._limit)
        self.bind(evt.EVT_ESTABLISHED, lambda event: self.connections.establish(socket_of(event)))
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.2}, name="listener", daemon=True).start()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return whether the connection is accepted; otherwise it is closed."""
        return self.connections.admit(request, str(client_address[0]))

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Complete the TLS handshake, then let pynetdicom handle the connection."""
        connection = request
        try:
            if self._tls is not None:
                request.settimeout(HANDSHAKE_TIMEOUT_S)
                connection = self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
                self.connections.replace(request, connection)
                connection.do_handshake()
            self.finish_request(connection, client_address)
        except Exception:
            self.shutdown_request(connection)

    def shutdown(self) -> None:
        """Stop listening."""
        # pynetdicom's own `shutdown` needs a list of servers that only `AE.start_server` fills.
        socketserver.BaseServer.shutdown(self)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Suppress the traceback that socketserver would print."""

    def _limit(self, event: Event) -> None:
        """Read a new association's data through `Connections`."""
        association, wrapped = event.assoc, event.assoc.dul.socket
        assert wrapped is not None

        def receive(count: int) -> bytearray:
            received = bytearray()
            try:
                if wrapped.socket is not None:
                    received = self.connections.receive(wrapped.socket, count)
            finally:
                if len(received) < count and not association.is_established:
                    # Otherwise the association's thread waits for a request that cannot arrive.
                    association.dul.to_user_queue.put(None)
            return received

        # pynetdicom reads any length that a PDU announces and has no other hook to limit it.
        wrapped.recv = receive  # type: ignore[method-assign,assignment]


def socket_of(event: Event) -> socket.socket | None:
    """Return the socket of an event's association, or None if it is closed."""
    wrapped = event.assoc.dul.socket
    return None if wrapped is None else wrapped.socket
