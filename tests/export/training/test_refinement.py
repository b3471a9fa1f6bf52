from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install '.[export]'")

from edge_spine.network import CURVE_ROWS
from edge_spine.preprocessing.crop import as_tensor
from edge_spine.refine import INPUTS, read_refinement, refined
from export.training.dataset import MARGIN, WIDE
from export.training.refinement import draw, fit, main
from export.training.samples import Samples, Shards
from tests.edge_spine.test_refine import STRAIGHT, T, column_image, output_at


def wide_column(true_px: float, half_width: float, half_waves: int) -> tuple[np.ndarray, np.ndarray]:
    """FAKE wide crop (272, 272) with a bright column that wanders, and its curves (272, 6)."""
    rows = np.arange(WIDE) - MARGIN
    t = (rows - CURVE_ROWS[0]) / (CURVE_ROWS[-1] - CURVE_ROWS[0])
    centre = true_px + 3 * np.cos(np.pi * half_waves * t)
    distance = np.abs(np.arange(WIDE) - MARGIN - centre[:, np.newaxis])
    crop = 0.2 + 0.3 / (1 + np.exp((distance - half_width) / 0.7))
    curves = np.zeros((WIDE, 6), np.float32)
    curves[:, :3] = centre[:, np.newaxis] + np.array([-half_width, 0, half_width])
    return np.round(crop * 255).astype(np.uint8), curves


@pytest.fixture(scope="module")
def columns() -> Shards:
    rng = np.random.default_rng(3)
    drawn = [wide_column(112 + rng.normal(0, 2), rng.uniform(6, 10), rng.integers(1, 6)) for _ in range(24)]
    return {"columns": {"crop": np.stack([crop for crop, _ in drawn]), "curves": np.stack([c for _, c in drawn])}}


def test_windows_come_with_what_is_wanted_of_them(columns: Shards) -> None:
    drawn = list(draw(Samples(columns, seed=0), 6, np.random.default_rng(0)))
    assert len(drawn) == 6
    for cut, wanted in drawn:
        assert cut.shape == (len(wanted), INPUTS)
        assert wanted.shape[1] == 2 and np.isfinite(cut).all()
        assert np.abs(wanted).max() < 1
    assert np.concatenate([wanted for _, wanted in drawn])[:, 0].std() > 0.02


@pytest.mark.slow
def test_a_network_fitted_on_columns_finds_another_column(columns: Shards) -> None:
    refinement = read_refinement(fit(Samples(columns, seed=0), images=250, epochs=25).archive())
    wave = 2.0 * np.cos(4 * np.pi * T)
    shown = column_image(112 + wave)
    output = output_at(STRAIGHT)
    found = (refined(as_tensor(shown), output, refinement) - output).reshape(209, 6) * 224
    assert float(found[:, 1] @ wave) / float(wave @ wave) > 0.7
    assert np.abs(found[:, 1] - wave).mean() < 0.6


def test_the_command_writes_weights_that_the_runtime_reads(
    columns: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.training.refinement.Samples", lambda *_: Samples(columns, seed=1))
    out = tmp_path / "new" / "refinement.npz"
    assert main(["--cache", str(tmp_path), "--out", str(out), "--images", "8"]) == 0
    first = out.read_bytes()
    assert read_refinement(first).weight2.shape[1] == 2
    monkeypatch.setattr("export.training.refinement.Samples", lambda *_: Samples(columns, seed=1))
    assert main(["--cache", str(tmp_path), "--out", str(out), "--images", "8"]) == 0
    for name, array in vars(read_refinement(out.read_bytes())).items():
        np.testing.assert_array_equal(array, getattr(read_refinement(first), name))


def test_wrong_usage_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["--cache", str(tmp_path), "--out", str(tmp_path / "f.npz"), "--images", "0"])
