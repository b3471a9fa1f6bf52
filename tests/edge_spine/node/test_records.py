"""The ledger and the audit."""

from __future__ import annotations

import json
from pathlib import Path

from edge_spine.node.records import Audit, Ledger, uid_hash


def test_the_ledger_remembers_content_and_model(tmp_path: Path) -> None:
    path = tmp_path / "ledger.txt"
    Ledger(path, "m1").add("a" * 64)
    assert "a" * 64 in Ledger(path, "m1")
    assert "b" * 64 not in Ledger(path, "m1")
    assert "a" * 64 not in Ledger(path, "m2")


def test_a_torn_line_of_the_ledger_costs_that_line_only(tmp_path: Path) -> None:
    path = tmp_path / "ledger.txt"
    Ledger(path, "m").add("a" * 64)
    with path.open("ab") as stream:
        stream.write(b"b" * 30)
    ledger = Ledger(path, "m")
    ledger.add("c" * 64)
    again = Ledger(path, "m")
    assert "a" * 64 in again and "c" * 64 in again and "b" * 30 not in again


def test_the_audit_grows(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    audit.note("received", scan="abc", code=None)
    audit.note("done", attempt=1)
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["event"], line.get("scan"), line.get("attempt")) for line in lines] == [
        ("received", "abc", None),
        ("done", None, 1),
    ]
    assert "code" not in lines[0]
    assert lines[0]["time"].endswith("+00:00")


def test_the_hash_of_a_uid_is_that_of_its_text() -> None:
    # as `printf 1.2.3 | sha256sum` gives it
    assert uid_hash("1.2.3") == "c47f5b18b8a430e698b9fe15e51f6119984e78334bcf3f45e210d30c37ef2f9e"
