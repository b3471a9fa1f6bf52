"""The shortcut test: nothing of the spine is left in a masked crop, and the comparison runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.regressor import SpineRegressor
from export.studies.shortcut import hide_spine, main
from export.training.dataset import MARGIN, load_shards
from export.training.head import write_weights
from export.training.run import FROM_WEIGHTS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_shapes", "narrow")]


def test_the_mask_hides_the_spine_and_only_it(phantom_cache: Path) -> None:
    shard = next(iter(load_shards(phantom_cache).values()))
    for crop, curves in zip(shard["crop"], shard["curves"], strict=True):
        masked = hide_spine(crop, curves)
        for row in range(0, len(crop), 9):
            left, right = round(float(curves[row, 0])) + MARGIN, round(float(curves[row, 2])) + MARGIN
            assert len(np.unique(masked[row, max(left - 3, 0) : right + 4])) == 1
        changed = (masked != crop).mean()
        assert 0.1 < changed < 0.25


def test_the_comparison_reports_all_three(phantom_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # one step on a few small images
    monkeypatch.setattr("export.studies.shortcut.FROM_WEIGHTS", replace(FROM_WEIGHTS, stages=((1.0, 64, 4),)))
    write_weights(SpineRegressor().init_(), tmp_path / "start.safetensors")
    arguments = ["--cache", str(phantom_cache), "--validation", str(phantom_cache)]
    arguments += ["--start", str(tmp_path / "start.safetensors"), "--out", str(tmp_path), "--images", "4"]
    assert main([*arguments, "--device", "cpu"]) == 0
    report = json.loads((tmp_path / "shortcut.json").read_text(encoding="utf-8"))
    assert report["phantoms"] == 2
    assert all(report[name]["sagittal_px"] > 0 for name in ("spine masked", "whole image", "mean curve"))
