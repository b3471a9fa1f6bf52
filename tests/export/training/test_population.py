from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install '.[export]'")

from edge_spine.bundle import load_bundle
from edge_spine.errors import UsageError
from export.training.phantoms.phantom import make_subject
from export.training.population import angle_limits, answered_angles, main, population_range
from tests.edge_spine.fake_bundle import fake_bundle, fake_output


@pytest.mark.slow
def test_the_range_holds_its_share_of_the_subjects() -> None:
    found = population_range(200)
    inside = []
    for seed in range(200):
        subject = make_subject(seed)
        centre = subject.truth(subject.trunk_heights_mm).sagittal[:, 1] / subject.model_pixel_mm
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


def test_the_angles_are_those_of_the_central_98_percent() -> None:
    angles = [(float(degree), 2.0 * degree) for degree in range(101)]
    found = angle_limits(angles, "true curves")
    assert found == {"kyphosis_deg": [1.0, 99.0], "lordosis_deg": [2.0, 198.0], "angles_of": "true curves"}
    population = population_range(200)
    low, high = population["kyphosis_deg"]
    # supine adults
    assert 0 < low < 20 and 40 < high < 70 and population["angles_of"] == "true curves"


@pytest.mark.slow
def test_the_angles_may_be_those_of_the_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="an engine is needed: pip install '.[cpu]'")
    model = fake_bundle(tmp_path / "model")
    angles = np.array(answered_angles(load_bundle().folder, 12, "onnx-cpu"))
    assert angles.shape == (12, 2) and angles.min() > 0 and angles.max() < 90 and angles.std(axis=0).min() > 2
    monkeypatch.setattr(
        "export.training.population.answered_angles", lambda *_: [(0.0, 0.0)] * 50 + [(50.0, 60.0)] * 50
    )
    assert main(["--model", str(model), "--count", "100", "--answers", "100"]) == 0
    population = load_bundle(model).population
    assert population is not None and population.kyphosis_deg == (0, 50) and population.lordosis_deg == (0, 60)
    assert load_bundle(model).manifest["population"]["angles_of"] == "answers"


def test_a_bundle_that_refuses_phantoms_gives_no_limits(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="an engine is needed: pip install '.[cpu]'")
    crossed = fake_output().reshape(209, 6)[:, ::-1].reshape(-1)
    with pytest.raises(UsageError, match="3 of 3 phantoms were refused"):
        answered_angles(fake_bundle(tmp_path, crossed), 3, "onnx-cpu")
