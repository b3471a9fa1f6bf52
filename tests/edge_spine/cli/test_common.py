"""What the verbs share: packages that they need, and logging."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import pytest

from edge_spine.cli import common
from edge_spine.cli import main as cli


@pytest.mark.parametrize(("verb", "package"), [("node", "pynetdicom"), ("node", "highdicom"), ("watch", "filelock")])
def test_a_verb_without_its_packages_names_the_extra(
    verb: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = common.find_spec
    monkeypatch.setattr(common, "find_spec", lambda name: None if name == package else real(name))
    arguments = ["node", "--config", "node.toml"] if verb == "node" else ["watch", str(tmp_path), str(tmp_path / "out")]
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"edge-spine: missing packages: {package}; pip install '.[node]'"
    assert list(tmp_path.iterdir()) == []


def test_a_verb_without_options_of_its_own_has_those_of_output() -> None:
    parser = argparse.ArgumentParser()
    common.Verbs(parser).add("hello", lambda arguments: 0, "say hello", "edge-spine hello")
    arguments = parser.parse_args(["hello", "--json", "-q"])
    assert arguments.json and arguments.verbosity == -1 and arguments.verb(arguments) == 0


def test_logging_is_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    ours = logging.getLogger("edge_spine")
    before = list(ours.handlers), ours.level
    cli.main(["run", "gone", "--out", "x", "--write", "docx"])
    assert (list(ours.handlers), ours.level) == before
