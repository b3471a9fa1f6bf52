"""The verb node, as far as its configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_spine.cli import main as cli


def test_a_node_without_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pynetdicom")
    assert cli.main(["node", "--config", str(tmp_path / "node.toml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "node.toml" in line and "README" in line
