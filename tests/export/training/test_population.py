from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="install edge-spine[export]")

from edge_spine.bundle import load_bundle
from export.training.phantom import make_subject
from export.training.population import main, population_range
from tests.edge_spine.fake_bundle import fake_bundle


def test_the_range_holds_its_share_of_the_subjects() -> None:
    found = population_range(200)
    inside = []
    for seed in range(200):
        subject = make_subject(seed)
        centre = subject.curves_at(subject.row_heights_mm)[:, 4] / subject.model_pixel_mm
        centre = centre - centre.mean()
        inside.append((centre >= found["low"]) & (centre <= found["high"]))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.01)


def test_it_is_put_into_a_bundle_and_nothing_else_changes(tmp_path: Path) -> None:
    model = fake_bundle(tmp_path / "model")
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    assert main(["--model", str(model), "--count", "100"]) == 0
    assert load_bundle(model).population is not None
    changed = {path.name for path in model.iterdir() if path.read_bytes() != before[path.name]}
    assert changed == {"manifest.json"}


def test_what_is_no_bundle_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(tmp_path), "--count", "100"]) == 1
    assert capsys.readouterr().err.startswith("population: ")
