"""C-STORE and C-ECHO service; a scan is acknowledged only after it is on the disk."""

from __future__ import annotations

import hashlib
import ipaddress
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydicom import uid
from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from edge_spine.errors import REFUSAL_CODES, EdgeSpineError, Refusal, reason_of
from edge_spine.files import write_durably
from edge_spine.node.config import NodeConfig
from edge_spine.node.connections import Connections, GuardedServer, socket_of
from edge_spine.node.monitor import Monitor
from edge_spine.node.records import Audit, uid_hash
from edge_spine.reading.read import check_header
from edge_spine.reading.syntaxes import readable_syntaxes

STORAGE_CLASSES = (
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)
SUCCESS, OUT_OF_RESOURCES, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xC000
_LONGEST_UID, _PRIORITIES = 64, (0, 1, 2)
_REJECTED_PERMANENT, _BY_USER, _CALLING_TITLE_UNKNOWN = 0x01, 0x01, 0x03


class Listener:
    """C-STORE and C-ECHO listener, active from construction until `close`.

    Accepted scans are stored in the folder `queue`; `on_arrival` is called after each. Raise EdgeSpineError where the
    address is in use, or a TLS file cannot be used.
    """

    def __init__(
        self, config: NodeConfig, queue: Path, audit: Audit, monitor: Monitor, on_arrival: Callable[[], None]
    ) -> None:
        self._config, self._queue, self._audit, self._monitor = config, queue, audit, monitor
        self._on_arrival = on_arrival
        configure_pynetdicom()
        entity = AE(config.ae_title)
        entity.require_called_aet = True
        entity.require_calling_aet = sorted({peer.ae_title for peer in config.peers})
        # `Connections` enforces the limit; pynetdicom's own would also reject permitted peers.
        entity.maximum_associations = 1000
        entity.maximum_pdu_size = 128 * 1024
        entity.acse_timeout, entity.dimse_timeout, entity.network_timeout = 10, 30, 60
        entity.add_supported_context(Verification)
        for storage_class in STORAGE_CLASSES:
            entity.add_supported_context(storage_class, readable_syntaxes())
        self._connections = Connections(
            self._is_known, config.most_object_mb * 2**20, lambda reason: monitor.turned_away.labels(reason).inc()
        )
        try:
            self._server = GuardedServer(
                entity,
                (config.host, config.port),
                self._connections,
                config.tls.context(ssl.PROTOCOL_TLS_SERVER) if config.tls else None,
                [
                    (evt.EVT_REQUESTED, self._requested),
                    (evt.EVT_C_ECHO, lambda _event: SUCCESS),
                    (evt.EVT_DIMSE_RECV, _mend_command),
                    (evt.EVT_C_STORE, self._stored),
                    (evt.EVT_ABORTED, self._aborted),
                ],
            )
        except OSError as error:
            raise EdgeSpineError(
                f"{config.host}:{config.port}: cannot listen there ({reason_of(error)}); is another node running?"
            ) from None

    def close(self) -> None:
        """Stop listening and abort open associations."""
        self._server.shutdown()
        for association in self._server.active_associations:
            association.abort()

    def _is_known(self, address: str) -> bool:
        return any(_within(address, peer.network) for peer in self._config.peers)

    def _requested(self, event: Event) -> None:
        """Reject a sender whose address is not the one set for its AE title; record all rejections, pynetdicom's too.

        pynetdicom checks only the titles.
        """
        request: Any = event.assoc.requestor.primitive
        title, address = str(request.calling_ae_title).strip(), event.assoc.requestor.address
        reason = "wrong-called-title" if str(request.called_ae_title).strip() != self._config.ae_title else ""
        if not any(peer.ae_title == title and _within(address, peer.network) for peer in self._config.peers):
            reason = "unknown-peer"
            event.assoc.acse.send_reject(_REJECTED_PERMANENT, _BY_USER, _CALLING_TITLE_UNKNOWN)
            event.assoc.kill()
        if reason:
            self._monitor.turned_away.labels(reason).inc()
            self._audit.note("rejected", sender=title, reason=reason)

    def _aborted(self, event: Event) -> None:
        """Count and record an association that either side ended without a release."""
        self._monitor.aborts.inc()
        self._audit.note("aborted", sender=_sender(event))

    def _stored(self, event: Event) -> Dataset:
        try:
            status, comment = self._take(event)
        except OSError:
            status, comment = OUT_OF_RESOURCES, "cannot-store"
        self._connections.release(socket_of(event))
        self._monitor.answers.labels(comment or "accepted").inc()
        answer = Dataset()
        answer.Status = status
        if comment:
            answer.ErrorComment = comment
        return answer

    def _take(self, event: Event) -> tuple[int, str]:
        """Store an object in the queue; return a DICOM status and a reason if it was not stored."""
        if shutil.disk_usage(self._queue).free < self._config.least_free_mb * 2**20:
            return OUT_OF_RESOURCES, "disk-nearly-full"
        sender = _sender(event)
        content = event.encoded_dataset()
        key = hashlib.sha256(event.encoded_dataset(include_meta=False)).hexdigest()
        request: Any = event.request
        instance = uid_hash(str(request.AffectedSOPInstanceUID))
        try:
            check_header(content)
        except Refusal as refusal:
            self._audit.note("turned-away", scan=key, instance=instance, sender=sender, code=refusal.code)
            # One status for each refusal code; the code itself is the error comment.
            return NOT_UNDERSTOOD + 1 + REFUSAL_CODES.index(refusal.code), refusal.code
        write_durably(self._queue / f"{key}.dcm", content)
        self._audit.note("received", scan=key, instance=instance, sender=sender)
        self._on_arrival()
        return SUCCESS, ""


def configure_pynetdicom() -> None:
    """Configure pynetdicom to accept invalid UIDs and to log no received values.

    It would abort the whole association because of one invalid UID. UIDs are not used as file names here.
    """
    _config.ENFORCE_UID_CONFORMANCE = False
    _config.LOG_HANDLER_LEVEL = "none"


def _sender(event: Event) -> str:
    return str(event.assoc.requestor.ae_title).strip()


def _mend_command(event: Event) -> None:
    """Correct a C-STORE command that pynetdicom would abort or leave unanswered.

    The data set is not changed, and alone decides whether the object is accepted.
    """
    message = event.message
    command = message.command_set
    context = next((each for each in event.assoc.accepted_contexts if each.context_id == message.context_id), None)
    if not isinstance(message, C_STORE_RQ) or context is None:
        return
    if command.get("AffectedSOPClassUID") not in STORAGE_CLASSES:
        command.AffectedSOPClassUID = context.abstract_syntax
    instance = str(command.get("AffectedSOPInstanceUID") or "")
    if not 0 < len(instance) <= _LONGEST_UID:
        command.AffectedSOPInstanceUID = instance[:_LONGEST_UID] or "0"
    if command.get("Priority") not in _PRIORITIES:
        command.Priority = _PRIORITIES[0]
    for keyword in ("MoveOriginatorApplicationEntityTitle", "MoveOriginatorMessageID"):
        if keyword in command:
            delattr(command, keyword)


def _within(address: Any, network: Any) -> bool:
    found = ipaddress.ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found) in network
