"""The verb demo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.edge_spine.cli.running import command


@pytest.mark.slow
def test_the_demo_runs(tmp_path: Path) -> None:
    ended = command("demo", "--out", tmp_path, "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    line = json.loads(ended.stdout)
    assert (line["source"], line["status"]) == ("synthetic_whole_body.dcm", "done")
    assert len(line["outputs"]) == 3
    assert all(Path(path).stat().st_size > 1000 for path in line["outputs"])
