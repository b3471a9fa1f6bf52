"""The verb batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_spine.cli import common
from edge_spine.cli import main as cli
from tests.edge_spine.cli.running import called
from tests.edge_spine.cohort.conftest import BUNDLED, OPTIONS, Here, make_cohort, run


def test_nothing_to_do_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.txt").write_text("# nothing\n", encoding="utf-8")
    assert cli.main(["batch", str(tmp_path / "list.txt"), "--out", str(tmp_path / "out"), "--model", "lite"]) == 2
    assert "no scan in it" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_missing_package_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = common.find_spec
    monkeypatch.setattr(common, "find_spec", lambda name: None if name == "pyarrow" else real(name))
    manifest = make_cohort(tmp_path, 2)
    assert cli.main(["batch", str(manifest), "--out", str(tmp_path / "out"), "--model", "lite"]) == 2
    assert "pip install '.[batch]'" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_of_one_is_a_cohort_too(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    ended = run(make_cohort(folder, 1), "--out", tmp_path / "out", "--write", "json")
    assert (ended.returncode, ended.stdout) == (0, "1 scan: 1 done\n"), ended.stderr
    assert len(list((tmp_path / "out/scans").glob("scan-00-*/result.json"))) == 1


@pytest.mark.slow
def test_refusals_can_be_good_enough_and_failures_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_spine.cohort.run.ProcessPool", Here)
    (tmp_path / "cut.dcm").write_bytes(BUNDLED.read_bytes()[:3000])
    (tmp_path / "list.csv").write_text("id,path,arm\nA,cut.dcm,x\n", encoding="utf-8")
    batch = ("batch", *OPTIONS, tmp_path / "list.csv", "--out", tmp_path / "out")
    assert called(*batch).returncode == 1
    assert called(*batch, "--refusals-ok", "--bids").returncode == 0
    assert (tmp_path / "out" / "measurements.csv").read_text(encoding="utf-8").splitlines()[1].endswith(",x")
    assert {path.name for path in (tmp_path / "out" / "bids").iterdir()} == {
        *("participants.tsv", "participants.json", "dataset_description.json")
    }
    (tmp_path / "list.csv").write_text("id,path\nA,cut.dcm\nB,away.dcm\n", encoding="utf-8")
    assert called(*batch, "--refusals-ok").returncode == 1
