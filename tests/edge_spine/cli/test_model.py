"""The verb model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from edge_spine.bundle.load import load_bundle, manifest_bytes, parse_manifest
from edge_spine.cli import main as cli
from tests.edge_spine.fake_bundle import fake_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fake_bundle(tmp_path / "bundle")


def with_card(folder: Path, text: bytes) -> None:
    manifest = parse_manifest((folder / "manifest.json").read_bytes())
    entry = {"sha256": hashlib.sha256(text).hexdigest(), "size": len(text), "role": "card", "precision": "text"}
    manifest["files"]["card.md"] = entry
    (folder / "card.md").write_bytes(text)
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))


def test_the_card_of_a_bundle_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "# Model card: FAKE 0\n\nµm\n"
    with_card(folder, text.encode())
    assert cli.main(["model", "show", "--model", str(folder)]) == 0
    assert capsys.readouterr().out == text
    assert cli.main(["model", "show", "--model", str(folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    bundle = load_bundle(folder)
    assert shown == {"name": "FAKE", "version": "0", "sha256": bundle.sha256, "card": text}


def test_a_bundle_without_a_card_and_one_that_was_changed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["model", "show", "--model", str(folder)]) == 1
    assert "no file with the role 'card'" in capsys.readouterr().err
    with_card(folder, b"tested on patients")
    (folder / "card.md").write_bytes(b"approved for them!")
    assert cli.main(["model", "show", "--model", str(folder)]) == 1
    assert "SHA-256" in capsys.readouterr().err
