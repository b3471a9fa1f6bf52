"""The configuration of pynetdicom that the listener sets."""

from __future__ import annotations

import pytest

pytest.importorskip("pynetdicom", reason="pip install '.[node]'")

from pynetdicom import _config, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import build_context
from pynetdicom.transport import ThreadedAssociationServer

import edge_spine.node.listener


def test_pynetdicom_still_has_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENFORCE_UID_CONFORMANCE", "LOG_HANDLER_LEVEL"):
        monkeypatch.setattr(_config, name, getattr(_config, name))
    edge_spine.node.listener.configure_pynetdicom()
    assert _config.ENFORCE_UID_CONFORMANCE is True
    with pytest.raises(ValueError, match="UID"):
        build_context("1.2.3..4")
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
