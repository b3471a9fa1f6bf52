"""Send results from the outbox to the archive by C-STORE, with retries."""

from __future__ import annotations

import logging
import ssl
import threading
from itertools import islice
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association

from edge_spine.errors import reason_of
from edge_spine.node.config import RESULTS, NodeConfig
from edge_spine.node.monitor import Monitor
from edge_spine.node.outbox import Outbox, Parcel
from edge_spine.node.records import Audit

# Parcels per association; opening one costs more than sending an object.
_PARCELS_AT_ONCE = 16
_IDLE_S, _CLOSING_S = 1.0, 10.0
_log = logging.getLogger(__name__)


class _Unreachable(Exception):
    """Nothing can be sent now; the text is a one-word reason."""


class _Refused(Exception):
    """The archive rejects an object permanently."""


class Courier:
    """Thread that delivers the outbox, from `start` until `close`; audit and monitor record each attempt."""

    def __init__(self, config: NodeConfig, outbox: Outbox, audit: Audit, monitor: Monitor) -> None:
        self._destination, self._outbox, self._audit, self._monitor = config.destination, outbox, audit, monitor
        tls = config.tls if config.destination.tls else None
        self._tls = (tls.context(ssl.PROTOCOL_TLS_CLIENT), config.destination.host) if tls else None
        self._entity = AE(config.ae_title)
        self._entity.connection_timeout, self._entity.acse_timeout = 10, 30
        self._entity.dimse_timeout = self._entity.network_timeout = 60
        for name in config.results:
            self._entity.add_requested_context(RESULTS[name], [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        self._wake, self._stop = threading.Event(), threading.Event()
        self.problem = ""
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def start(self) -> None:
        """Start delivering."""
        self._thread.start()

    def wake(self) -> None:
        """Look for new parcels now."""
        self._wake.set()

    def close(self) -> None:
        """Stop after the current object."""
        self._stop.set()
        self._wake.set()
        self._thread.join(_CLOSING_S)

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                busy = self._round()
            except OSError as error:
                busy, self.problem = False, f"storage: {reason_of(error)}"
                _log.error("%s", self.problem)
            except Exception as error:
                # such as no memory or thread for an association: the next round may have it
                busy, self.problem = False, f"delivery: {type(error).__name__}"
                _log.error("%s", self.problem)
            if not busy:
                self._wake.wait(_IDLE_S)

    def _round(self) -> bool:
        """Deliver due parcels in one association; return False if nothing could be sent."""
        parcels = list(islice(self._outbox.due(), _PARCELS_AT_ONCE))
        if not parcels:
            return False
        try:
            association = self._connect()
        except _Unreachable as problem:
            # The other parcels cannot be sent now either.
            for parcel in self._outbox.due():
                self._put_off(parcel, str(problem))
            return False
        try:
            for parcel in parcels:
                if self._stop.is_set():
                    break
                self._deliver(association, parcel)
        finally:
            if association.is_established:
                association.release()
        return True

    def _connect(self) -> Association:
        where = self._destination
        try:
            association = self._entity.associate(where.host, where.port, ae_title=where.ae_title, tls_args=self._tls)
        except OSError:
            raise _Unreachable("unknown-host") from None
        if association.is_established:
            return association
        raise _Unreachable("rejected" if association.is_rejected else "unreachable")

    def _deliver(self, association: Association, parcel: Parcel) -> None:
        try:
            for path in parcel.objects():
                self._send(association, path)
                self._outbox.delivered(path)
        except _Refused as problem:
            self._put_off(parcel, str(problem), refused=True)
        except _Unreachable as problem:
            self._put_off(parcel, str(problem))
        except FileNotFoundError:
            # Reprocessing has replaced this parcel; the new one is sent later.
            return
        except OSError:
            raise
        except Exception as error:
            # A damaged object, for which pydicom and pynetdicom raise many types, holds up no other.
            self._put_off(parcel, f"damaged-object ({type(error).__name__})", refused=True)
        else:
            self._outbox.close(parcel)
            self._audit.note("delivered", scan=parcel.key, attempt=parcel.record.attempts + 1)
            self._monitor.deliveries.labels("delivered").inc()
            self.problem = ""

    def _send(self, association: Association, path: Path) -> None:
        if not association.is_established:
            raise _Unreachable("connection-lost")
        try:
            answer = association.send_c_store(dcmread(path))
        except ValueError:
            # pynetdicom raises it when no presentation context was accepted for this class.
            raise _Refused("class-not-accepted") from None
        except RuntimeError:
            raise _Unreachable("connection-lost") from None
        status = answer.get("Status")
        if status is None:
            raise _Unreachable("no-answer")
        if status == 0x0000 or status >> 12 == 0xB:
            return
        # PS3.4 B.2.3: A7xx (out of resources) is temporary; all other failures concern the object itself.
        raise (_Unreachable if status >> 8 == 0xA7 else _Refused)(f"status-{status:04X}")

    def _put_off(self, parcel: Parcel, problem: str, *, refused: bool = False) -> None:
        self.problem = problem
        if self._outbox.postpone(parcel, problem, refused=refused):
            self._monitor.deliveries.labels("postponed").inc()
        else:
            self.note_dead(parcel.key, problem)

    def note_dead(self, key: str, problem: str) -> None:
        """Count, record and log a dead letter."""
        self._monitor.deliveries.labels("dead-letter").inc()
        self._audit.note("dead-letter", scan=key, problem=problem)
        _log.error("results of scan %s are not delivered (%s): dead letter", key[:12], problem)
