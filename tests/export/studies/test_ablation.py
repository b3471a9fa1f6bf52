"""The ablation: both networks get the same, and the table says what each made of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export.regressor import SpineRegressor
from export.studies.ablation import VARIANTS, main
from export.training.run import FROM_SCRATCH


@pytest.mark.slow
@pytest.mark.usefixtures("few_shapes", "narrow")
def test_both_networks_are_trained_and_compared(
    phantom_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # one step on a few small images
    monkeypatch.setattr("export.studies.ablation.FROM_SCRATCH", replace(FROM_SCRATCH, stages=((1.0, 64, 4),)))
    arguments = ["--cache", str(phantom_cache), "--validation", str(phantom_cache), "--out", str(tmp_path)]
    assert main([*arguments, "--images", "4", "--device", "cpu"]) == 0
    report = json.loads((tmp_path / "ablation.json").read_text(encoding="utf-8"))
    assert list(report) == list(VARIANTS)
    plain, both = report.values()
    assert plain["million_parameters"] < both["million_parameters"]
    assert all(row["images_seen"] == 4 and row["coronal_px"] > 0 for row in report.values())
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_page_states_the_parameters_of_the_networks() -> None:
    page = (Path(__file__).parents[3] / "export" / "README.md").read_text(encoding="utf-8")
    for name, transformer in VARIANTS.items():
        with torch.device("meta"):
            network = SpineRegressor(transformer=transformer)
        count = sum(parameter.numel() for parameter in network.parameters())
        assert f"| {name} | {count / 1e6:.1f} M |" in page
