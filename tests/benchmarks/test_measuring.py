"""The description of a machine."""

from __future__ import annotations

import measuring
import pytest


def test_a_machine_without_git_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = measuring.machine("numpy")
    assert found["commit"] is None and found["versions"]["numpy"]
