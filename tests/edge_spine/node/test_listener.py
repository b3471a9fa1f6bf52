"""The configuration of pynetdicom that the listener sets, and requests that are not as the standard wants them."""

from __future__ import annotations

import warnings
from io import BytesIO
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("pynetdicom", reason="pip install '.[node]'")

from pydicom.dataset import Dataset
from pydicom.uid import ComputedRadiographyImageStorage
from pynetdicom import _config, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.presentation import build_context
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class
from pynetdicom.transport import ThreadedAssociationServer

import edge_spine.node.listener


def test_pynetdicom_still_has_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENFORCE_UID_CONFORMANCE", "LOG_HANDLER_LEVEL"):
        monkeypatch.setattr(_config, name, getattr(_config, name))
    edge_spine.node.listener.configure_pynetdicom()
    assert _config.ENFORCE_UID_CONFORMANCE is False
    entity = ApplicationEntity("TEST")

    def events() -> set[object]:
        with ThreadedAssociationServer(
            entity, ("127.0.0.1", 0), "TEST", [build_context("1.2.840.10008.1.1")]
        ) as server:
            return {event for event in server.get_events() if server.get_handlers(event)}

    # With the setting, pynetdicom binds no handler that logs what a PDU holds.
    assert evt.EVT_PDU_RECV not in events()
    monkeypatch.setattr(_config, "LOG_HANDLER_LEVEL", "standard")
    assert evt.EVT_PDU_RECV in events()


def request(**command: Any) -> C_STORE_RQ:
    """Return a C-STORE request as pynetdicom decodes it."""
    message = C_STORE_RQ()
    message.context_id = 3
    values = {
        "AffectedSOPClassUID": ComputedRadiographyImageStorage,
        "CommandField": 1,
        "MessageID": 7,
        "Priority": 0,
        "CommandDataSetType": 1,
        "AffectedSOPInstanceUID": "1.2.3",
    } | command
    message.command_set = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, value in values.items():
            if value is not None:
                setattr(message.command_set, keyword, value)
    message.data_set = BytesIO(b"data")
    return message


@pytest.mark.parametrize(
    "command",
    [
        {"AffectedSOPInstanceUID": None},
        {"AffectedSOPInstanceUID": ""},
        {"AffectedSOPInstanceUID": "1." * 40},
        {"AffectedSOPInstanceUID": "1.2.840.113619.2.110.20240105.090501.3"},
        {"AffectedSOPInstanceUID": "no uid at all"},
        {"AffectedSOPInstanceUID": "../../etc"},
        {"AffectedSOPClassUID": None},
        {"AffectedSOPClassUID": "1.2.3.4.5"},
        {"AffectedSOPClassUID": "1." * 40},
        {"Priority": None},
        {"Priority": 9},
        {"MoveOriginatorApplicationEntityTitle": "far too long for a title", "MoveOriginatorMessageID": 1},
    ],
)
def test_every_request_to_store_reaches_the_handler_that_answers_it(command: dict[str, Any]) -> None:
    edge_spine.node.listener.configure_pynetdicom()
    message = request(**command)
    context = SimpleNamespace(context_id=3, abstract_syntax=ComputedRadiographyImageStorage)
    edge_spine.node.listener._mend_command(
        cast(Any, SimpleNamespace(message=message, assoc=SimpleNamespace(accepted_contexts=[context])))
    )
    primitive = cast(Any, message.message_to_primitive())
    assert primitive.is_valid_request and primitive.MessageID == 7
    assert uid_to_service_class(primitive.AffectedSOPClassUID) is StorageServiceClass
    if 0 < len(command.get("AffectedSOPInstanceUID") or "") <= 64:
        assert primitive.AffectedSOPInstanceUID == command["AffectedSOPInstanceUID"]
