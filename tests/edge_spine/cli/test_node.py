"""The verb node, as far as its configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_spine.cli import main as cli
from edge_spine.node.config import PAGE


def test_a_node_without_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pynetdicom")
    assert cli.main(["node", "--config", str(tmp_path / "node.toml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "node.toml" in line and str(PAGE) in line


def test_the_help_names_a_page_that_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    assert cli.main(["node", "--help"]) == 0
    assert str(PAGE) in capsys.readouterr().out
