"""A report that cannot be written ends a program before its work."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

STUDIES = ("mixtures", "geometry", "second_opinion", "independent_pairs", "disturbance", "sensitivity", "realism")


@pytest.mark.parametrize("place", ["missing/report.json", "."])
@pytest.mark.parametrize("name", ["export.training.evaluate", *(f"export.studies.{name}" for name in STUDIES)])
def test_a_report_without_a_folder_is_wrong_usage(
    name: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        import_module(name).main(["--json", str(tmp_path / place)])
    assert "argument --json" in capsys.readouterr().err
