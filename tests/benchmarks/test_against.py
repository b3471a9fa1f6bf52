"""benchmarks/against.py: each side runs its own modules, and a checkout against itself has ratios about 1."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.benchmarks.conftest import FOLDER, run_script

ROOT = FOLDER.parent


@pytest.mark.slow
def test_a_slower_checkout_is_seen(tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(ROOT / "edge_spine", other / "edge_spine")
    with (other / "edge_spine/measure.py").open("a", encoding="utf-8") as module:
        module.write("\n\n_quick = measure\n\n\ndef measure(*given):\n    [_quick(*given) for _ in range(4)]\n")
        module.write("    return _quick(*given)\n")
    _, printed, report = run_script("against", tmp_path, str(other), "--rounds", "1")
    ratios = {stage: found["here_over_other"]["ratio"] for stage, found in report["stages"].items()}
    assert ratios["measure"] < 0.5, printed
    assert 0.4 < ratios["judge"] < 2.5, printed


def test_a_folder_without_the_package_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import against

    with pytest.raises(SystemExit, match="2"):
        against.main([str(tmp_path)])
    assert "checkout" in capsys.readouterr().err
