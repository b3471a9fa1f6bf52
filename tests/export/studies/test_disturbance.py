"""What the study draws changes the picture where it says, and its table counts hits and false alarms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_spine import SpineEstimator, read_scan
from export.studies.disturbance import KINDS, Canvas, Outcome, outcomes, table

SCAN = Path(__file__).resolve().parents[3] / "edge_spine/data/synthetic_whole_body.dcm"


def _canvas() -> Canvas:
    rng = np.random.default_rng(0)
    pixels = rng.uniform(60, 180, (400, 160)).astype(np.float32)
    pixels[0, 0] = 252
    z = np.linspace(400, 860, 209)
    return Canvas(pixels, (4.0, 4.0), z, np.full(209, 320.0), np.full(209, 18.0))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "coarse rows"])
def test_a_disturbance_changes_the_rows_of_the_spine_and_keeps_the_range(kind: str) -> None:
    canvas = _canvas()
    for seed in range(3):
        shown = KINDS[kind][0](canvas, np.random.default_rng(seed))
        assert shown.shape == canvas.pixels.shape and shown.dtype == np.float32
        assert canvas.pixels.min() - 1e-3 <= shown.min() and shown.max() <= canvas.white + 1e-3
        assert (np.abs(shown - canvas.pixels)[100:215] > 5).any()


def test_coarse_rows_average() -> None:
    canvas = _canvas()
    shown = KINDS["coarse rows"][0](canvas, np.random.default_rng(0))
    assert 9 <= 400 * 4.0 / len(shown) <= 16 and shown.shape[1] == 160


def test_the_table_counts() -> None:
    found = [Outcome("phantoms", "", (), 0.0) for _ in range(3)] + [Outcome("phantoms", "", ("motion",), 0.0)]
    found += [Outcome("phantoms", "step", ("motion",), 9.0), Outcome("phantoms", "step", (), 8.0)]
    found += [Outcome("phantoms", "plate", ("metal",), 6.0, (1.0, 9.0, 10.0), (0.1, 0.9, 1.2))]
    found += [Outcome("phantoms", "step", (), 1.0), Outcome("phantoms", "step", (), 0.0, code="no-spine")]
    found += [Outcome("phantoms", "wire", ("object-across",), 3.0, error_deg=error, wrong_deg=5.0) for error in (4, 6)]
    found += [Outcome("phantoms", "wire", (), 9.0, error_deg=1.0)]
    text = table(found)
    assert "| `motion` | 25.0 % (1 of 4) |" in text and "| `metal` | 0.0 % (0 of 4) |" in text
    assert "| step | 1 of 4 | 2 | 50 % (1 of 2) | 0 % (0 of 1) | - | - |" in text
    assert "| plate | 0 of 1 | 1 | 100 % (1 of 1) | - | 9.8 | 67 % | - | - |" in text
    assert "| 100 % (2 of 2) | 50 % (1 of 2) |" in next(line for line in text.splitlines() if line.startswith("| wire"))


def test_undisturbed_scans_alone_give_the_false_alarms_alone() -> None:
    text = table([Outcome("phantoms", "", ("motion",), 0.0), Outcome("people", "", (), 0.0)])
    assert "| `motion` | 50.0 % (1 of 2) |" in text and "disturbance |" not in text


def test_nothing_is_drawn_on_undisturbed_scans() -> None:
    scan = read_scan(SCAN)
    with SpineEstimator("onnx-cpu", "lite", threads=1) as estimator:
        found = list(outcomes("phantoms", scan, estimator, np.random.default_rng(0), kinds=()))
    assert [outcome.kind for outcome in found] == [""]
